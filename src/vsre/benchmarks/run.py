"""A benchmark run from a local copy to figures, in a folder that can be killed and resumed at any moment.

run.json                    what was asked of whom: settings, versions, fingerprint of the questions, times
samples/part-NNNNN.parquet  one row an answer (samples.SCHEMA); each file is complete once it is there
set_aside.jsonl             file, row, reason and detail of every row that could not be used
metrics.json                the figures (scoring.score)
                            and whatever the benchmark's own tools read (position.txt, predictions.tsv, ...)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import vsre
from vsre.benchmarks.benchmark import Benchmark, Copy, Replies
from vsre.benchmarks.item import Item, fingerprint
from vsre.benchmarks.rows import Aside
from vsre.benchmarks.samples import read_samples, to_replies, to_sample, write_part
from vsre.diagnose.answering import _bar
from vsre.diagnose.engines import Engine
from vsre.diagnose.replies import Interrupted, Reply
from vsre.diagnose.run import _now, _open_folder, _versions, _write_json
from vsre.errors import VsreError

Asked = tuple[Item, str]
"""An item and the way in which it is asked."""


@dataclass(frozen=True)
class BenchmarkRun:
    """A run folder read back; `samples` is a table of samples.SCHEMA."""

    run: dict[str, Any]
    metrics: dict[str, Any]
    samples: pa.Table


def open_copy(name: str, path: str | Path, *, images: Sequence[str | Path] = ()) -> Copy:
    """Load a benchmark's questions from a local copy or hub id; raises VsreError where there are none."""
    benchmark = find(name)
    aside = Aside()
    items = list(benchmark.load(path, images=images, aside=aside))
    return Copy(benchmark, str(path), items, aside)


def find(name: str) -> Benchmark:
    """A benchmark of the registry; raises VsreError for an unknown name."""
    from vsre.benchmarks import BENCHMARKS

    if name not in BENCHMARKS:
        raise VsreError(f"{name}: no such benchmark. There are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


def run_benchmark(
    engine: Engine,
    name: str,
    path: str | Path | Copy,
    out: str | Path,
    *,
    mode: str = "official",
    images: Sequence[str | Path] = (),
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    progress: bool = True,
    resume: bool = True,
    flush_seconds: float = 30.0,
) -> dict[str, Any]:
    """Ask `engine` a benchmark's spatial questions and score them; returns the content of metrics.json.

    `path` is a copy as distributed or a hub id (or what `open_copy` gave), `mode` one of benchmark.MODES. `sample`
    draws whole groups by `seed` until there are that many questions, `limit` then ends after the group that brings the
    number to it. `seed` also draws the bootstrap. A resumed run asks no question again. Raises VsreError where there
    is nothing to ask, and where the folder holds a run made under other settings (`resume=False` replaces it).
    """
    copy = path if isinstance(path, Copy) else open_copy(name, path, images=images)
    benchmark, out = copy.benchmark, Path(out)
    ways = benchmark.ways(mode)
    items = choose_items(copy.items, limit=limit, sample=sample, seed=seed)
    settings = {
        "engine": engine.settings(),
        "benchmark": benchmark.name,
        "questions": fingerprint(items),
        "ways": list(ways),
        "limit": limit,
        "sample": sample,
        "seed": seed,
    }
    if not resume:
        (out / "set_aside.jsonl").unlink(missing_ok=True)
    earlier = _open_folder(out, settings, resume=resume)
    record: dict[str, Any] = {
        "vsre": vsre.__version__,
        "model": engine.name,
        "benchmark": benchmark.name,
        "mode": mode,
        "seed": seed,
        "settings": settings,
        "data": {"path": copy.path, "source": benchmark.source, "citation": benchmark.citation},
        "counts": {"loaded": len(copy.items), "items": len(items), "questions": len(items) * len(ways)},
        "set_aside": dict(copy.aside.counts),
        "versions": _versions(),
        "sessions": [*earlier.get("sessions", []), {"started": _now()}],
        "finished": None,
    }
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in copy.aside.rows)
    (out / "set_aside.jsonl").write_text("".join(lines), "utf-8", errors="backslashreplace")
    _write_json(out / "run.json", record)

    def started(say: Callable[[str], None]) -> None:
        """After the first answers: a run that is killed later still says how it was answered."""
        notes = engine.notes()
        record["engine"] = record["sessions"][-1]["engine"] = notes
        _write_json(out / "run.json", record)
        if "way" in notes:
            say(f"way: {notes['way']}" + (f" ({notes['why']})" if notes.get("why") else ""))

    asked, seconds = _answer_all(engine, benchmark, items, ways, out / "samples", progress, flush_seconds, started)
    record["sessions"][-1] |= {"seconds": round(seconds, 2), "questions": asked}
    record |= {"engine": engine.notes() if asked else earlier.get("engine"), "finished": _now()}
    replies = to_replies(read_samples(out / "samples"))
    metrics = {
        "model": engine.name,
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "mode": mode,
        "rule": benchmark.rule,
        **benchmark.score(items, replies, seed=seed),
        "set_aside": dict(copy.aside.counts),
    }
    _export(benchmark, items, replies, out)
    _write_json(out / "metrics.json", metrics)
    _write_json(out / "run.json", record)
    return metrics


