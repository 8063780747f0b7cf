"""What a benchmark is: where its questions come from, what is asked, how answers are read, and what is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsre.benchmarks.item import Item
from vsre.benchmarks.rows import Aside, Row
from vsre.benchmarks.shares import Share, Shares
from vsre.benchmarks.source import Source
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply
from vsre.errors import VsreError

GENERATE, LIKELIHOOD = "generate", "likelihood"
MODES = ("official", GENERATE, LIKELIHOOD, "both")

Right = Mapping[str, float]
"""For each item that counts, by its key: 1 right, 0 wrong; or the probability that a guess is right."""
Replies = Mapping[str, Mapping[str, Reply]]
"""For each way of asking, the replies by the item's key."""
Aggregate = Callable[[Sequence[Item], Right, Shares], dict[str, Share]]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark; to add one, add one of these to the registry.

    `official` names the readings (see scoring.READINGS) that are the benchmark's own score. `rows` yields the rows of
    a copy and `item` makes a question from a row: None if the row is not a spatial one, Unusable if it is but cannot be
    used. `read` is the benchmark's own rule for generated text: an option's index or None. `aggregate` is its score;
    `points` are those of its figures that are not shares. `kind` is what is known of a question without its picture or
    answer, for the floors: its category, unless that follows from the answer. `gaps` counts what is incomplete.
    `export` gives answers in the format of its own tools, by file name.
    """

    name: str
    title: str
    about: str
    wants: str
    source: str
    citation: str
    official: tuple[str, ...]
    rule: str
    rows: Callable[[Source], Iterator[Row]]
    item: Callable[[Row, Source], Item | None]
    aggregate: Aggregate
    read: Callable[[str, Item], int | None] | None = None
    points: tuple[str, ...] = ()
    kind: Callable[[Item], str] = lambda item: item.category
    gaps: Callable[[Sequence[Item]], dict[str, int]] = lambda items: {}
    export: Callable[[Sequence[Item], Replies], dict[str, str]] = lambda items, replies: {}
    hub_parts: tuple[tuple[str | None, str], ...] = ((None, "test"),)

    def load(
        self, path: str | Path, *, images: Sequence[str | Path] = (), aside: Aside | None = None
    ) -> Iterator[Item]:
        """The questions of a local copy (a file or folder as distributed) or of a hub data set (OWNER/NAME).

        `images` are more folders to search for pictures that the rows name. Rows that cannot be used go to `aside`.
        Raises VsreError if there is nothing to read or nothing usable in it.
        """
        source = Source(path, images=images, hub_parts=self.hub_parts, wants=f"{self.title} wants {self.wants}.")
        if aside is not None:
            source.aside = aside
        found = False
        for item in source.items(self.rows(source), self.item):
            found = True
            yield item
        if not found:
            raise _nothing(self.title, source)

    def ways(self, mode: str = "official") -> tuple[str, ...]:
        """How items are asked in a mode: generated, ranked by likelihood, or both."""
        from vsre.benchmarks.scoring import READINGS

        if mode not in MODES:
            raise VsreError(f"{mode}: no such mode. Use one of {', '.join(MODES)}.")
        if mode == "both":
            return (GENERATE, LIKELIHOOD)
        return (mode,) if mode != "official" else tuple(dict.fromkeys(READINGS[n].way for n in self.official))

    def prompt(self, item: Item, way: str) -> Prompt:
        """The prompt: generation also asks for the likelihood of the options' names, ranking for their texts'."""
        if way == GENERATE:
            return Prompt(item.prompt, options=_spoken(item), style="full")
        return Prompt(item.bare, options=item.options, style="none", end=True)

    def score(self, items: Sequence[Item], replies: Replies, *, seed: int = 0) -> dict[str, Any]:
        """The figures of answered items; see scoring.score."""
        from vsre.benchmarks.scoring import score

        return score(self, items, replies, seed=seed)


@dataclass
class Copy:
    """A loaded copy of a benchmark: its items and the rows that could not be used."""

    benchmark: Benchmark
    path: str
    items: list[Item]
    aside: Aside = field(default_factory=Aside)


def _spoken(item: Item) -> tuple[str, ...]:
    return item.options if item.labels else item.names


def _nothing(title: str, source: Source) -> VsreError:
    if not source.aside.counts:
        return VsreError(f"{source.name}: none of its rows are {title}'s spatial questions. {source.wants}")
    reasons = "\n".join(
        f"  {n} x {reason}, first in {source.aside.first[reason]}" for reason, n in source.aside.counts.most_common(3)
    )
    return VsreError(f"{source.name}: none of its {source.aside.total} rows can be used.\n{reasons}")
