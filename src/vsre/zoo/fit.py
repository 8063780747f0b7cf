"""Pretraining a tiny model: an objective, an endless stream of batches, and the Hugging Face Trainer.

The stream is a function of the sample number alone, so a run that was killed resumes where it stopped and ends with
the same weights.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vsre.errors import VsreError
from vsre.files import write_aside

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class FitConfig:
    """How long and how fast: `batch` samples per step, `lr` at the top of a cosine after `warmup` (share of steps).

    `optimizer` is as in a training stage."""

    steps: int
    batch: int
    lr: float
    warmup: float = 0.05
    weight_decay: float = 0.05
    seed: int = 0
    save_every: int = 500
    optimizer: Literal["adamw", "muon"] = "adamw"


def _claim(work: Path, settings: dict[str, Any]) -> None:
    file = work / "fit.json"
    if not file.is_file():
        work.mkdir(parents=True, exist_ok=True)
        write_aside(file, json.dumps(settings) + "\n")
    elif other := [k for k, v in json.loads(file.read_text(encoding="utf-8")).items() if settings.get(k) != v]:
        raise VsreError(
            f"{work}: begun with other settings ({', '.join(other)}), and training would continue from there. Delete "
            "it, or choose another --work."
        )


class _Numbers(Dataset[int]):
    """The sample numbers 0 ... n-1; the collator makes the samples."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> int:
        return i


class _InOrder(Trainer):
    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class _StopAfter(TrainerCallback):
    """Ends the run at a time limit, with a full checkpoint, so that it can continue later."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if time.monotonic() > self.deadline:
            control.should_save = control.should_training_stop = True


class _AfterStep(TrainerCallback):
    def __init__(self, hook: Callable[[int], None]) -> None:
        self.hook = hook

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.hook(state.global_step)


@dataclass(frozen=True)
class FitResult:
    finished: bool
    steps: int
    loss: float
    hours: float


def _last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that is complete: the Trainer writes trainer_state.json after everything else."""
    whole = [path.parent for path in work.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))) if whole else None


def fit(
    model: torch.nn.Module,
    collate: Callable[[Sequence[int]], Batch],
    config: FitConfig,
    work: Path,
    *,
    after_step: Callable[[int], None] | None = None,
    seconds: float | None = None,
) -> FitResult:
    """Train `model` (its forward returns {"loss": ...}) on collate([i, ...]) for i = 0, 1, 2 ...

    Checkpoints are in `work`; a second call continues from the last one. `seconds` stops early, with a checkpoint.
    Raises VsreError if `work` was begun with other settings; only `steps` and `save_every` may change.
    """
    _claim(work, {k: v for k, v in asdict(config).items() if k not in ("steps", "save_every")})
    args = TrainingArguments(
        output_dir=str(work),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        warmup_steps=int(config.warmup * config.steps),
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        seed=config.seed,
        logging_steps=50,
        save_steps=config.save_every,
        save_total_limit=2,
        report_to=[],
        remove_unused_columns=False,
        dataloader_num_workers=0,
        disable_tqdm=not os.isatty(1),
        use_cpu=not torch.cuda.is_available(),
    )
    callbacks: list[TrainerCallback] = []
    if after_step is not None:
        callbacks.append(_AfterStep(after_step))
    if seconds is not None:
        callbacks.append(_StopAfter(seconds))
    optimizer = None
    if config.optimizer == "muon":
        from vsre.train.optimizer import MuonAdamW  # the training package takes a while to import

        optimizer = MuonAdamW(model, lr=config.lr, weight_decay=config.weight_decay)
    trainer = _InOrder(
        model=model,
        optimizers=(optimizer, None),
        args=args,
        train_dataset=_Numbers(config.steps * config.batch),
        data_collator=collate,
        callbacks=callbacks,
    )
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=_last_checkpoint(work))
    shape = getattr(model, "config", None)
    if shape is not None and hasattr(shape, "use_cache"):
        shape.use_cache = True  # the Trainer turned it off; saved like that, the model would generate without its cache
    state = trainer.state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return FitResult(
        finished=state.global_step >= config.steps,
        steps=state.global_step,
        loss=losses[-1] if losses else float("nan"),
        hours=(time.monotonic() - started) / 3600,
    )