def load_benchmark_run(folder: str | Path) -> BenchmarkRun:
    """Read a finished run's run.json, metrics.json and samples; raises VsreError for a folder that holds none."""
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        raise VsreError(f"{folder}: no finished benchmark run here. Call run_benchmark again to resume one.")
    run, metrics = (json.loads((folder / name).read_text("utf-8")) for name in ("run.json", "metrics.json"))
    return BenchmarkRun(run, metrics, read_samples(folder / "samples"))


def choose_items(
    items: Sequence[Item], *, limit: int | None = None, sample: int | None = None, seed: int = 0
) -> list[Item]:
    """Whole groups, in the items' order: drawn by `seed` up to `sample` items, then the first up to `limit`."""
    for what, number in (("limit", limit), ("sample", sample)):
        if number is not None and number < 1:
            raise VsreError(f"--{what} {number}: nothing would be asked. Use 1 or more.")
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, 0) + 1
    groups = list(sizes)
    if sample is not None:
        order = np.random.default_rng(seed).permutation(len(groups))
        drawn = set(_up_to(sample, [groups[i] for i in order], sizes))
        groups = [group for group in groups if group in drawn]
    if limit is not None:
        groups = _up_to(limit, groups, sizes)
    kept = set(groups)
    return [item for item in items if item.group in kept]


def _up_to(number: int, groups: Sequence[str], sizes: dict[str, int]) -> list[str]:
    taken, count = [], 0
    for group in groups:
        if count >= number:
            break
        taken.append(group)
        count += sizes[group]
    return taken


def _by_picture(items: Sequence[Item], ways: Sequence[str]) -> Iterator[list[Asked]]:
    """All that is asked about each picture, pictures in the order of their first items: an engine encodes each once."""
    pictures: dict[str, list[Asked]] = {}
    for item in items:
        pictures.setdefault(item.picture.id, []).extend((item, way) for way in ways)
    yield from pictures.values()


def _answer_all(
    engine: Engine,
    benchmark: Benchmark,
    items: Sequence[Item],
    ways: Sequence[str],
    folder: Path,
    progress: bool,
    flush_seconds: float,
    started: Callable[[Callable[[str], None]], None],
) -> tuple[int, float]:
    """Ask what the folder does not hold yet; returns how many answers that gave and the seconds it took."""
    held = read_samples(folder, ["key", "way"])
    done = set(zip(held["key"].to_pylist(), held["way"].to_pylist(), strict=True))
    waiting: list[dict[str, Any]] = []
    asked_now, began = 0, time.monotonic()
    flushed, announced = began, False
    with _bar(len(items) * len(ways), len(done), benchmark.title, shown=progress) as (advance, say):
        try:
            # Always the same pictures together, so that a resumed run computes exactly what an undisturbed one does.
            stream = _by_picture(items, ways)
            size = min(2, engine.batch_images)  # the first answers come soon, and show whether the model works at all
            while some := list(islice(stream, size)):
                size = engine.batch_images
                batch = [[(i, way) for i, way in asked if (i.key, way) not in done] for asked in some]
                batch = [asked for asked in batch if asked]
                if not batch:
                    continue
                answers, stopped = _answer(engine, benchmark, batch)
                if not announced:
                    started(say)
                    announced = True
                fresh = [to_sample(engine.name, benchmark, i, way, reply) for (i, way), reply in answers]
                waiting += fresh
                asked_now += len(fresh)
                advance(len(fresh))
                if stopped is not None:
                    raise stopped
                if time.monotonic() - flushed >= flush_seconds:
                    write_part(folder, waiting)
                    waiting, flushed = [], time.monotonic()
        finally:
            if waiting:
                write_part(folder, waiting)
    return asked_now, time.monotonic() - began


def _answer(
    engine: Engine, benchmark: Benchmark, batch: Sequence[Sequence[Asked]]
) -> tuple[list[tuple[Asked, Reply]], Interrupted | None]:
    """The replies of a batch; a picture that is gone by now costs its own questions only."""
    answers: list[tuple[Asked, Reply]] = []
    going: list[tuple[bytes, Sequence[Asked]]] = []
    for asked in batch:
        try:
            going.append((asked[0][0].picture.read(), asked))
        except VsreError as error:
            answers += [(one, Reply(error=str(error))) for one in asked]
    stopped: Interrupted | None = None
    replies: Sequence[Sequence[Reply | None]] = []
    if going:
        try:
            replies = engine.answer([(data, [benchmark.prompt(*one) for one in asked]) for data, asked in going])
        except Interrupted as error:
            replies, stopped = error.replies, error
    for (_, asked), row in zip(going, replies, strict=True):
        answers += [(one, reply) for one, reply in zip(asked, row, strict=True) if reply is not None]
    return answers, stopped


def _export(benchmark: Benchmark, items: Sequence[Item], replies: Replies, out: Path) -> None:
    for name, content in benchmark.export(items, replies).items():
        (out / name).write_text(content, "utf-8", errors="backslashreplace")
