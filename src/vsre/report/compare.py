"""Differences between two runs, with their uncertainty, and the words for them.

Two runs answer the same questions about the same images, so their difference is far better known than their
two intervals side by side suggest: images are resampled together for both (a paired bootstrap over images).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from vsre.report.inputs import Estimate, Run

PACKS = {"test_s": "test-s", "test_g": "pool", "unseen": "held-out"}
"""Which template pack's answers each headline figure is measured on."""

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """after - before, as fractions, with a 95 % interval; `paired` tells how the interval was found."""

    value: float
    low: float
    high: float
    paired: bool = False

    def words(self) -> str:
        """What the figures allow one to say, and no more."""
        interval = f"[{signed(self.low)}, {signed(self.high)}]"
        if self.low > 0:
            return f"higher by {100 * self.value:.1f} points [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        if self.high < 0:
            return f"lower by {-100 * self.value:.1f} points [{-100 * self.high:.1f}, {-100 * self.low:.1f}]"
        return f"no difference that this sample can show ({signed(self.value)} points {interval})"

    @property
    def verdict(self) -> str:
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "same"


def signed(fraction: float) -> str:
    """0.071 -> "+7.1", -0.012 -> "−1.2" (with a true minus)."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _right_by_image(run: Run, pack: str) -> dict[str, tuple[int, int]] | None:
    """image_id -> (right answers, questions) over one pack."""
    table = run.samples(["pack", "image_id", "correct"], pc.field("pack") == pack)
    if table is None:
        return None
    table = table.set_column(2, "correct", pc.fill_null(table["correct"], False).cast("int64"))
    grouped = table.group_by("image_id").aggregate([("correct", "sum"), ("correct", "count")])
    return {
        image: (right, asked)
        for image, right, asked in zip(
            *(grouped[c].to_pylist() for c in ("image_id", "correct_sum", "correct_count")), strict=True
        )
    }


def difference(before: Run, after: Run, figure: str, *, seed: int = 0) -> Difference | None:
    """How much better `after` is in acc_t of "test_s", "test_g" or "unseen"; None where one lacks it."""
    a, b = before.estimate(figure, "acc_t"), after.estimate(figure, "acc_t")
    if a.value is None or b.value is None:
        return None
    counts_a, counts_b = (_right_by_image(run, PACKS[figure]) for run in (before, after))
    if counts_a and counts_b and counts_a.keys() == counts_b.keys():
        images = sorted(counts_a)
        table = np.array([(*counts_a[i], *counts_b[i]) for i in images], dtype=np.float64)  # (images, 4)
        low, high = _paired_interval(table, seed)
        return Difference(b.value - a.value, low, high, paired=True)
    return unpaired(a, b)


def _paired_interval(table: np.ndarray, seed: int) -> tuple[float, float]:
    rng, even = np.random.default_rng(seed), np.full(len(table), 1 / len(table))
    # in blocks, so that the resampling weights of a large test stay small in memory
    blocks = [rng.multinomial(len(table), even, size=100) @ table for _ in range(_RESAMPLES // 100)]
    right_a, asked_a, right_b, asked_b = np.concatenate(blocks).T
    drawn = right_b / asked_b - right_a / asked_a
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def unpaired(a: Estimate, b: Estimate) -> Difference | None:
    """The difference of two independent figures from their own intervals, taken as normal.

    A figure without an interval counts as known exactly, which suits a blind floor given as a bare number;
    where neither has one nothing can be said.
    """
    if a.value is None or b.value is None:
        return None
    spread = [(e.high - e.low) / 2 for e in (a, b) if e.low is not None and e.high is not None]
    if not spread:
        return None
    half, value = math.hypot(*spread), b.value - a.value
    return Difference(value, value - half, value + half)


def blind_floor(run: Run) -> tuple[str, Estimate]:
    """The best guesser that never sees a picture, and its accuracy."""
    names = {
        "majority": "the commonest answer",
        "per_relation": "relation only",
        "ngrams": "caption words only",
    }
    floors = [(name, run.estimate("blind_floor", key)) for key, name in names.items()]
    known = [(name, floor) for name, floor in floors if floor.value is not None]
    return max(known, key=lambda pair: pair[1].value or 0.0) if known else ("not measured", Estimate())


def finding(before: Run, after: Run, name: Callable[[str], str] = str) -> str:
    """One sentence: what was found, from the figures alone; `name` dresses the models' names."""
    figure = next(
        (f for f in ("test_g", "test_s", "unseen") if after.estimate(f, "acc_t").value is not None), None
    )
    if figure is None:
        return "No accuracy was measured, so nothing was found."
    count = after.section(figure).get("n_templates") or len(
        {t.get("template") for t in after.templates() if t.get("pack") == PACKS[figure]}
    )
    over = (
        "With one fixed wording" if count == 1 else f"Over {count or 'many'} wordings of the same questions"
    )
    score = after.estimate(figure, "acc_t")
    said = f"{over}, {name(after.name)} is right {100 * (score.value or 0):.1f} % of the time"
    if before is not after:
        change = difference(before, after, figure)
        earlier = before.estimate(figure, "acc_t").value
        if change is not None and earlier is not None:
            said += f", {name(before.name)} {100 * earlier:.1f} %: {change.words()}"
    guesser, floor = blind_floor(after)
    if floor.value is None:
        return said + "."
    above = unpaired(floor, score)
    tail = {
        "same": ", which this sample cannot tell apart from the model",
        "lower": ", which is more than the model",
    }
    blind = (
        f"a guesser that never sees the picture ({guesser}) is right {100 * floor.value:.1f} % of the time"
    )
    return f"{said}; {blind}{tail.get(above.verdict, '') if above else ''}."


def steps(runs: list[Run]) -> list[dict[str, str]]:
    """Each run against the one before it, one row a run, in words."""
    rows = []
    for before, after in itertools.pairwise(runs):
        row = {"step": f"{before.name} → {after.name}"}
        for figure, label in (("test_s", "Test-S"), ("test_g", "Test-G"), ("unseen", "unseen")):
            change = difference(before, after, figure)
            row[label] = change.words() if change is not None else "not measured"
        rows.append(row)
    return rows
