"""Packing is proved on the model at hand before a stage begins."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from train_world import load, write_world

from tiny_models import tiny_llava, tiny_vsre, tiny_window_config
from vsre.errors import VsreError
from vsre.train import run_stages
from vsre.train.attention import BranchAttention


def train(model: Path, source: dict[str, Path], out: Path, **changes: Any) -> dict[str, Any]:
    stage: dict[str, Any] = {
        "name": "tune", "train": ["adapters", "llm"], "data": [source], "batch_images": 4, "questions_per_image": 4,
        "max_steps": 2, "lr": 1e-3,
    }  # fmt: skip
    loaded, processor = load(model)
    run_stages(loaded, processor, [stage | changes], out, seed=0, console=Console(file=io.StringIO()))
    return json.loads((out / "01-tune" / "done.json").read_text())


@pytest.mark.parametrize("make", [tiny_llava, tiny_vsre])
def test_the_difference_is_measured_and_kept(make: Any, tmp_path: Path) -> None:
    done = train(make(tmp_path), write_world(tmp_path / "world"), tmp_path / "out")
    assert 0 <= done["packing_difference"] < 1e-5


def test_windows_that_questions_cross_are_refused(tmp_path: Path) -> None:
    """Attention to a window takes no mask of ours: packed it would see all, alone and later on it would not."""
    source = write_world(tmp_path / "world")
    narrow = tiny_llava(tmp_path / "narrow", tiny_window_config(40))
    with pytest.raises(VsreError, match="questions_per_image: 1"):
        train(narrow, source, tmp_path / "packed")
    assert train(narrow, source, tmp_path / "alone", questions_per_image=1)["packing_difference"] is None
    wide = tiny_llava(tmp_path / "wide", tiny_window_config(512))
    assert train(wide, source, tmp_path / "wide-out")["packing_difference"] < 1e-5


def test_attention_that_is_never_asked_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if transformers found its attention elsewhere: the layout would be taken, and nothing done with it."""
    inputs = BranchAttention.inputs
    monkeypatch.setattr(BranchAttention, "inputs", lambda self, branch: inputs(self, branch) and {})
    with pytest.raises(VsreError, match=r"not told|does not keep packed questions apart"):
        train(tiny_llava(tmp_path), write_world(tmp_path / "world"), tmp_path / "out")


@pytest.mark.parametrize("wordings", [1, 2])
def test_images_with_one_question_train_too(wordings: int, tmp_path: Path) -> None:
    """Of every image one question is left over; passes that hold nothing but such packs need no layout."""
    source = write_world(tmp_path / "world", wordings=wordings)
    done = train(
        tiny_llava(tmp_path), source, tmp_path / "out", micro_batch_images=1, questions_per_image=3, max_steps=6
    )
    assert done["last_loss"] < done["first_loss"]
