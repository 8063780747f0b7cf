"""Pictures across the two sides: same contents, near copies, names that mislead, pictures made from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_data import data_set, encoded, photo, said, triplet, write
from PIL import Image, ImageEnhance

from vsre.audit import audit
from vsre.audit.hashing import Fingerprint, Prints, fingerprint, near_pairs
from vsre.errors import VsreError

COPIES = {
    "compressed": lambda image: encoded(image, quality=30),
    "another format": lambda image: encoded(image, "PNG"),
    "smaller": lambda image: encoded(image.resize((80, 60)), quality=90),
    "duller": lambda image: encoded(ImageEnhance.Contrast(image).enhance(0.7)),
    "darker": lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.8)),
    "grey": lambda image: encoded(image.convert("L")),
}


def prints(data: list[bytes]) -> Prints:
    return Prints.of([fingerprint(d) for d in data])


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_near_and_others_are_not(copy: str) -> None:
    first = prints([encoded(photo(i), "PNG") for i in range(30)])
    second = prints([COPIES[copy](photo(i)) for i in range(30)])
    assert list(near_pairs(first, second)) == [(i, i, False) for i in range(30)]


def test_mirrored_copies_are_told() -> None:
    mirrored = [encoded(photo(i).transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=80) for i in range(30)]
    pairs = list(near_pairs(prints([encoded(photo(i), "PNG") for i in range(30)]), prints(mirrored)))
    assert pairs == [(i, i, True) for i in range(30)]


def test_the_hash_is_the_usual_one() -> None:
    """63 bits of the cosine transform, spelled out; hashes of earlier versions stay what they were."""
    cosines = np.cos(np.arange(8)[:, None] * (np.pi * (np.arange(32) + 0.5) / 32))
    sheets = [Image.new("RGB", (64, 64), "grey"), Image.linear_gradient("L").convert("RGB")]
    for image in [*map(photo, range(20)), *sheets]:
        grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), float)
        low = (cosines @ grey @ cosines.T).ravel()[1:].round(6)
        bits = "".join("01"[bit] for bit in (low > np.median(low)).tolist())
        assert fingerprint(encoded(image, "PNG")).bits == int(bits + "0", 2)


def test_a_thing_that_moved_makes_another_picture() -> None:
    """Two scenes on one ground, a small square here or there: nearly the same hash, and not the same picture."""
    scenes = []
    for at in (20, 148):
        ground = Image.linear_gradient("L").resize((192, 192)).convert("RGB")
        ground.paste("red", (at, 120, at + 24, 144))
        scenes.append(encoded(ground, "PNG"))
    assert list(near_pairs(prints(scenes[:1]), prints(scenes[1:]))) == [(0, 0, True)]
    assert list(near_pairs(prints(scenes), prints(scenes))) == [
        (0, 0, False),
        (1, 1, False),
        (0, 1, True),
        (1, 0, True),
    ]


def test_empty_pictures_are_near_where_they_are_the_same() -> None:
    plain = [encoded(Image.new("RGB", (64, 64), colour), "PNG") for colour in ("white", "black")]
    assert {(i, j) for i, j, _ in near_pairs(prints(plain), prints([*plain, encoded(photo(1), "PNG")]))} == {
        (0, 0), (1, 1),
    }  # fmt: skip


@pytest.mark.parametrize("bits", [0, 5, 10])
def test_the_search_finds_every_pair(bits: int) -> None:
    """Blocks and all: as a plain loop over all pairs finds them, on more pictures than one block holds."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    sets = []
    for count in (300, 5000):
        flips = np.array(
            [sum(1 << int(b) for b in rng.choice(63, rng.integers(0, 9), replace=False)) for _ in range(count)]
        )
        hashes = base[rng.integers(0, 40, count)] ^ flips.astype(np.uint64)
        sets.append(Prints.of([Fingerprint(int(h), 0, bytes(range(256))) for h in hashes]))
    found = {(i, j) for i, j, mirrored in near_pairs(*sets, bits=bits) if not mirrored}
    expected = {
        (i, j)
        for i, a in enumerate(sets[0].bits.tolist())
        for j, b in enumerate(sets[1].bits.tolist())
        if (a ^ b).bit_count() <= bits
    }
    assert found == expected and expected


