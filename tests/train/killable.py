"""A training that kills itself with SIGKILL at a chosen moment; run in a process of its own."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from train_world import load

from vsre.train import carry, checkpoints, run_stages, store, trainer
from vsre.train.features import FeatureCache
from vsre.train.trainer import VsreTrainer

MOMENTS: dict[str, tuple[Any, str, int, str]] = {
    "while the data is being prepared": (store, "_copy_images", 1, ""),
    "while features are written": (FeatureCache, "write", 1, ""),
    "in the first step": (VsreTrainer, "training_step", 1, ""),
    "in the middle of accumulation": (VsreTrainer, "training_step", 12, ""),
    "in a checkpoint, before the weights": (trainer, "save_trained", 1, ""),
    "in a checkpoint, after the weights": (VsreTrainer, "_save_optimizer_and_scheduler", 1, ""),
    "in a checkpoint, before the random numbers": (VsreTrainer, "_save_rng_state", 1, ""),
    "in a checkpoint, while it is forced to the disk": (checkpoints, "_sync", 2, "01-align/checkpoint-3"),
    "in a checkpoint, before its marker": (checkpoints, "write_json", 1, "complete.json"),
    "while an old checkpoint is removed": (checkpoints.shutil, "rmtree", 1, "checkpoint-3"),
    "between the last checkpoint and the final weights": (carry, "save_model", 1, ""),
    "while the final weights are written": (checkpoints, "_sync", 2, "model.part"),
    "before the first stage is marked done": (carry, "write_json", 1, "done.json"),
    "in the second stage's first step": (VsreTrainer, "training_step", 1, "02-tune"),
    "in the second stage": (VsreTrainer, "training_step", 4, "02-tune"),
    "in a checkpoint of the second stage, after the weights": (
        VsreTrainer,
        "_save_optimizer_and_scheduler",
        1,
        "02-tune",
    ),
    "in a checkpoint of the second stage, before its marker": (
        checkpoints,
        "write_json",
        1,
        "02-tune/checkpoint-6/complete",
    ),
    "in the second stage's last step": (VsreTrainer, "training_step", 7, "02-tune"),
    "while the second stage's weights are written": (checkpoints, "_sync", 1, "02-tune/model.part"),
    "before the second stage is marked done": (carry, "write_json", 1, "02-tune"),
}
"""Gone at the n-th call of a function whose arguments mention a word."""


def stages(source: dict[str, Path], lora: bool) -> list[dict[str, Any]]:
    """Both stages; the second with Muon, or with LoRA, its dropout, and bf16, which the first does without."""
    common = {"data": [source], "questions_per_image": 4, "save_every": 3}
    align = {"batch_images": 4, "micro_batch_images": 2, "epochs": 2}
    tune = {"batch_images": 3, "max_steps": 7, "lr": 1e-3}
    low_rank = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}, "bf16": True}
    tune |= low_rank if lora else {"optimizer": "muon"}
    return [
        {"name": "align", "train": ["adapters"], **align, **common},
        {"name": "tune", "train": ["adapters", "llm"], **tune, **common},
    ]


def train(
    model_folder: Path, source: dict[str, Path], out: Path, lora: bool = False, moment: str | None = None
) -> None:
    """Run both stages of a model with dropout on one thread, to the end or to the moment."""
    torch.set_num_threads(1)
    gc.freeze()
    os.fsync = lambda _: None  # type: ignore[assignment]  # a kill loses nothing that was written
    model, processor = load(model_folder)
    for module in model.modules():
        if hasattr(module, "attention_dropout") and "Llama" in type(module).__name__:
            module.attention_dropout = 0.2
    if moment:
        _die_at(*MOMENTS[moment])
    run_stages(model, processor, stages(source, lora), out, seed=5, console=Console(file=io.StringIO()))


def _die_at(owner: Any, name: str, call: int, word: str) -> None:
    original, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        about = args[0].args.output_dir if isinstance(args[0], VsreTrainer) else str(args)
        calls[0] += word in about
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    folder, world, target = map(Path, sys.argv[1:4])
    print("begin", flush=True)
    train(folder, {"triplets": world / "triplets", "questions": world / "questions"}, target, sys.argv[4:] == ["lora"])
