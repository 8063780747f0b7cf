"""A benchmark run's samples: one row per answer, in Parquet files that are complete from the moment they appear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vsre.benchmarks.benchmark import GENERATE, Benchmark, Replies
from vsre.benchmarks.item import Item
from vsre.benchmarks.scoring import READINGS, choose
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply, Score
from vsre.diagnose.samples import ERROR, UNANSWERED, storable

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
        ("cut", pa.bool_()),
        ("error", pa.string()),
    ]
)
"""`truth`, `by_rule` and `reading` are an option's name (a letter, yes, no), unanswered or error; `truth` is null if
the benchmark withholds it. `by_rule` is what the benchmark's own rule reads, `reading` what ours does; for likelihoods
the latter is the option with the largest mean over its tokens and the end. `correct` says whether `reading` is the
truth, null for errors. `logps`, `tokens` and `ends` are those of the options that were scored, in their order. `cut`:
the answer ended at the token limit; null if unknown."""


IDENTITY = ("key", "way")
"""The columns that identify an answer within its run."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A benchmark's item and the way in which it is asked."""

    benchmark: Benchmark
    item: Item
    way: str

    @property
    def id(self) -> tuple[str, ...]:
        """Its values of IDENTITY."""
        return self.item.key, self.way

    def prompt(self) -> Prompt:
        """The question as an engine takes it."""
        return self.benchmark.prompt(self.item, self.way)

    def sample(self, model: str, reply: Reply) -> dict[str, Any]:
        """One row of SCHEMA."""
        return _sample(model, self.benchmark, self.item, self.way, reply)


def _sample(model: str, benchmark: Benchmark, item: Item, way: str, reply: Reply) -> dict[str, Any]:
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
        "cut": reply.cut,
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