def folder_of(path: Path, pictures: dict[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        (path / name).write_bytes(data)
    return path


def figures(tmp_path: Path, train: dict[str, bytes], test: dict[str, bytes], **more: Any) -> dict[str, Any]:
    files = [
        write(tmp_path / f"{side}.jsonl", [said(name, "cat", "near", "dog") for name in names])
        for side, names in (("a", train), ("b", test))
    ]
    folders = [folder_of(tmp_path / "train-images", train)], [folder_of(tmp_path / "test-images", test)]
    return audit(*files, images=folders[0], test_images=folders[1], resamples=5, **more).figures


def test_the_same_content_under_another_name(tmp_path: Path) -> None:
    pictures = [encoded(photo(i)) for i in range(4)]
    train = {"a.jpg": pictures[0], "b.jpg": pictures[1]}
    found = figures(tmp_path, train, {"renamed.jpg": pictures[0], "new.jpg": pictures[2]})
    assert found["findings"]["same_images"]["count"] == found["findings"]["verbatim_rows"]["count"] == 1
    assert found["clean"]["rows"] == 1 and not found["findings"]["near_images"]["count"]
    assert figures(tmp_path, train, {"renamed.jpg": pictures[0]}, near=False)["clean"]["rows"] == 0


def test_near_copies_take_rows_out_of_the_clean_ones(tmp_path: Path) -> None:
    train = {"a.jpg": encoded(photo(0)), "b.jpg": encoded(photo(1))}
    mirrored = encoded(photo(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    test = {"x.jpg": encoded(photo(0), quality=40), "y.jpg": mirrored, "z.jpg": encoded(photo(5))}
    found = figures(tmp_path, train, test)["findings"]
    assert (found["near_images"]["count"], found["near_images"]["mirrored"], found["near_images"]["rows"]) == (2, 1, 2)
    assert found["near_rows"]["count"] == 1 and found["same_images"]["count"] == 0
    assert found["near_images"]["examples"][0]["train_image"] in ("a.jpg", "b.jpg")
    again = figures(tmp_path, train, test, near=False)
    assert again["clean"]["rows"] == 3 and "Near copies were not looked for (--no-near)." in again["verdict"]["limits"]


def test_every_near_copy_counts(tmp_path: Path) -> None:
    """The caption may stand with any copy of the picture, and a copy may be a test picture itself."""
    copies = {f"{quality}.jpg": encoded(photo(0), quality=quality) for quality in (30, 50, 70)}
    test = {"x.jpg": encoded(photo(0), quality=90)}
    for name in copies:
        rows = [said(other, "cat", "near" if other == name else "on", "dog") for other in copies]
        files = [write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", [said("x.jpg", "cat", "near", "dog")])]
        folder = folder_of(tmp_path / "images", copies | test)
        found = audit(*files, images=[folder], resamples=5).figures["findings"]
        assert found["near_images"]["count"] == found["near_rows"]["count"] == 1, name
    both = figures(tmp_path / "both", {"30.jpg": copies["30.jpg"]}, {"30.jpg": copies["30.jpg"]} | test)
    assert both["findings"]["near_images"]["count"] == both["findings"]["same_images"]["count"] == 1
    assert both["clean"]["rows"] == 0


def test_one_name_for_different_pictures(tmp_path: Path) -> None:
    """Two worlds number their pictures alike; a photo that was saved again keeps its name and its rows."""
    train = {"1.jpg": encoded(photo(1)), "2.jpg": encoded(photo(2))}
    test = {"1.jpg": encoded(photo(3)), "2.jpg": encoded(photo(2), quality=50)}
    found = figures(tmp_path, train, test)
    assert found["findings"]["same_images"]["count"] == found["findings"]["verbatim_rows"]["count"] == 1
    assert found["findings"]["same_images"]["examples"] == [{"image": "2.jpg"}]
    assert found["pictures"]["names_of_several"] == 1 and found["clean"]["rows"] == 1


def test_without_pictures_names_decide(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.jsonl", [said(i, "cat", "on", "cup")]) for n, i in (("a", "1.jpg"), ("b", "1.jpg"))]
    found = audit(*files, resamples=5).figures
    assert found["findings"]["verbatim_rows"]["count"] == 1 and found["pictures"]["with_content"] == {
        "train": 0,
        "test": 0,
    }
    assert any("file name only" in limit for limit in found["verdict"]["limits"])


def test_pictures_that_are_missing_damaged_or_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded(photo(9)))
    names = ["good.jpg", "text.jpg", "empty.jpg", "gone.jpg", "../secret.jpg", "/etc/passwd", "x" * 300]
    images = folder_of(
        tmp_path / "images", {"good.jpg": encoded(photo(1)), "text.jpg": b"no picture at all", "empty.jpg": b""}
    )
    # Triplets may have any name; the reader of VSR files looks at theirs.
    bare = triplet(b"", "")
    train = data_set(tmp_path, "train", [bare.replace(image_id=f"name:{n}", image_name=n, image=None) for n in names])
    test = write(tmp_path / "test.jsonl", [said("good.jpg", "cat", "near", "dog")])
    found = audit(train, test, images=[images], resamples=5).figures
    assert found["train"]["rows"] == 7 and found["pictures"]["missing"] == {"train": 4, "test": 0}
    assert found["pictures"]["unreadable"]["count"] == 2
    assert "text.jpg" in " ".join(found["pictures"]["unreadable"]["first"])
    with pytest.raises(VsreError, match="no such image folder"):
        audit(train, train, images=[tmp_path / "nowhere"])


def test_pictures_in_parquet_and_what_was_made_of_them(tmp_path: Path) -> None:
    data = [encoded(photo(i)) for i in range(5)]
    test = [triplet(data[i], f"{i}.jpg") for i in range(4)]
    painted = triplet(data[4], "painted.jpg", provenance={"source_image_id": test[1].image_id})
    again = triplet(encoded(photo(2), quality=40), "again.jpg")
    train = data_set(tmp_path / "train", "train", [test[0].replace(caption="The dog is near the cat."), painted, again])
    found = audit(train, data_set(tmp_path / "test", "test", test), resamples=5).figures
    names = ("same_images", "made_from_images", "near_images", "near_rows")
    assert [found["findings"][name]["count"] for name in names] == [1, 1, 1, 1]
    assert found["clean"] == {"rows": 1, "share": 0.25, "images": 1, "rows_with_new_caption": 0}
    assert found["pictures"]["compared"] == {"train": 3, "test": 4}
    assert not found["verdict"]["limits"]


def test_names_join_triplets_and_files(tmp_path: Path) -> None:
    """A triplet knows its picture by content, a VSR file by name: the name they share joins them."""
    data = encoded(photo(1))
    train = data_set(tmp_path / "data", "train", [triplet(data, "1.jpg")])
    test = write(tmp_path / "test.jsonl", [said("1.jpg", "cat", "near", "dog"), said("2.jpg", "cat", "near", "dog")])
    found = audit(train, test, resamples=5).figures
    assert found["findings"]["verbatim_rows"]["count"] == 1 and found["clean"]["rows"] == 1
