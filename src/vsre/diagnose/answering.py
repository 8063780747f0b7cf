"""Ask an engine everything that a folder of samples does not hold yet, so that a kill loses only seconds.

Used for a diagnosis, its probes and benchmarks. Questions come in groups: a picture and what is asked about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
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
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Interrupted, Reply
from vsre.diagnose.samples import read_samples, write_part
from vsre.errors import VsreError


class Asks(Protocol):
    """One question of a run: `id` identifies it, `sample` makes a row from the reply to its prompt."""

    @property
    def id(self) -> tuple[str, ...]: ...

    def prompt(self) -> Prompt: ...

    def sample(self, model: str, reply: Reply) -> dict[str, Any]: ...


Group = tuple[bytes | Callable[[], bytes] | None, Sequence[Asks]]
"""An encoded picture, or a function that reads it when its turn comes (None for no picture), and its questions."""


@dataclass
class Answering:
    """Where answers go (rows of `schema`, identified by the columns `identity`), and how progress is shown.

    `started` is called after the first answers, with a function that prints a line; `flush` is in seconds.
    """

    folder: Path
    schema: pa.Schema
    identity: Sequence[str]
    total: int
    title: str = ""
    started: Callable[[Callable[[str], None]], None] | None = None
    progress: bool = True
    flush: float = 30.0

    def run(self, engine: Engine, groups: Iterable[Group]) -> tuple[int, float]:
        """Ask what `folder` does not hold yet; returns the number of questions asked and the seconds taken.

        Batches always hold the same groups, so that a resumed run computes exactly what an uninterrupted one does.
        Whatever ends the run, including Interrupted from the engine, the answers so far are written.
        """
        held = read_samples(self.folder, self.identity, self.schema)
        done = set(zip(*(held[name].to_pylist() for name in self.identity), strict=True))
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
                    open_ = [(picture, [a for a in asked if a.id not in done]) for picture, asked in some]
                    batch = [(picture, asked) for picture, asked in open_ if asked]
                    if not batch:
                        continue
                    fresh, stopped = _ask(engine, batch)
                    if fresh and not asked_now and self.started is not None:
                        self.started(say)
                    waiting += fresh
                    asked_now += len(fresh)
                    advance(len(fresh))
                    if stopped is not None:
                        raise stopped
                    if time.monotonic() - flushed >= self.flush:
                        write_part(self.folder, waiting, self.schema)
                        waiting, flushed = [], time.monotonic()
            finally:
                if waiting:
                    write_part(self.folder, waiting, self.schema)
        return asked_now, time.monotonic() - began


def _ask(engine: Engine, batch: Sequence[Group]) -> tuple[list[dict[str, Any]], Interrupted | None]:
    """The rows of a batch's replies, and what stopped the engine; a missing picture costs only its own questions."""
    rows: list[dict[str, Any]] = []
    going: list[tuple[bytes | None, Sequence[Asks]]] = []
    for picture, asked in batch:
        try:
            going.append((picture() if callable(picture) else picture, asked))
        except VsreError as error:
            rows += [a.sample(engine.name, Reply(error=str(error))) for a in asked]
    stopped: Interrupted | None = None
    try:
        replies: Sequence[Sequence[Reply | None]] = engine.answer(
            [(picture, [a.prompt() for a in asked]) for picture, asked in going]
        )
    except Interrupted as error:
        replies, stopped = error.replies, error
    for (_, asked), row in zip(going, replies, strict=True):
        rows += [a.sample(engine.name, reply) for a, reply in zip(asked, row, strict=True) if reply is not None]
    return rows, stopped


@contextmanager
def _bar(
    total: int, done: int, title: str, *, shown: bool
) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A progress bar: a function that advances it, and one that prints a line above it."""
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
