"""Pictures drawn from boxes: what is where, whatever the labels say."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vsr_files import row, write_rows

from vsre.diagnose.box_forest import box_features, box_forest
from vsre.errors import VsreError
from vsre.sources.layouts import draw_layout, write_layouts
from vsre.sources.scenes.backgrounds import background
from vsre.sources.vsr.objects import ImageObjects
from vsre.triplets import read_triplets

CAT, DOG = ("cat", (0.25, 0.5, 0.5, 0.75)), ("dog", (0.5, 0.25, 1.0, 0.75))
CAPTION = "The cat is left of the dog."


def changed(objects: ImageObjects, name: str, size: int = 128) -> np.ndarray:
    """Where the picture differs from the one without objects."""
    bare = draw_layout(ImageObjects(objects.width, objects.height), name, size)
    drawn = draw_layout(objects, name, size)
    return (np.asarray(drawn) != np.asarray(bare)).any(-1)


def bounds(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def write_boxes(path: Path, images: dict[str, list[Any]]) -> Path:
    lines = [json.dumps({"image": n, "boxes": [[c, *b] for c, b in boxes]}) for n, boxes in images.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["cat", "bicycle", "toaster"])  # the last has no sprite
@pytest.mark.parametrize("box", [(0.25, 0.5, 0.5, 0.75), (0.0, 0.0, 1.0, 0.5), (0.9, 0.1, 0.95, 0.9)])
def test_a_thing_fills_its_box(name: str, box: tuple[float, ...]) -> None:
    found = bounds(changed(ImageObjects(objects=[(name, box)]), "a.jpg"))
    wanted = [round(v * 128) for v in box]
    assert all(abs(a - b) <= 2 for a, b in zip(found, wanted, strict=True)), (found, wanted)


def test_the_shape_is_the_images_own() -> None:
    assert draw_layout(ImageObjects(640, 480, [CAT]), "a.jpg", 192).size == (192, 144)
    assert draw_layout(ImageObjects(480, 640, [CAT]), "a.jpg", 192).size == (144, 192)
    assert draw_layout(ImageObjects(0, 0, [CAT]), "a.jpg", 192).size == (192, 192)


def test_the_smaller_is_over_the_larger_in_any_order() -> None:
    small, large = ("toaster", (0.4, 0.4, 0.6, 0.6)), ("sink", (0.1, 0.1, 0.9, 0.9))
    one, other = (draw_layout(ImageObjects(objects=list(o)), "a.jpg") for o in ((small, large), (large, small)))
    assert one.tobytes() == other.tobytes()
    assert one.getpixel((80, 80)) != draw_layout(ImageObjects(objects=[large]), "a.jpg").getpixel((80, 80))


def test_the_name_decides_the_rest() -> None:
    objects = ImageObjects(objects=[CAT, DOG])
    assert draw_layout(objects, "a.jpg").tobytes() == draw_layout(objects, "a.jpg").tobytes()
    assert len({draw_layout(objects, f"{i}.jpg").tobytes() for i in range(20)}) == 20


def test_names_are_on_the_cards() -> None:
    """A class without a sprite can be told from another by what is written on it, down to small boxes."""
    for box in ((0.0, 0.0, 1.0, 1.0), (0.4, 0.4, 0.6, 0.5), (0.5, 0.5, 0.502, 0.502)):
        pictures = [draw_layout(ImageObjects(objects=[(n, box)]), "a.jpg") for n in ("fire hydrant", "parking meter")]
        assert pictures[0].tobytes() != pictures[1].tobytes()


def test_labels_change_no_picture(tmp_path: Path) -> None:
    boxes = write_boxes(tmp_path / "boxes.jsonl", {"a.jpg": [CAT, DOG], "b.jpg": [DOG, CAT]})
    for label in (0, 1):
        rows = [row(image, CAPTION, label=label) for image in ("a.jpg", "b.jpg")]
        write_rows(tmp_path / str(label) / "test.jsonl", rows)
        write_layouts(tmp_path / str(label), tmp_path / f"out{label}", instances=[boxes])
    for name in ("a.jpg", "b.jpg"):
        assert len({(tmp_path / f"out{n}" / "images" / name).read_bytes() for n in (0, 1)}) == 1


def test_triplets_of_layouts(tmp_path: Path) -> None:
    bench = ("bench", (0.0, 0.8, 1.0, 1.0))
    boxes = write_boxes(
        tmp_path / "boxes.jsonl",
        {"a.jpg": [CAT, DOG, bench], "c.jpg": [CAT], "d.jpg": [CAT, ("dog", (0.9, 0.2, 0.9, 0.4))]},
    )
    rows = [row(image, CAPTION) for image in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")]
    write_rows(tmp_path / "vsr" / "test.jsonl", rows)
    pictures = {}
    for which in ("named", "all"):
        out = tmp_path / which
        summary = write_layouts(tmp_path / "vsr", out, instances=[boxes], which=which)
        assert summary["layouts"]["drawn"] == 1
        assert summary["layouts"]["not_drawn"] == {"named class without a box": 2, "image without boxes": 1}
        assert summary["set_aside"] == {"rows": 3, "reasons": {"image missing": 3}}
        (triplet,) = read_triplets(out / "test")
        assert triplet.origin == "layouts" and triplet.caption == CAPTION and triplet.label
        assert triplet.subject_box == CAT[1] and triplet.object_box == DOG[1]
        pictures[which] = np.asarray(Image.open(io.BytesIO(triplet.image or b"")).convert("RGB"), int)
    differ = np.abs(pictures["named"] - pictures["all"]).max(-1) > 40
    assert bounds(differ)[1] >= round(0.8 * 192) - 2  # the bench alone


def test_pictures_of_an_earlier_call_do_not_come_back(tmp_path: Path) -> None:
    """Without boxes this time, and where the reader also looks; files of other names are left alone."""
    write_rows(tmp_path / "vsr" / "test.jsonl", [row(image, CAPTION) for image in ("a.jpg", "b.jpg", "c.jpg")])
    boxes = write_boxes(tmp_path / "boxes.jsonl", {"a.jpg": [CAT, DOG], "b.jpg": [CAT, DOG]})
    out = tmp_path / "out"
    write_layouts(tmp_path / "vsr", out, instances=[boxes], size=64)
    others = out / "images" / "more"
    others.mkdir()
    (others / "c.jpg").write_bytes((out / "images" / "b.jpg").read_bytes())
    (others / "mine.jpg").write_bytes(b"")
    write_boxes(boxes, {"a.jpg": [CAT, DOG], "b.jpg": [CAT]})
    summary = write_layouts(tmp_path / "vsr", out, instances=[boxes])
    assert summary["layouts"]["drawn"] == summary["splits"]["test"]["triplets"] == 1
    assert [(t.image_name, t.width) for t in read_triplets(out / "test")] == [("a.jpg", 192)]
    assert (others / "mine.jpg").exists()


@pytest.mark.parametrize("size", [-1, 0, 31, 2049])
def test_a_size_that_is_not_drawn(tmp_path: Path, size: int) -> None:
    with pytest.raises(VsreError, match=f"size {size}: .* 32 to 2048"):
        write_layouts(tmp_path / "vsr", tmp_path / "out", instances=[], size=size)


def test_no_picture_at_all(tmp_path: Path) -> None:
    write_rows(tmp_path / "vsr" / "test.jsonl", [row("a.jpg", CAPTION)])
    boxes = write_boxes(tmp_path / "boxes.jsonl", {"b.jpg": [CAT, DOG]})
    with pytest.raises(VsreError, match="no picture can be drawn"):
        write_layouts(tmp_path / "vsr", tmp_path / "out", instances=[boxes])


def test_backgrounds_alone_without_objects() -> None:
    picture = draw_layout(ImageObjects(), "a.jpg", 64)
    kinds = [np.asarray(picture), np.asarray(draw_layout(ImageObjects(), "a.jpg", 64))]
    assert (kinds[0] == kinds[1]).all() and kinds[0].shape == background("meadow", 0, 64).shape


def test_a_forest_learns_what_boxes_tell(tmp_path: Path) -> None:
    """Left of is in the boxes; behind, said of the same boxes with labels at random, is not."""
    rng = np.random.default_rng(0)
    images: dict[str, list[Any]] = {}
    rows: dict[str, list[Any]] = {"train": [], "test": []}
    for i in range(400):
        x = rng.uniform(0, 0.7, 2)
        images[f"{i}.jpg"] = [(n, (v, 0.4, v + 0.3, 0.7)) for n, v in zip(("cat", "dog"), x.tolist(), strict=True)]
        side = "train" if i < 300 else "test"
        rows[side].append(row(f"{i}.jpg", CAPTION, label=int(x[0] < x[1])))
        behind = row(f"{i}.jpg", "The cat is behind the dog.", relation="behind", label=int(rng.integers(2)))
        rows[side].append(behind)
    for side, some in rows.items():
        write_rows(tmp_path / "vsr" / f"{side}.jsonl", some)
    boxes = write_boxes(tmp_path / "boxes.jsonl", images)
    out = tmp_path / "out"
    write_layouts(tmp_path / "vsr", out, instances=[boxes], size=32)
    found = box_forest(out / "train", out / "test")
    assert found["n"] == 200 and found["n_train"] == 600
    assert 0.65 < found["value"] < 0.85 and found["low"] < found["value"] < found["high"]


def test_box_features_are_finite_and_tell_sides_apart() -> None:
    one, other = (0.0, 0.0, 0.2, 0.2), (0.7, 0.1, 1.0, 0.9)
    features = box_features([(one, other, "left of"), (other, one, "left of"), (one, one, "a relation of nobody")])
    assert features.shape[0] == 3 and np.isfinite(features).all()
    assert not (features[0] == features[1]).all()


@pytest.mark.skipif(not os.environ.get("VSRE_TEST_DATA"), reason="set VSRE_TEST_DATA to a folder with vsr/annotations")
def test_the_zero_shot_test_of_vsr(tmp_path: Path) -> None:
    vsr = Path(os.environ["VSRE_TEST_DATA"]) / "vsr"
    files = {"test": [vsr / "annotations" / "zeroshot" / "test.jsonl"]}
    summary = write_layouts(files, tmp_path, instances=[vsr / "boxes.jsonl.gz"], size=64)
    assert summary["layouts"]["drawn"] == 715 and not summary["layouts"]["not_drawn"]
    assert summary["splits"]["test"]["triplets"] == 1222 and summary["set_aside"]["rows"] == 0
    assert summary["layouts"]["classes_without_sprite"]
