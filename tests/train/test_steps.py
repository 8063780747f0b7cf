"""A step's result does not depend on how it is cut into passes; test_processes.py has processes that share it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from train_world import load, write_world

from tiny_models import tiny_llava
from vsre.train import run_stages

STEPS, PACKS = 3, 4


def train(model: Path, source: dict[str, Path], out: Path, micro: int) -> Path:
    """Three steps of four packs whose token counts differ, `micro` packs a pass; the folder of the weights."""
    stage: dict[str, Any] = {
        "name": "tune",
        "train": ["adapters", "llm"],
        "data": [source],
        "batch_images": PACKS,
        "micro_batch_images": micro,
        "questions_per_image": 4,
        "max_steps": STEPS,
        "save_every": STEPS,
        "lr": 1e-3,
        "max_grad_norm": 1e9,
    }
    loaded, processor = load(model)
    return Path(run_stages(loaded, processor, [stage], out, seed=1, console=Console(file=io.StringIO()))["model"])


def assert_same_training(start: Path, one: Path, other: Path) -> None:
    """The two changed the weights alike: the difference is small beside the change."""
    first, a, b = ({n: p.detach() for n, p in load(f)[0].named_parameters()} for f in (start, one, other))
    moved = torch.sqrt(sum(((a[n] - first[n]) ** 2).sum() for n in first))
    apart = torch.sqrt(sum(((a[n] - b[n]) ** 2).sum() for n in first))
    assert moved > 0.01
    assert apart < 1e-3 * moved, float(apart / moved)


def test_four_packs_at_once_train_like_four_passes_of_one(tmp_path: Path) -> None:
    model, source = tiny_llava(tmp_path), write_world(tmp_path / "world")
    at_once, one_by_one = (train(model, source, tmp_path / f"run-{m}", m) for m in (4, 1))
    assert_same_training(model, at_once, one_by_one)
