"""The whole job on real VSR rows and photos: read, ask with boxes, train, diagnose, report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from vsre.model import zoo_names
from vsre.recipes import load_recipe, run_recipe
from vsre.triplets import read_triplets

DATA = os.environ.get("VSRE_TEST_DATA")


@pytest.mark.skipif(not DATA, reason="set VSRE_TEST_DATA to a folder with vsr/mini (25 VSR rows, 19 COCO photos)")
@pytest.mark.skipif("base" not in zoo_names(), reason="the shipped models are not built: vsre zoo train all")
def test_the_mini_slice_from_data_to_report(tmp_path: Path) -> None:
    mini = Path(str(DATA)) / "vsr" / "mini"
    rows = [json.loads(line) for line in (mini / "triplets.jsonl").read_text().splitlines()]
    photos = sorted({row["image"] for row in rows})
    held_out = set(photos[-6:])
    for side, chosen in (("train", [r for r in rows if r["image"] not in held_out]), ("test", None)):
        part = chosen if chosen is not None else [r for r in rows if r["image"] in held_out]
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    stage = {"train": ["adapters"], "data": ["boxed"], "lr": 1e-3, "batch_images": 4, "max_steps": 2}
    recipe = {
        "name": "mini",
        "title": "Real photos",
        "source": {
            "kind": "vsr",
            "train": [str(tmp_path / "train.jsonl")],
            "test": [str(tmp_path / "test.jsonl")],
            "images": [str(mini / "images")],
            "instances": [str(mini / "instances.json")],
        },
        "data": {"boxed": {"pack": "diagnosis", "per_triplet": 8}},
        "models": [
            {"name": "base", "role": "base", "start": {"checkpoint": "zoo:base"}},
            {
                "name": "VSRE",
                "role": "expert",
                "start": {"llm": "zoo:base", "encoders": ["zoo:clip", "zoo:sam"]},
                "stages": [stage | {"name": "one"}, stage | {"name": "two", "train": ["adapters", "llm"]}],
            },
        ],
        "diagnose": {"packs": ["test-s", "phase4"]},
    }
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(recipe))
    out = tmp_path / "out"
    result = run_recipe(load_recipe(str(path)), out, console=Console(quiet=True))

    triplets = list(read_triplets(out / "triplets"))
    assert len(triplets) == 25 and len({t.image_id for t in triplets}) == 19
    # Four photos have no annotations; the rest know both boxes.
    assert len({t.image_id for t in triplets if t.subject_box and t.object_box}) == 15
    questions = json.loads((out / "data" / "boxed" / "questions" / "rewrite.json").read_text())
    assert questions["questions"] > 100
    for run in ("base", "vsre"):
        metrics = json.loads((out / "runs" / run / "metrics.json").read_text())
        assert metrics["errors"] == 0
        assert metrics["test_s"]["acc_t"]["n"] == len([t for t in triplets if t.split == "test"])
    page = Path(result["report"]).read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    # A second call finds everything done.
    assert run_recipe(load_recipe(str(path)), out, console=Console(quiet=True))["results"] == result["results"]
