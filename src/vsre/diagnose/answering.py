"""Asking an engine everything that a folder of samples does not hold yet, so that a kill loses seconds.

Both the questions of a diagnosis and those of its probes go this way: groups of one picture and what is asked about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vsre.diagnose.engines import Engine
from vsre.diagnose.replies import Interrupted, Reply
from vsre.diagnose.samples import Asked, read_samples, to_prompt, to_sample, write_part

Group = tuple[bytes | None, Sequence[Asked]]
"""A picture (None where there is none) and the questions about it."""


@dataclass
class Answering:
    """Where answers go and who is told: `started` gets a function that prints a line, after the first answers."""

    folder: Path
    total: int
    progress: bool = True
    flush_seconds: float = 30.0
    started: Callable[[Callable[[str], None]], None] | None = None
    title: str = ""

    def run(self, engine: Engine, groups: Iterable[Group]) -> tuple[int, float]:
        """Ask what `folder` does not hold yet; returns how many questions that were and the seconds it took.

        Always the same groups stand together, so that a resumed run computes exactly what an undisturbed one does.
        """
        held = read_samples(self.folder, ["key", "pack", "template"])
        done = set(zip(*(held[name].to_pylist() for name in held.column_names), strict=True))
        waiting: list[dict[str, Any]] = []
        asked_now, began = 0, time.monotonic()
        flushed = began
        title = self.title or f"Diagnose {Path(engine.name).name}"
        with _bar(self.total, len(done), title, shown=self.progress) as (advance, say):
            try:
                stream = iter(groups)
                size = min(2, engine.batch_images)  # the first answers come soon, and show whether the model works
                while some := list(islice(stream, size)):
                    size = engine.batch_images
                    batch = [(image, [a for a in asked if a.id not in done]) for image, asked in some]
                    batch = [(image, asked) for image, asked in batch if asked]
                    if not batch:
                        continue
                    stopped: Interrupted | None = None
                    try:
                        replies: Sequence[Sequence[Reply | None]] = engine.answer(
                            [(image, [to_prompt(a) for a in asked]) for image, asked in batch]
                        )
                    except Interrupted as error:
                        replies, stopped = error.replies, error
                    if not asked_now and self.started is not None:
                        self.started(say)
                    fresh = [
                        to_sample(engine.name, a, reply)
                        for (_, asked), row in zip(batch, replies, strict=True)
                        for a, reply in zip(asked, row, strict=True)
                        if reply is not None
                    ]
                    waiting += fresh
                    asked_now += len(fresh)
                    advance(len(fresh))
                    if stopped is not None:
                        raise stopped
                    if time.monotonic() - flushed >= self.flush_seconds:
                        write_part(self.folder, waiting)
                        waiting, flushed = [], time.monotonic()
            finally:
                if waiting:
                    write_part(self.folder, waiting)
        return asked_now, time.monotonic() - began


@contextmanager
def _bar(
    total: int, done: int, title: str, *, shown: bool
) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A progress bar: what advances it, and what prints a line above it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield (
            lambda n: bar.advance(task, n),
            lambda line: bar.console.print(line, markup=False, highlight=False) if shown else None,
        )
