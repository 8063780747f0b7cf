"""Memory and hours of a recipe, reckoned before anything is loaded: what fits, and how much is to be done."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from recipe_fakes import model, recipe

from vsre.recipes import load_recipe
from vsre.recipes.estimate import Machine, StageEstimate, estimate
from vsre.recipes.memory import GB
from vsre.recipes.schema import DataSpec
from vsre.recipes.validate import check
from vsre.recipes.workload import data_counts, question_lengths, source_counts, tokens
from vsre.rewrite.packs import shipped_packs

ROWS = [{"image": f"{i // 2}.jpg", "caption": f"The cat is {r} the dog."} for i, r in enumerate(["on", "under"] * 3)]


def test_one_gpu_is_too_few_for_a_whole_13b_and_lora_is_suggested() -> None:
    shipped = load_recipe("table-1").rows(["23"])
    found = check(shipped, online=False, gpus=1)
    rows = estimate(shipped, found, Machine(gpus=1))
    align, tune = rows
    assert align.fits and not tune.fits
    assert "It would fit with lora: {}, micro_batch_images:" in tune.advice
    assert any(tune.advice in fault for fault in found.faults)


def test_a_batch_that_is_too_large_and_one_that_fits() -> None:
    start = {"llm": "llava-hf/llava-1.5-7b-hf", "encoders": ["clip", "siglip", "dinov2", "sam"]}

    def reckoned(**stage: Any) -> StageEstimate:
        wide = recipe([model(start, bf16=True, batch_images=128, **stage)])
        found = check(wide, online=False, gpus=8)
        (row,) = estimate(wide, found, Machine())
        return row

    row = reckoned()
    assert row.memory.micro_batch == 16 and not row.fits
    micro = int(
        re.findall(r"It would fit with micro_batch_images: (\d+), spread over the GPUs by FSDP\.", row.advice)[0]
    )
    assert reckoned(micro_batch_images=micro).fits
    assert not reckoned(micro_batch_images=2 * micro).fits
    assert "gradient_checkpointing: true" in reckoned(micro_batch_images=8, questions_per_image=400).advice


def test_low_rank_layers_are_not_spread() -> None:
    shipped = recipe([model({"checkpoint": "llava-hf/llava-1.5-7b-hf"}, lora={}, bf16=True)])
    found = check(shipped, online=False, gpus=8)
    (row,) = estimate(shipped, found, Machine(room=10 * GB))
    assert row.sharding == "none" and not row.fits


def test_a_few_triplets_are_a_few_pictures() -> None:
    data = {"turn-g": {"scenes": {"units": 200}, "limit": 4, "pack": "test-s"}}
    few = recipe([model({"checkpoint": "zoo:base"})], data=data)
    rows = estimate(few, check(few, online=False), Machine(gpus=1, gpu="h100"))
    assert rows[0].hours is not None and rows[0].hours > 0


def test_questions_and_pictures_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0]]) + "no row\n")
    source = {"kind": "vsr", "train": [str(file)], "test": [str(file)], "images": [str(tmp_path)]}
    data = {
        "one": {"pack": "test-s"},
        "all": {"pack": "pool"},
        "painted": {"repaint": {"limit": 4, "per_triplet": 5}, "pack": "stage1", "per_triplet": 1},
        "general": {"general": {"pictures": 7, "questions": 3}},
    }
    counted = recipe([model({"checkpoint": "zoo:base"}, data=["one"])], source=source, data=data)
    rows = source_counts(counted)
    assert rows is not None and (rows.pictures, rows.questions) == (3, 6)
    found = {name: data_counts(spec, rows) for name, spec in counted.data.items()}
    assert {k: v and (v.pictures, v.questions) for k, v in found.items()} == {
        "one": (3, 6),
        "all": (3, 300),
        "painted": (60, 60),
        "general": (7, 21),
    }


def test_hours_follow_the_data(tmp_path: Path) -> None:
    """Twice the epochs, twice the hours; with the data out of reach there are none."""
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    source = {"kind": "vsr", "train": [str(file)], "test": [str(file)], "images": [str(tmp_path)]}

    def hours(**stage: Any) -> float | None:
        stage = {"max_steps": None, "bf16": True, "batch_images": 1, **stage}
        chosen = recipe([model({"checkpoint": "llava-hf/llava-1.5-7b-hf"}, **stage)], source=source)
        (row,) = estimate(chosen, check(chosen, online=False), Machine(gpus=1))
        return row.hours

    one, two = hours(epochs=1), hours(epochs=2)
    assert one and two and 1.9 < two / one < 2.1
    assert hours(max_steps=27) == pytest.approx(one), "3 pictures, 100 questions each, 12 a sequence"
    file.unlink()
    assert hours(epochs=1) is None


def test_tokens_of_a_text() -> None:
    assert tokens("The cat is here.") == pytest.approx(4 * 4 / 3 + 1)
    assert tokens("[0.12]") == 3 + 3
    assert all(question_lengths_of(pack) for pack in shipped_packs())


def question_lengths_of(pack: str) -> bool:
    found = question_lengths(DataSpec(pack=pack))
    return 0 < found.learnt < found.mean <= found.longest < 400
