"""Boxes: found by class, in the frame of the upright picture, from COCO files of any size."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from vsr_files import picture, row, turned_picture, write_instances, write_rows

from vsre.errors import VsreError
from vsre.sources.vsr import ReadCounts, read_vsr
from vsre.sources.vsr.jsonstream import stream_arrays
from vsre.sources.vsr.objects import read_objects
from vsre.triplets import Triplet

CAT, DOG = ("cat", 0, 0, 10, 10), ("dog", 50, 20, 25, 30)


def read(folder: Path, objects: list[tuple[Any, ...]], size: tuple[int, int] = (100, 50)) -> tuple[Triplet, ReadCounts]:
    """The one triplet "cat left of dog" of an image with these objects, without pictures."""
    instances = write_instances(folder / "instances.json", {"a.jpg": (*size, objects)})
    counts = ReadCounts()
    (found,) = read_vsr([write_rows(folder / "x.jsonl", [row()])], None, [instances], split="x", counts=counts)
    return found, counts


def test_pixels_become_fractions(tmp_path: Path) -> None:
    found, counts = read(tmp_path, [CAT, DOG, ("bed", 1, 1, 5, 5)])
    assert found.subject_box == pytest.approx((0, 0, 0.1, 0.2))
    assert found.object_box == pytest.approx((0.5, 0.4, 0.75, 1.0))
    assert (found.width, found.height) == (100, 50)
    assert counts.boxes == {"known": 2}


def test_of_two_boxes_of_a_class_none_is_taken(tmp_path: Path) -> None:
    found, counts = read(tmp_path, [CAT, DOG, DOG])
    assert found.subject_box is not None
    assert found.object_box is None
    assert counts.boxes["ambiguous: several boxes of this class"] == 1


def test_a_crowd_region_is_no_object(tmp_path: Path) -> None:
    found, _ = read(tmp_path, [CAT, DOG, (*DOG, 1)])
    assert found.object_box is not None


def test_no_annotation_is_not_fatal(tmp_path: Path) -> None:
    found, counts = read(tmp_path, [CAT])
    assert found.object_box is None
    assert counts.boxes == {"known": 1, "no box of this class": 1}


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-10, -10, 30, 30), (0, 0, 0.2, 0.4)),
        ((90, 40, 500, 500), (0.9, 0.8, 1, 1)),
        ((200, 10, 10, 10), None),
        ((-20, 0, 10, 10), None),
        ((10, 10, 0, 10), None),
        ((10, 10, -5, 10), None),
        (("x", 0, 1, 1), None),
        ((0, 0, 10), None),
    ],
)
def test_a_box_outside_is_cut_to_the_image_or_dropped(box: tuple[Any, ...], expected: Any, tmp_path: Path) -> None:
    path = write_instances(tmp_path / "i.json", {"a.jpg": (100, 50, [("cat", *box)] if len(box) == 4 else [CAT])})
    if len(box) != 4:
        path.write_text(path.read_text().replace("[0, 0, 10, 10]", json.dumps(box)))
    found, why = read_objects([path], {"a.jpg"})["a.jpg"].only_box("cat")
    assert found == (pytest.approx(expected) if expected else None)
    assert why == ("known" if expected else "box outside the image")


# Without swapped sides (1 to 4) nothing tells the two frames apart: boxes are then taken as upright.
@pytest.mark.parametrize(
    ("turned", "on_stored"), [*((n, False) for n in range(1, 9)), *((n, True) for n in range(5, 9))]
)
def test_boxes_follow_an_exif_turned_photo(turned: int, on_stored: bool, tmp_path: Path) -> None:
    """Annotated on the upright picture the boxes stay; annotated on the stored one they turn with it."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(turned_picture(turned))
    if on_stored:
        x, y = {5: (0, 0), 6: (0, 30), 7: (20, 30), 8: (20, 0)}[turned]
        entry = (40, 60, [("cat", x, y, 20, 30)])
    else:
        entry = (60, 40, [("cat", 0, 0, 30, 20)])
    instances = write_instances(tmp_path / "i.json", {"a.jpg": entry})
    rows = write_rows(tmp_path / "x.jsonl", [row()])
    counts = ReadCounts()
    (found,) = read_vsr([rows], [tmp_path / "images"], [instances], split="x", counts=counts)
    assert (found.width, found.height) == (60, 40)
    assert found.subject_box == pytest.approx((0, 0, 0.5, 0.5))
    assert counts.turned_upright == (turned != 1)
    assert found.provenance.get("exif_orientation", 1) == turned


