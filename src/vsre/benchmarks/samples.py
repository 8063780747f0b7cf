"""A benchmark run's samples: one row an answer, in Parquet files that are complete from the moment they appear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.benchmarks.benchmark import GENERATE, Benchmark, Replies
from vsre.benchmarks.item import Item
from vsre.benchmarks.scoring import READINGS, choose
from vsre.diagnose.replies import Reply, Score
from vsre.diagnose.samples import ERROR, UNANSWERED, sample_files, storable

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("benchmark", pa.string()),
        ("way", pa.string()),
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("group", pa.string()),
        ("category", pa.string()),
        ("prompt", pa.string()),
        ("options", pa.list_(pa.string())),
        ("truth", pa.string()),
        ("answer", pa.string()),
        ("by_rule", pa.string()),
        ("reading", pa.string()),
        ("correct", pa.bool_()),
        ("logps", pa.list_(pa.float64())),
        ("tokens", pa.list_(pa.int32())),
        ("ends", pa.list_(pa.float64())),
        ("error", pa.string()),
    ]
)
"""`truth`, `by_rule` and `reading` are an option's name (a letter, yes, no), unanswered or error; `truth` is null
where the benchmark keeps it back. `by_rule` is what the benchmark's own rule reads, `reading` what ours does; of
likelihoods the latter is the option with the largest mean over its tokens and the end. `correct` says whether
`reading` is the truth, null for errors. `logps`, `tokens` and `ends` are those of the options that were scored, in
their order."""


def to_sample(model: str, benchmark: Benchmark, item: Item, way: str, reply: Reply) -> dict[str, Any]:
    """One row of SCHEMA."""
    prompt = benchmark.prompt(item, way)
    name = "reading" if way == GENERATE else "likelihood"
    ours = _named(name, benchmark, item, reply)
    return {
        "model": model,
        "benchmark": benchmark.name,
        "way": way,
        "key": item.key,
        "image_id": item.picture.id,
        "group": item.group,
        "category": item.category,
        "prompt": prompt.text,
        "options": list(item.options),
        "truth": None if item.answer is None else item.names[item.answer],
        "answer": storable(reply.text),
        "by_rule": _named("rule", benchmark, item, reply) if way == GENERATE and benchmark.read else None,
        "reading": ours,
        "correct": None if item.answer is None or ours == ERROR else ours == item.names[item.answer],
        "logps": [score.logp for score in reply.scores],
        "tokens": [score.tokens for score in reply.scores],
        "ends": [score.end for score in reply.scores],
        "error": storable(reply.error),
    }


def _named(reading: str, benchmark: Benchmark, item: Item, reply: Reply) -> str:
    usable, choice = choose(reading, benchmark, item, reply)
    if not usable:
        return ERROR if reply.error is not None or READINGS[reading].rank is None else UNANSWERED
    return UNANSWERED if choice is None else item.names[choice]


def to_replies(samples: pa.Table) -> Replies:
    """The engine's replies, as they were when the samples were written."""
    found: dict[str, dict[str, Reply]] = {}
    for row in samples.select(["way", "key", "answer", "logps", "tokens", "ends", "error"]).to_pylist():
        scores = tuple(Score(*s) for s in zip(row["logps"], row["tokens"], row["ends"], strict=True))
        found.setdefault(row["way"], {})[row["key"]] = Reply(row["answer"], scores, row["error"])
    return found


def write_part(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as the next part-NNNNN.parquet; the file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{len(sample_files(folder)):05d}.parquet"
    draft = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), draft, compression="zstd")
    draft.replace(path)
    return path


def read_samples(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All samples in the order they were asked; an empty table where there are none yet."""
    names = list(columns) if columns else None
    tables = [pq.read_table(file, columns=names) for file in sample_files(folder)]
    empty = SCHEMA.empty_table()
    return pa.concat_tables(tables) if tables else empty.select(names) if names else empty
