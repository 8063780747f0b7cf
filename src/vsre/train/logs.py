"""The record of a run: one JSON line per step, one loss curve per stage, and a progress bar in a terminal."""

from __future__ import annotations

import difflib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import reduce
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.train.processes import processes

LOG = "log.jsonl"
STEPS_TO_ESTIMATE = 5


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log; the last one is left out if a kill cut it short."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class JsonLog(TrainerCallback):
    """Appends one line per step to STAGE/log.jsonl: stage, step, epoch, loss, lr, grad_norm, tokens_per_s,
    questions_per_s, seconds.

    A resumed run first drops the lines after its checkpoint, so the log reads as that of an uninterrupted run.
    """

    def __init__(self, folder: Path, stage: str, meter: Meter) -> None:
        self.path, self.stage, self.meter = folder / LOG, stage, meter

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.meter.start()
        state.save_steps = args.save_steps  # on resuming, transformers has the checkpoint's value
        if state.is_world_process_zero:
            kept = [line for line in read_log(self.path) if line["step"] <= state.global_step]
            write_aside(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        # log.jsonl is the record; without this cut every checkpoint would carry the whole history again.
        del state.log_history[:-1]
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        line = {
            "stage": self.stage,
            "step": state.global_step,
            "epoch": round(logs["epoch"], 6),
            "loss": logs["loss"],
            "lr": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            **{name: logs[name] for name in Meter.FIGURES},
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Meter:
    """Counts tokens and questions between two log lines, over all processes."""

    FIGURES = ("tokens_per_s", "questions_per_s", "seconds")

    def __init__(self) -> None:
        self.tokens = self.questions = 0
        self.since = time.perf_counter()

    def start(self) -> None:
        self.tokens = self.questions = 0
        self.since = time.perf_counter()

    def add(self, tokens: int, questions: int) -> None:
        self.tokens += tokens
        self.questions += questions

    def lap(self) -> dict[str, float]:
        """FIGURES since the last lap. Every process must call it, and each gets the same counts."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        counts = torch.tensor([self.tokens, self.questions], device=processes().device)
        tokens, questions = reduce(counts, reduction="sum").tolist()
        figures = (round(tokens / seconds, 1), round(questions / seconds, 1), round(seconds, 4))
        self.start()
        return dict(zip(self.FIGURES, figures, strict=True))


def check_trackers(names: Sequence[str]) -> None:
    """Raise VsreError for a tracker that transformers does not know or whose package is not installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            near = difflib.get_close_matches(name, INTEGRATION_TO_CALLBACK, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(INTEGRATION_TO_CALLBACK)}."
            raise VsreError(f"report to {name}: no such tracker. {hint}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            raise VsreError(f"report to {name}: {error}") from error


@contextmanager
def trackers(names: Sequence[str], project: str) -> Iterator[None]:
    """To be entered around a training that reports to `names`. W&B files it under `project` unless WANDB_PROJECT is
    set, and its run ends with the training, as transformers ends every other tracker's.
    """
    ours = "wandb" in names and "WANDB_PROJECT" not in os.environ
    if ours:
        os.environ["WANDB_PROJECT"] = project
    try:
        yield
    finally:
        if ours:
            del os.environ["WANDB_PROJECT"]
        if "wandb" in names and (wandb := sys.modules.get("wandb")):
            wandb.finish()


class ConsoleProgress(TrainerCallback):
    """A progress bar with the time left in a terminal; elsewhere one line that says how long it will take."""

    def __init__(self, console: Console, stage: str) -> None:
        self.console, self.stage = console, stage
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, left"),
        )
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began, self.first = time.perf_counter(), state.global_step
        self.task = self.bar.add_task(self.stage, total=state.max_steps, completed=state.global_step)
        if self.console.is_terminal:
            self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done = state.global_step - self.first
        self.bar.update(self.task, completed=state.global_step)
        if done == STEPS_TO_ESTIMATE:
            each = (time.perf_counter() - self.began) / done
            left = each * (state.max_steps - state.global_step)
            self.console.print(f"{self.stage}: {each:.2f} s per step, about {left / 60:.1f} min to go")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.update(self.task, description=f"{self.stage}  loss {logs['loss']:.4f}")

    def close(self) -> None:
        self.bar.stop()


def draw_curve(log: list[dict[str, Any]], path: Path, title: str) -> None:
    """Loss by step, and its running mean, as a PNG."""
    steps = np.array([line["step"] for line in log])
    loss = np.array([line["loss"] for line in log])
    window = max(1, len(loss) // 50)
    smooth = np.convolve(np.pad(loss, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot(title=title, xlabel="step", ylabel="loss per token")
    axes.plot(steps, loss, color="#9db4c0", linewidth=0.8)
    axes.plot(steps, smooth, color="#1f4e79", linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=120, metadata={"Software": None})
