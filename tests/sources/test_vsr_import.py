"""Whole imports: pictures, splits, protocols, what is set aside, and what can be read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vsr_files import picture, row, turned_picture, write_instances, write_rows

from vsre.errors import VsreError
from vsre.sources.images import load_image
from vsre.sources.vsr import find_splits, import_vsr, read_vsr, summary_table, survey_vsr
from vsre.triplets import image_content_id, read_triplets


def published(folder: Path) -> Path:
    """A folder laid out as published: `shared.jpg` is tested on and, in the random split, trained on."""
    same = row("shared.jpg", "The bear is left of the car.")
    write_rows(folder / "zeroshot/train.jsonl", [row("a.jpg")])
    write_rows(folder / "zeroshot/dev.jsonl", [row("d.jpg")])
    write_rows(folder / "zeroshot/test.jsonl", [same, row("t.jpg", "The bear is left of the cup.", label=0)])
    write_rows(
        folder / "random/train.jsonl",
        [same, row("a.jpg"), row("shared.jpg"), row("c.jpg", "The cat is left of the cup.", label=0)],
    )
    write_rows(folder / "random/dev.jsonl", [row("d.jpg")])
    write_rows(folder / "random/test.jsonl", [row("t.jpg", "The bear is left of the cup.", label=0)])
    return folder


def put_images(folder: Path, names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names.split():
        (folder / name).write_bytes(picture((20, 10), colour=(ord(name[0]), 0, 0)))
    return [folder]


def test_pictures_boxes_and_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    file = write_rows(
        tmp_path / "rows/train.jsonl",
        [row(), row("b.jpg", label=0), row(caption="The dog is left of the cat.")],
    )
    images = put_images(tmp_path / "images", "a.jpg b.jpg")
    instances = [write_instances(tmp_path / "i.json", {"a.jpg": (20, 10, [("cat", 0, 0, 5, 5), ("dog", 5, 5, 10, 5)])})]
    summary = import_vsr(tmp_path / "rows", tmp_path / "out", images=images, instances=instances)
    found = list(read_triplets(tmp_path / "out"))
    assert found == list(read_vsr([file], images, instances, split="train"))
    assert [t.image_name for t in found] == ["a.jpg", "a.jpg", "b.jpg"]
    assert found[0].image == (tmp_path / "images/a.jpg").read_bytes()
    assert found[0].image_id == image_content_id(found[0].image or b"")
    assert summary["splits"]["train"]["both_boxes"] == 2
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary
    assert (tmp_path / "out/set_aside.jsonl").read_text() == ""
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_images_in_two_folders_or_in_the_folder_above_them(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl", [row(), row("b.jpg")])
    folders = put_images(tmp_path / "coco/train2017", "a.jpg") + put_images(tmp_path / "coco/val2017", "b.jpg")
    for given in (folders, [tmp_path / "coco"]):
        assert len(list(read_vsr([file], given, split="x"))) == 2


def test_unusable_pictures_are_set_aside_with_their_rows(tmp_path: Path) -> None:
    names = ["good.jpg", "missing.jpg", "empty.jpg", "text.jpg", "cut.jpg", "large.png"]
    write_rows(
        tmp_path / "rows/test.jsonl",
        [row(name) for name in names] + [row("large.png", "The cat is left of the bed.")],
    )
    images = put_images(tmp_path / "images", "good.jpg")
    (images[0] / "empty.jpg").touch()
    (images[0] / "text.jpg").write_text("not a picture")
    (images[0] / "cut.jpg").write_bytes(picture((64, 64))[:400])
    Image.new("1", (10_000, 10_000)).save(images[0] / "large.png")
    summary = import_vsr(tmp_path / "rows", tmp_path / "out", images=images)
    assert summary["splits"]["test"]["set_aside"] == {
        "image missing": 1,
        "image broken": 3,
        "image too large": 2,
    }
    assert summary["splits"]["test"]["rows"] == 7
    assert summary["set_aside"]["rows"] == 6
    assert summary["splits"]["test"]["triplets"] == 1
    lines = [json.loads(line) for line in (tmp_path / "out/set_aside.jsonl").read_text().splitlines()]
    assert {(line["row"], line["reason"]) for line in lines} == {
        (2, "image missing"),
        (3, "image broken"),
        (4, "image broken"),
        (5, "image broken"),
        (6, "image too large"),
        (7, "image too large"),
    }
    assert "empty.jpg" in lines[1]["detail"]


def test_an_exif_turned_photo_is_stored_upright(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl", [row()])
    images = put_images(tmp_path / "images", "")
    (images[0] / "a.jpg").write_bytes(turned_picture(6))
    (found,) = read_vsr([file], images, split="x")
    assert (found.width, found.height) == (60, 40)
    assert found.image is not None
    assert found.image_id == image_content_id(found.image)
    with Image.open(images[0] / "a.jpg") as before:
        assert before.size == (40, 60)
    red, green, _ = load_image(found.image).getpixel((2, 2))  # type: ignore[misc]
    assert (red > 240, green < 15) == (True, True)


def test_one_picture_under_two_names_counts_once(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl", [row(), row("b.jpg"), row("b.jpg", "The cat is left of the bed.")])
    images = put_images(tmp_path / "images", "a.jpg")
    (images[0] / "b.jpg").write_bytes((images[0] / "a.jpg").read_bytes())
    found = list(read_vsr([file], images, split="x"))
    assert len(found) == len({t.key for t in found}) == 2


def test_one_picture_under_two_names_contradicts_itself(tmp_path: Path) -> None:
    rows = [row(), row("b.jpg", label=0), row("b.jpg", "The cat is left of the bed."), row("b.jpg", label=0)]
    write_rows(tmp_path / "rows/test.jsonl", rows)
    images = put_images(tmp_path / "images", "a.jpg")
    (images[0] / "b.jpg").write_bytes((images[0] / "a.jpg").read_bytes())
    summary = import_vsr(tmp_path / "rows", tmp_path / "out", images=images)
    entry = summary["splits"]["test"]
    assert (entry["rows"], entry["triplets"], entry["duplicates"]) == (4, 2, 0)
    lines = [json.loads(line) for line in (tmp_path / "out/set_aside.jsonl").read_text().splitlines()]
    assert {(line["row"], line["reason"], line["detail"]) for line in lines} == {
        (n, "label contradicts an earlier row", "the first is rows/test.jsonl:1") for n in (2, 4)
    }


@pytest.mark.parametrize(
    ("protocol", "train"),
    [
        ("paper", ["a.jpg", "shared.jpg", "shared.jpg", "c.jpg"]),
        ("clean", ["a.jpg", "c.jpg"]),
        ("clean-concepts", ["a.jpg"]),
    ],
)
def test_turn_s_under_each_protocol(protocol: str, train: list[str], tmp_path: Path) -> None:
    folder = published(tmp_path / "vsr")
    summary = import_vsr(folder, tmp_path / "out", images=None, split="turn-s", protocol=protocol)
    assert [t.image_name for t in read_triplets(tmp_path / "out/train")] == train
    assert len(list(read_triplets(tmp_path / "out/test"))) == 2
    entry = summary["splits"]["train"]
    assert (entry["rows"], entry["duplicates"]) == (5, 1)
    assert entry["triplets"] + sum(entry["removed"].values()) + entry["duplicates"] == entry["rows"]
    assert summary["overlap"]["test"]["rows_in_train"] == (1 if protocol == "paper" else 0)
    assert ("contaminated" in summary["protocol"]["note"]) == (protocol == "paper")


def test_rows_are_held_out_whether_or_not_their_pictures_are_there(tmp_path: Path) -> None:
    folder = published(tmp_path / "vsr")
    images = put_images(tmp_path / "images", "a.jpg shared.jpg c.jpg d.jpg")
    summary = import_vsr(folder, tmp_path / "out", images=images, split="turn-s", protocol="clean-concepts")
    assert summary["splits"]["test"]["set_aside"] == {"image missing": 1}
    # The cup is a test concept by a row whose picture is missing.
    assert [t.image_name for t in read_triplets(tmp_path / "out/train")] == ["a.jpg"]
    assert summary["overlap"]["test"] == {"rows": 2, "rows_in_train": 0, "images": 2, "images_in_train": 0}


def test_survey_counts_what_is_published(tmp_path: Path) -> None:
    survey = survey_vsr(published(tmp_path))
    assert survey["unique"] == 6
    assert survey["protocols"] == {"paper": 4, "clean": 2, "clean-concepts": 1}
    assert survey["overlap"] == {"rows": 2, "rows_in_train": 1, "images": 2, "images_in_train": 1}
    header, rows = summary_table(survey)
    assert dict(zip(header, rows[-1], strict=True)) == {
        "split": "turn-s train",
        "rows": "5",
        "duplicates": "1",
        "set aside": "0",
        "removed": "0",
        "triplets": "4",
        "images": "3",
        "true": "75.0%",
        "both boxes": "0",
    }


def test_survey_counts_a_contradiction_once(tmp_path: Path) -> None:
    folder = published(tmp_path)
    write_rows(folder / "zeroshot/dev.jsonl", [row("d.jpg"), row("d.jpg", label=0), "no row"])
    entry = survey_vsr(folder)["splits"]["zero-shot dev"]
    assert (entry["rows"], entry["triplets"]) == (3, 1)
    assert entry["set_aside"] == {"label contradicts an earlier row": 1, "not valid JSON": 1}


def test_written_again_the_same_files_come_out(tmp_path: Path) -> None:
    folder = published(tmp_path / "vsr")
    for _ in range(2):
        summary = import_vsr(folder, tmp_path / "out", images=None, split="zero-shot")
    assert summary["splits"].keys() == {"train", "dev", "test"}
    assert len(list(read_triplets(tmp_path / "out"))) == 4


def test_progress_is_told_image_by_image(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    write_rows(tmp_path / "rows/test.jsonl", [row(), row("b.jpg"), row("none.jpg")])
    images = put_images(tmp_path / "images", "a.jpg b.jpg")
    import_vsr(tmp_path / "rows", tmp_path / "out", images=images, progress=lambda *call: calls.append(call))
    assert calls == [("test", 1, 3), ("test", 2, 3), ("test", 3, 3)]


def wrong(tmp_path: Path, **options: Any) -> str:
    with pytest.raises(VsreError) as error:
        import_vsr(**{"annotations": tmp_path, "out": tmp_path / "out", "images": None, **options})
    assert not (tmp_path / "out/summary.json").exists()
    return str(error.value)


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    assert "no .jsonl files here" in wrong(tmp_path)
    assert "no such annotation file" in wrong(tmp_path, annotations=tmp_path / "nowhere")
    assert "no folder given" in wrong(tmp_path, annotations=[])
    assert "There are: random, zero-shot, turn-s" in wrong(tmp_path, split="turn")
    assert "random/train.jsonl" in wrong(tmp_path, split="turn-s")
    assert "There are: paper, clean, clean-concepts" in wrong(tmp_path, protocol="dirty")
    published(tmp_path)
    assert "Choose a split" in wrong(tmp_path)
    assert "no such image folder" in wrong(tmp_path, split="turn-s", images=[tmp_path / "none"])
    assert "no such instance annotation" in wrong(tmp_path, split="turn-s", instances=[tmp_path / "none.json"])
    message = wrong(tmp_path, split="turn-s", images=put_images(tmp_path / "empty", ""))
    assert "none of the 8 rows can be used" in message
    assert "8 x image missing" in message


def test_splits_of_another_import_are_not_mixed_in(tmp_path: Path) -> None:
    folder = published(tmp_path / "vsr")
    import_vsr(folder, tmp_path / "out", images=None, split="turn-s")
    write_rows(tmp_path / "mine/extra.jsonl", [row()])
    with pytest.raises(VsreError, match="other splits"):
        import_vsr(tmp_path / "mine", tmp_path / "out", images=None)


def test_splits_are_the_files_of_a_folder_unless_named(tmp_path: Path) -> None:
    train, test = (write_rows(tmp_path / f"{name}.jsonl", [row()]) for name in ("train", "test"))
    assert find_splits(tmp_path) == {"test": [test], "train": [train]}
    assert find_splits([train]) == {"train": [train]}
    assert find_splits({"test": [train]}) == {"test": [train]}
