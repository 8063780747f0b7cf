"""Exports, and what comes back from them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_painter import QuickPainter, picture, said, write_source

from vsre.errors import VsreError
from vsre.repaint import export as exporting
from vsre.repaint import imports, repaint
from vsre.repaint.export import export
from vsre.repaint.imports import import_export
from vsre.triplets import Triplet, image_content_id, read_triplets, write_triplets

FORMATS = ("webdataset", "parquet")


@pytest.fixture(scope="module")
def out(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real scenes, with several captions a picture."""
    folder = tmp_path_factory.mktemp("export") / "out"
    repaint(small_world / "triplets" / "train", folder, scenes=small_world / "scenes.jsonl", limit=6)
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_comes_back(out: Path, tmp_path: Path, form: str) -> None:
    written = export(out, tmp_path / "dest", form)
    back = import_export(tmp_path / "dest", tmp_path / "back")
    rows = list(read_triplets(out))
    assert list(read_triplets(tmp_path / "back")) == rows
    assert back == {"rows": len(rows), "images": written["pictures"], "set_aside": {}}
    assert written["rows"] == len(rows) and written["pictures"] == len({row.image_id for row in rows}) < len(rows)


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
fractions = st.floats(allow_nan=False, allow_infinity=False)
box = st.none() | st.tuples(fractions, fractions, fractions, fractions)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | fractions | words,
    lambda v: st.lists(v, max_size=2) | st.dictionaries(words, v, max_size=2),
    max_leaves=4,
)


@st.composite
def rows(draw: st.DrawFn) -> list[Triplet]:
    """Triplets of a few pictures, together, whatever is said of them."""
    found: list[Triplet] = []
    for number in range(draw(st.integers(1, 3))):
        image = picture(str(number))
        common: dict[str, Any] = {
            "image_id": image_content_id(image), "image_name": f"{number:016x}.png", "image": image,
            "split": draw(st.sampled_from(("train", "mine"))), "origin": draw(words), "width": 16, "height": 16,
        }  # fmt: skip
        for caption in draw(st.sets(words, min_size=1, max_size=3)):
            provenance = draw(st.dictionaries(words, values, max_size=3))
            changes: dict[str, Any] = {"caption": caption, "label": draw(st.booleans()), "provenance": provenance}
            changes |= {"subject_box": draw(box), "object_box": draw(box), "object": draw(words)}
            found.append(said("x").replace(**common, **changes))
    return found


