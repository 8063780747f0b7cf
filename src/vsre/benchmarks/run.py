"""A benchmark run from a local copy to figures, which can be killed at any moment and resumed from its folder.

run.json                    what was asked of whom: settings, versions, fingerprint of the questions, times
samples/part-NNNNN.parquet  one row per answer (samples.SCHEMA); each file is complete once it exists
set_aside.jsonl             file, row, reason and detail of every row that could not be used
metrics.json                the figures (scoring.score)
                            and whatever the benchmark's own tools read (position.txt, predictions.tsv, ...)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vsre.benchmarks.benchmark import Benchmark, Copy, Replies
from vsre.benchmarks.item import Item, fingerprint
from vsre.benchmarks.pictures import Picture
from vsre.benchmarks.rows import Aside
from vsre.benchmarks.samples import IDENTITY, SCHEMA, Asked, to_replies
from vsre.diagnose.answering import Answering, Group
from vsre.diagnose.engines import Engine
from vsre.diagnose.replies import Interrupted
from vsre.diagnose.run_folder import RunRecord, write_json
from vsre.diagnose.run_warnings import cut_warnings
from vsre.diagnose.samples import read_samples
from vsre.errors import VsreError


@dataclass(frozen=True)
class BenchmarkRun:
    """A run folder read back; `samples` is a table of samples.SCHEMA."""

    run: dict[str, Any]
    metrics: dict[str, Any]
    samples: pa.Table


def open_copy(name: str, path: str | Path, *, images: Sequence[str | Path] = ()) -> Copy:
    """Load a benchmark's questions from a local copy or hub id; raises VsreError if there are none."""
    benchmark = find(name)
    aside = Aside()
    items = list(benchmark.load(path, images=images, aside=aside))
    return Copy(benchmark, str(path), items, aside)


def find(name: str) -> Benchmark:
    """A benchmark from the registry; raises VsreError for an unknown name."""
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
    retry_errors: bool = False,
    flush_seconds: float = 30.0,
) -> dict[str, Any]:
    """Ask `engine` a benchmark's spatial questions and score them; returns the content of metrics.json.

    `path` is a copy as distributed or a hub id (or what `open_copy` gave), `mode` one of benchmark.MODES. `sample`
    draws whole groups by `seed` until there are that many questions, `limit` then stops after the group that reaches
    that number. `seed` also seeds the bootstrap. A resumed run asks no question again, except with `retry_errors` those
    that ended in an error. Raises VsreError if there is nothing to ask, or if the folder holds a run made under other
    settings (`resume=False` replaces it).
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
    record = RunRecord(
        out,
        engine,
        settings,
        {
            "benchmark": benchmark.name,
            "mode": mode,
            "seed": seed,
            "data": {"path": copy.path, "source": benchmark.source, "citation": benchmark.citation},
            "counts": {"loaded": len(copy.items), "items": len(items), "questions": len(items) * len(ways)},
            "set_aside": dict(copy.aside.counts),
        },
        resume=resume,
    )
    if retry_errors:
        record.ask_again()
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in copy.aside.rows)
    (out / "set_aside.jsonl").write_text("".join(lines), "utf-8", errors="backslashreplace")
    answering = Answering(
        out / "samples",
        SCHEMA,
        IDENTITY,
        len(items) * len(ways),
        title=benchmark.title,
        started=record.answered,
        progress=progress,
        flush=flush_seconds,
    )
    try:
        asked, seconds = answering.run(engine, _by_picture(benchmark, items, ways))
    except Interrupted:
        record.stopped()
        raise
    record.finish(asked, seconds)
    samples = read_samples(out / "samples", schema=SCHEMA)
    replies = to_replies(samples)
    metrics = {
        "model": engine.name,
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "mode": mode,
        "rule": benchmark.rule,
        **benchmark.score(items, replies, seed=seed),
        "set_aside": dict(copy.aside.counts),
    }
    metrics["warnings"] = [*metrics["warnings"], *cut_warnings([samples]), *record.warnings()]
    _export(benchmark, items, replies, out)
    write_json(out / "metrics.json", metrics)
    record.write()
    return metrics


def load_benchmark_run(folder: str | Path) -> BenchmarkRun:
    """Read a finished run's run.json, metrics.json and samples; raises VsreError for a folder that holds none."""
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        raise VsreError(f"{folder}: no finished benchmark run here. Call run_benchmark again to resume one.")
    run, metrics = (json.loads((folder / name).read_text("utf-8")) for name in ("run.json", "metrics.json"))
    return BenchmarkRun(run, metrics, read_samples(folder / "samples", schema=SCHEMA))


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


def _by_picture(benchmark: Benchmark, items: Sequence[Item], ways: Sequence[str]) -> Iterator[Group]:
    """All that is asked about each picture, pictures in the order of their first items: an engine encodes each once."""
    pictures: dict[str, tuple[Picture, list[Asked]]] = {}
    for item in items:
        _, asked = pictures.setdefault(item.picture.id, (item.picture, []))
        asked += [Asked(benchmark, item, way) for way in ways]
    for picture, asked in pictures.values():
        yield picture.read, asked


def _export(benchmark: Benchmark, items: Sequence[Item], replies: Replies, out: Path) -> None:
    for name, content in benchmark.export(items, replies).items():
        (out / name).write_text(content, "utf-8", errors="backslashreplace")
