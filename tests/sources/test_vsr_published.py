"""The published files themselves: every figure that an audit of them gave."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vsre.sources.vsr import ReadCounts, import_vsr, read_vsr, survey_vsr
from vsre.triplets import read_triplets

pytestmark = pytest.mark.skipif(
    not os.environ.get("VSRE_TEST_DATA"),
    reason="set VSRE_TEST_DATA to a folder with vsr/annotations, vsr/mini and boxes",
)
VSR = Path(os.environ.get("VSRE_TEST_DATA", ".")) / "vsr"


def test_the_six_files() -> None:
    survey = survey_vsr(VSR / "annotations")
    assert survey["unique"] == 10_972
    assert {name: entry["rows"] for name, entry in survey["splits"].items()} == {
        "random train": 7680,
        "random dev": 1097,
        "random test": 2195,
        "zero-shot train": 3489,
        "zero-shot dev": 340,
        "zero-shot test": 1222,
        "turn-s train": 11_169,
    }
    assert not any(entry["set_aside"] for entry in survey["splits"].values())
    assert survey["splits"]["turn-s train"]["triplets"] == 8751
    assert survey["splits"]["turn-s train"]["images"] == 5417
    assert survey["overlap"] == {"rows": 1222, "rows_in_train": 830, "images": 715, "images_in_train": 570}
    assert survey["protocols"] == {"paper": 8751, "clean": 7742, "clean-concepts": 5139}


def test_reading_all_six_is_quick() -> None:
    start = time.process_time()
    n = sum(1 for file in sorted(VSR.glob("annotations/*/*.jsonl")) for _ in read_vsr([file], split="x"))
    assert n == 16_023
    assert time.process_time() - start < 5, "0.7 s on an idle core when written; this leaves room for busy ones"


def test_every_row_has_both_boxes() -> None:
    counts = ReadCounts()
    files = sorted(VSR.glob("annotations/random/*.jsonl"))
    found = list(read_vsr(files, None, [VSR / "boxes.jsonl.gz"], split="x", counts=counts))
    assert len(found) == 10_972
    assert counts.boxes == {"known": 2 * 10_972}


def test_the_mini_slice(tmp_path: Path) -> None:
    mini = VSR / "mini"
    files = {"test": [mini / "triplets.jsonl"]}
    summary = import_vsr(files, tmp_path, images=[mini / "images"], instances=[mini / "instances.json"])
    found = list(read_triplets(tmp_path / "test"))
    assert len(found) == summary["splits"]["test"]["triplets"] == 25
    assert len({t.image_id for t in found}) == summary["splits"]["test"]["images"] == 19
    assert len({t.image_id for t in found if t.subject_box and t.object_box}) == 15
    assert summary["splits"]["test"]["boxes"] == {"known": 42, "image without annotation": 8}
    assert found == list(read_vsr(files["test"], [mini / "images"], [mini / "instances.json"], split="test"))


def test_both_box_formats_agree() -> None:
    mini = VSR / "mini"
    first, second = (
        {t.key: t for t in read_vsr([mini / "triplets.jsonl"], [mini / "images"], [file], split="x")}
        for file in (mini / "instances.json", VSR / "boxes.jsonl.gz")
    )
    both = [key for key, t in first.items() if t.subject_box is not None]
    assert len(both) == 21
    for key in both:
        assert first[key].subject_box == pytest.approx(second[key].subject_box, abs=2e-5)
        assert first[key].object_box == pytest.approx(second[key].object_box, abs=2e-5)