def test_a_smaller_copy_of_the_photo_keeps_its_boxes_and_another_shape_does_not(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = write_rows(tmp_path / "x.jsonl", [row()])
    instances = write_instances(tmp_path / "i.json", {"a.jpg": (640, 427, [("cat", 0, 0, 320, 213.5)])})
    for size, expected in [((320, 213), (0, 0, 0.5, 0.5)), ((320, 320), None)]:
        (tmp_path / "images/a.jpg").write_bytes(picture(size))
        (found,) = read_vsr([rows], [tmp_path / "images"], [instances], split="x")
        assert found.subject_box == (pytest.approx(expected) if expected else None)


def test_box_lines_plain_and_gzipped(tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"image": name, "split": "train2017", "boxes": [["cat", 0, 0.1, 0.2, 1]]}) + "\n" for name in "ab"
    )
    (tmp_path / "boxes.jsonl").write_text(lines)
    (tmp_path / "boxes.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("boxes.jsonl", "boxes.jsonl.gz"):
        found = read_objects([tmp_path / name], {"a"})
        assert {image: value.objects for image, value in found.items()} == {"a": [("cat", (0, 0.1, 0.2, 1))]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"images": [',
        '{"images": []}',
        '{"a": 1}',
        '{"image": 1, "boxes": [["cat", 0]]}',
        "{]",
        "\x1f",
    ],
)
def test_a_file_that_holds_no_annotations_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(VsreError, match=r"wrong\.json"):
        read_objects([tmp_path / "wrong.json"], {"a.jpg", 1})  # type: ignore[arg-type]


def test_a_cut_gzip_and_a_strange_entry_are_named(tmp_path: Path) -> None:
    path = write_instances(tmp_path / "i.json", {"a.jpg": (10, 10, [CAT])})
    (tmp_path / "i.json.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(VsreError, match=r"i\.json\.gz"):
        read_objects([tmp_path / "i.json.gz"], {"a.jpg"})
    path.write_text(path.read_text().replace('"file_name"', '"file"'))
    with pytest.raises(VsreError, match="`images` is not as in COCO"):
        read_objects([path], {"a.jpg"})


@pytest.mark.parametrize("size", ["1e999", "3000000000", "1" + "0" * 400])
def test_a_size_that_no_image_has_is_named(size: str, tmp_path: Path) -> None:
    path = write_instances(tmp_path / "i.json", {"a.jpg": (10, 10, [CAT])})
    path.write_text(path.read_text().replace('"width": 10', f'"width": {size}'))
    with pytest.raises(VsreError, match=r"i\.json: an entry of `images` is not as in COCO"):
        read_objects([path], {"a.jpg"})
    (tmp_path / "b.jsonl").write_text(f'{{"image": "a.jpg", "boxes": [], "width": {size}}}\n')
    with pytest.raises(VsreError, match=r"b\.jsonl, row 1"):
        read_objects([tmp_path / "b.jsonl"], {"a.jpg"})


def test_a_box_of_numbers_without_end_is_outside(tmp_path: Path) -> None:
    path = write_instances(tmp_path / "i.json", {"a.jpg": (100, 50, [CAT])})
    path.write_text(path.read_text().replace("[0, 0, 10, 10]", f"[0, 0, 1{'0' * 400}, 10]"))
    assert read_objects([path], {"a.jpg"})["a.jpg"].only_box("cat") == (None, "box outside the image")


def test_arrays_stream_whatever_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "n": 12345,
        "s": 'a "quoted" ]}{[ text',
        "skip": [1, [2], {}],
        "empty": [],
        "t": [{"é": [1.5e3, None]}, -17, "x"],
    }
    for window in (1, 2, 3, 7, 1000):
        monkeypatch.setattr("vsre.sources.vsr.jsonstream._WINDOW", window)
        for text in (json.dumps(data), json.dumps(data, indent=2, ensure_ascii=False)):
            found = list(stream_arrays(io.StringIO(text), "x", ("t", "empty")))
            assert found == [("t", value) for value in data["t"]]


def test_images_listed_last_are_read_too(tmp_path: Path) -> None:
    path = write_instances(tmp_path / "i.json", {"a.jpg": (100, 50, [CAT]), "b.jpg": (10, 10, [DOG])})
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({key: whole[key] for key in ("annotations", "categories", "images")}))
    assert read_objects([path], {"a.jpg"})["a.jpg"].only_box("cat")[0] == pytest.approx((0, 0, 0.1, 0.2))


def test_a_large_file_is_read_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.sources.vsr.jsonstream._WINDOW", 1 << 16)
    path = tmp_path / "large.json"
    entry = json.dumps({"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": "x" * 2000})
    with path.open("w") as file:
        file.write('{"images": [{"id": 1, "file_name": "b.jpg", "width": 9, "height": 9}], "annotations": [')
        file.write(", ".join([entry] * 3_000))
        file.write('], "categories": [{"id": 1, "name": "cat"}]}')
    assert path.stat().st_size > 6_000_000
    tracemalloc.start()
    assert read_objects([path], {"a.jpg"}) == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000
