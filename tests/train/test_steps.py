"""A step's result depends neither on how it is cut into passes nor on how many processes share it."""

from __future__ import annotations

import io
import subprocess
import sys
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


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    model, source = tiny_llava(tmp_path), write_world(tmp_path / "world")
    alone = train(model, source, tmp_path / "one", 2)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    here = Path(__file__)
    path = f"{here.parent}:{here.parent.parent}"
    done = subprocess.run(
        [*launch, str(here), str(model), str(tmp_path / "world"), str(tmp_path / "two")],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_training(model, alone, tmp_path / "two" / "01-tune" / "model")


if __name__ == "__main__":
    folder, world, target = map(Path, sys.argv[1:4])
    train(folder, {"triplets": world / "triplets", "questions": world / "questions"}, target, 2)
    assert torch.distributed.get_world_size() == 2
    torch.distributed.destroy_process_group()
