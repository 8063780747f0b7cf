"""Painting the shards of a plan: in one process, several, or on several machines, with the same shards and the same
ledger.

Who paints a shard changes nothing in it. What is left to do is the plan minus the shards that are done, so any number
of processes may start, be killed and start again, each for all shards or for a part of them.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.orphans import end_with_parent
from vsre.repaint.diffusion import DiffusionPainter
from vsre.repaint.judge import Judge, paint_allowed
from vsre.repaint.painter import Painter, Vocabulary
from vsre.repaint.plan_files import Plan
from vsre.repaint.shards import ShardWriter, claimed, is_done
from vsre.repaint.source import SourceRows

_DEATHS = 3
"""Give up after this many deaths of workers in a row, without a shard being done."""


@dataclass(frozen=True)
class ShardDone:
    """The outcome of a shard: how many jobs of each status, in how many seconds; no jobs if it was done already."""

    number: int
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass
class ShardPainter:
    """Paints shards of a plan. It is pickled to worker processes, which load the models themselves."""

    plan: Plan
    painter: Painter
    judge: Judge
    triplets: Path

    def __post_init__(self) -> None:
        """Raises VsreError if the painter is not the one that the plan was made with."""
        head = self.plan.head
        for setting in head.settings:
            ours = json.loads(json.dumps(self.painter.parameters_for(setting)))
            if self.painter.name != head.painter or ours != head.parameters[setting]:
                raise VsreError(
                    f"{self.plan.out}: planned for the painter {head.painter} with other weights or numbers than "
                    f"{self.painter.name} has now. Plan again in another folder."
                )
        self._source: SourceRows | None = None
        self._vocabulary: Vocabulary | None = None

    def paint(
        self, number: int, *, wait: bool = False, tick: Callable[[int], None] = lambda jobs: None
    ) -> ShardDone | None:
        """Paint a shard unless it is done. Returns None if another process is painting it and `wait` is False. `tick`
        is called with the number of jobs in each finished batch."""
        with claimed(self.plan.out, number, wait=wait) as ours:
            if not ours:
                return ShardDone(number) if is_done(self.plan.out, number) else None
            began = time.perf_counter()
            statuses: Counter[str] = Counter()
            with ShardWriter(self.plan, number) as writer:
                for batch in self.plan.batches(number, self._rows(), self.painter):
                    started = time.perf_counter()
                    results = paint_allowed(self.painter, self._words(), [planned.job for planned in batch])
                    outcomes = self.judge.judged(results, [planned.licence for planned in batch], started)
                    writer.add(batch, outcomes)
                    statuses.update(outcome.status for outcome in outcomes)
                    tick(len(batch))
            return ShardDone(number, statuses, time.perf_counter() - began)

    def release(self) -> None:
        """Drop the models that were loaded here, for example for a trial, before others load theirs: a GPU has room for
        few of them. What is needed again is loaded again."""
        for holder in (self.painter, self.judge.verifier, self.judge.safety):
            getattr(holder, "release", lambda: None)()
        gc.collect()
        if "torch" in sys.modules:
            import torch

            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def _rows(self) -> SourceRows:
        if self._source is None:
            self._source = SourceRows(self.triplets)
        return self._source

    def _words(self) -> Vocabulary:
        if self._vocabulary is None:
            self._vocabulary = self.plan.vocabulary()
        return self._vocabulary

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None, "_vocabulary": None}


def work(
    shard_painter: ShardPainter,
    *,
    part: tuple[int, int] = (1, 1),
    workers: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Paint the shards that are not done; returns how many shards this call painted, and how many of their jobs by
    status.

    `part` (i, n) takes every n-th shard, i from 1 to n. `workers` processes paint at once, each with its own GPU if
    there are several; with `ray` ("local" or a cluster's address) they run wherever Ray has room, and all must see OUT
    and the triplets at the same paths. When this returns, all shards of the part are done: those that other processes
    are painting are waited for. `progress(done, total)` counts jobs, including those done before.

    Raises VsreError for a part that does not exist, if the disk is full, and if workers keep dying.
    """
    plan, (index, of) = shard_painter.plan, part
    if not 1 <= index <= of:
        raise VsreError(f"shard {index}/{of}: in i/n, i goes from 1 to n.")
    if workers < 1:
        raise VsreError("workers must be at least 1.")
    ours = range(index - 1, plan.shards, of)
    total = sum(plan.jobs_in(number) for number in ours)
    todo = [number for number in ours if not is_done(plan.out, number)]
    done = total - sum(plan.jobs_in(number) for number in todo)

    def tick(jobs: int) -> None:
        nonlocal done
        done += jobs
        if progress:
            progress(done, total)

    tick(0)
    began = time.perf_counter()
    made: list[ShardDone] = []
    if ray is not None or workers > 1:
        shard_painter.release()
    if ray is not None:
        from vsre.repaint.ray_work import painted_by_ray

        results = painted_by_ray(shard_painter, todo, workers, ray)
    elif workers > 1:
        results = _painted_by_pool(shard_painter, todo, workers)
    else:
        # Only here is progress reported batch by batch.
        results = ((n, shard_painter.paint(n, tick=tick)) for n in todo)
    told = ray is None and workers == 1
    elsewhere = []
    for number, result in results:
        if result is None:
            elsewhere.append(number)
        else:
            made.append(result)
            tick(0 if told and result.statuses else plan.jobs_in(number))
    for number in elsewhere:
        made.append(shard_painter.paint(number, wait=True) or ShardDone(number))
        tick(plan.jobs_in(number))
    statuses: Counter[str] = sum((result.statuses for result in made), Counter())
    return {
        "shards": sum(bool(result.statuses) for result in made),
        "jobs": statuses.total(),
        **{status: statuses[status] for status in ("painted", "rejected", "refused")},
        "seconds": round(time.perf_counter() - began, 1),
    }