@settings(deadline=None, max_examples=25)
@given(rows(), st.sampled_from(FORMATS), st.integers(1, 2))
def test_whatever_is_said_comes_back(
    tmp_path_factory: pytest.TempPathFactory, triplets: list[Triplet], form: str, pictures_a_tar: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write_triplets(folder / "out", triplets)
    summary = {"true_share": 0.5, "by_setting": {}, "by_kind": {}, "by_truth": {}, "painter": {"name": "p"},
               "verifier": None, "safety_checker": None, "held_out": {"from": []}, "source_licences": {}}  # fmt: skip
    (folder / "out" / "repaint.json").write_text(json.dumps(summary))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "PICTURES_A_TAR", pictures_a_tar)
        written = export(folder / "out", folder / "dest", form)
    if form == "webdataset":
        assert written["files"] == -(-written["pictures"] // pictures_a_tar)
    import_export(folder / "dest", folder / "back")
    back = list(read_triplets(folder / "back"))
    assert sorted(back, key=lambda t: t.key) == sorted(triplets, key=lambda t: t.key)
    assert {t.key for t in back} == {t.key for t in triplets}


def test_others_load_the_parquet(out: Path, tmp_path: Path) -> None:
    import datasets

    export(out, tmp_path / "dest", "parquet")
    loaded = datasets.load_dataset(str(tmp_path / "dest"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"] and loaded["train"]["key"] == [t.key for t in read_triplets(out)]
    first = next(read_triplets(out))
    assert loaded["train"][0]["image"].size == (first.width, first.height), "a picture, not its bytes"


def test_others_load_the_tars(out: Path, tmp_path: Path) -> None:
    import datasets

    export(out, tmp_path / "dest", "webdataset")
    files = str(tmp_path / "dest" / "*.tar")
    loaded = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    jobs = dict.fromkeys(t.provenance["job"] for t in read_triplets(out))
    assert loaded["__key__"] == list(jobs)
    [said, *_] = loaded[0]["json"]["triplets"]
    assert said["caption"] == next(read_triplets(out)).caption and loaded[0]["jpg"].mode == "RGB"


def test_the_card_says_what_it_is(out: Path, tmp_path: Path) -> None:
    export(out, tmp_path / "dest", "parquet")
    card = (tmp_path / "dest" / "README.md").read_text()
    assert card.startswith("---\n") and "path: data/train-*.parquet" in card
    assert "| painter | `scene-painter/1` |" in card and "none: nobody looked for unsafe pictures" in card
    assert "| held out | test |" in card and "Licences of the source pictures: unknown" in card


def test_the_same_repaint_gives_the_same_tars(out: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(out, tmp_path / name, "webdataset")
    a, b = (sorted((tmp_path / name).iterdir()) for name in ("a", "b"))
    assert [f.read_bytes() for f in a] == [f.read_bytes() for f in b]


def test_an_export_is_whole_or_not_there(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_card", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(out, tmp_path / "dest", "webdataset")
    assert not list(tmp_path.glob("dest*")), "nor is half of it left"
    monkeypatch.undo()
    export(out, tmp_path / "dest", "webdataset")
    with pytest.raises(VsreError, match="exists already"):
        export(out, tmp_path / "dest", "webdataset")
    with pytest.raises(VsreError, match="no finished repaint"):
        export(tmp_path, tmp_path / "more", "webdataset")
    with pytest.raises(VsreError, match="There are: webdataset, parquet"):
        export(out, tmp_path / "more", "csv")


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    """A good export of some pictures, as the files of its one tar."""
    repaint(write_source(tmp_path / "train", 4), tmp_path / "out", painter=QuickPainter)
    export(tmp_path / "out", tmp_path / "dest", "webdataset")
    with tarfile.open(tmp_path / "dest" / "repaint-000000.tar") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_half_written_tar_gives_what_it_has(tmp_path: Path, members: dict[str, bytes], share: float) -> None:
    whole = tar_of(tmp_path / "a.tar", members).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        used = max(member.offset_data + member.size for member in tar)
    (tmp_path / "a.tar").write_bytes(whole[: int(used * share)])
    back = import_export(tmp_path / "a.tar", tmp_path / "back")
    assert back["set_aside"][imports.CUT_SHORT] == 1 and back["images"] < len(members) / 2
    kept = list(read_triplets(tmp_path / "back"))
    assert all(t in list(read_triplets(tmp_path / "out")) for t in kept) and len(kept) == back["rows"]
    lines = [json.loads(line) for line in (tmp_path / "back" / "set_aside.jsonl").read_text().splitlines()]
    assert {"place": "a.tar", "reason": imports.CUT_SHORT} in lines


def test_a_tar_without_anything_is_an_error(tmp_path: Path) -> None:
    for name, data in (("empty.tar", b""), ("noise.tar", b"x" * 5000)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VsreError, match="not one picture"):
            import_export(tmp_path / name, tmp_path / "back")
    with pytest.raises(VsreError, match="no Parquet files"):
        import_export(tmp_path / "nothing", tmp_path / "back")
    with pytest.raises(VsreError, match="where the export is"):
        import_export(tmp_path, tmp_path)


@pytest.mark.parametrize("source", ["in", "in/train", "in/train/part-00000.parquet"])
def test_an_import_leaves_its_source(tmp_path: Path, source: str) -> None:
    train = tmp_path / "in" / "train"
    before = list(read_triplets(write_source(train, 3)))
    with pytest.raises(VsreError, match="this is where the"):
        import_export(tmp_path / source, train)
    assert list(read_triplets(train)) == before


def test_an_import_of_nothing_leaves_what_was_there(tmp_path: Path) -> None:
    before = list(read_triplets(write_source(tmp_path / "back", 3)))
    tar_of(tmp_path / "a.tar", {"1.png": picture("no annotations")})
    with pytest.raises(VsreError, match="not one picture"):
        import_export(tmp_path / "a.tar", tmp_path / "back")
    assert list(read_triplets(tmp_path / "back")) == before


@pytest.mark.parametrize("form", FORMATS)
def test_a_split_never_becomes_a_path(out: Path, tmp_path: Path, form: str) -> None:
    victim = tmp_path / "victim"
    before = list(read_triplets(write_source(victim, 3)))
    write_triplets(tmp_path / "made", [t.replace(split="../../victim/part") for t in read_triplets(out)])
    (tmp_path / "made" / "repaint.json").write_bytes((out / "repaint.json").read_bytes())
    with pytest.raises(VsreError, match="cannot name a file"):
        export(tmp_path / "made", tmp_path / "dest", form)
    assert list(read_triplets(victim)) == before and not (tmp_path / "dest").exists()


def with_pictures(count: int) -> list[Triplet]:
    images = [picture(str(number)) for number in range(count)]
    common: dict[str, Any] = {"width": 16, "height": 16, "subject_box": (0.0, 0.0, 0.5, 1.0)}
    return [
        said(f"{number}.png", image=image, image_id=image_content_id(image), **common)
        for number, image in enumerate(images)
    ]


def test_rows_of_a_split_that_cannot_name_a_file_are_set_aside(tmp_path: Path, members: dict[str, bytes]) -> None:
    rows = with_pictures(4)
    write_triplets(tmp_path / "bad", [rows[0], rows[1].replace(split="../part"), *rows[2:]])
    assert import_export(tmp_path / "bad", tmp_path / "a")["set_aside"] == {imports.BAD_SPLIT: 1}
    assert list(read_triplets(tmp_path / "a")) == [rows[0], *rows[2:]]
    told = {"place": "bad/part-00000.parquet:2", "reason": imports.BAD_SPLIT}
    assert [json.loads(line) for line in (tmp_path / "a" / "set_aside.jsonl").read_text().splitlines()] == [told]
    first = min(name for name in members if name.endswith(".json"))
    tar = tar_of(tmp_path / "bad.tar", members | {first: changed(members[first], split="../part")})
    back = import_export(tar, tmp_path / "b")
    assert back["set_aside"] == {imports.BAD_SPLIT: 1} and back["images"] == len(members) // 2 - 1


def changed(data: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(data) | changes).encode()


def test_bad_samples_are_set_aside_each_for_its_reason(tmp_path: Path, members: dict[str, bytes]) -> None:
    names = sorted({name.split(".")[0] for name in members})
    assert len(names) >= 8
    bad = dict(members)
    bad.pop(f"{names[0]}.png")
    bad.pop(f"{names[1]}.json")
    bad[f"{names[2]}.png"] = picture("another")
    bad[f"{names[3]}.json"] = b"[1"
    bad[f"{names[4]}.json"] = changed(bad[f"{names[4]}.json"], width="wide")
    said = json.loads(bad[f"{names[5]}.json"])["triplets"]
    bad[f"{names[5]}.json"] = changed(bad[f"{names[5]}.json"], triplets=[said[0] | {"key": "0" * 16}])
    noise = b"\x89PNG no picture"
    bad[f"{names[6]}.png"] = noise
    bad[f"{names[6]}.json"] = changed(bad[f"{names[6]}.json"], image_id=image_content_id(noise))
    bad |= {"../../evil.png": b"x", "notes.txt": b"x", "deep/README.md": b"x"}
    back = import_export(tar_of(tmp_path / "bad.tar", bad), tmp_path / "back")
    assert back["set_aside"] == {
        imports.NOT_OURS: 4, imports.NO_ANNOTATIONS: 2, imports.NO_PICTURE: 1, imports.OTHER_PICTURE: 1,
    }  # fmt: skip
    assert back["images"] == len(names) - 7
    assert not list(tmp_path.parent.glob("evil*")), "names never become paths"