Results = Iterator[tuple[int, ShardDone | None]]


def _painted_by_pool(shard_painter: ShardPainter, numbers: Sequence[int], workers: int) -> Results:
    """(number, result) of each shard as it is done. If a worker dies, others take over."""
    # Spawned, not forked: Parquet is read by threads, and a fork copies their locks in whatever state they are.
    context = get_context("spawn")
    left = dict.fromkeys(numbers)
    deaths = 0
    while left:
        ranks = context.Value("i", 0)
        start = (shard_painter, ranks, _devices(shard_painter.painter))
        with ProcessPoolExecutor(min(workers, len(left)), context, initializer=_start, initargs=start) as pool:
            futures = {pool.submit(_paint, number): number for number in left}
            try:
                for future in as_completed(futures):
                    result = future.result()
                    del left[futures[future]]
                    deaths = 0
                    yield futures[future], result
            except BrokenProcessPool as error:
                deaths += 1
                if deaths == _DEATHS:
                    raise VsreError(
                        f"A worker died {_DEATHS} times before a shard was done, perhaps for lack of memory. Finished "
                        "shards are kept; use fewer workers, or a smaller batch size in a new plan."
                    ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


_worker: list[ShardPainter] = []


def _start(shard_painter: ShardPainter, ranks: Any, devices: Sequence[str]) -> None:
    """Set up a worker: it ends with its parent, and has its own GPU if there are several."""
    end_with_parent()
    with ranks.get_lock():
        rank, ranks.value = ranks.value, ranks.value + 1
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[rank % len(devices)]
    _worker.append(shard_painter)


def _paint(number: int) -> ShardDone | None:
    return _worker[0].paint(number)


def _devices(painter: Painter) -> list[str]:
    """The GPUs to share among workers, as CUDA_VISIBLE_DEVICES names them; none if one was chosen by name, and none for
    painters without a model."""
    if not isinstance(painter, DiffusionPainter) or painter.config.device not in ("auto", "cuda"):
        return []
    import torch

    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]
