"""Differences between two runs, with their uncertainty, and how to put them into words.

Two runs answer the same questions about the same images, so their difference is known far more precisely than
their two intervals suggest: images are resampled jointly for both (a paired bootstrap over images).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsre.diagnose.bootstrap import Bootstrap, Draws
from vsre.diagnose.metrics import HEADLINES
from vsre.report.charts import percent
from vsre.report.inputs import Estimate, Run

GUESSERS = {
    "majority": "the commonest answer",
    "per_relation": "the relation alone",
    "ngrams": "the words of the statement",
    "leave_one_out": "the labels of other rows with the same words",
    "lookup": "a lookup of training rows",
}
"""What each guesser of the blind floor relies on."""

_WELL_ANSWERED = 0.9
RESAMPLES = 1000
ANSWERS = ("pack", "image_id", "key", "template", "correct")
"""The sample columns that `mean_accuracy` needs, with statement and pack; `correct` is null for errors."""


@dataclass(frozen=True, slots=True)
class Difference:
    """after - before, as fractions, with a 95 % interval; `paired`: whether the interval is a paired one."""

    value: float
    low: float
    high: float
    paired: bool = False

    def words(self) -> str:
        """Say what the figures allow, and no more."""
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


def difference(before: Run, after: Run, figure: str, *, seed: int = 0) -> Difference | None:
    """Return how much better `after` is in acc_t of "test_s", "test_g" or "unseen".

    None if one lacks it, or if the two were asked about different test data. A question that one of them answered with
    an error counts for neither.
    """
    a, b = before.estimate(figure, "acc_t"), after.estimate(figure, "acc_t")
    if a.value is None or b.value is None or not same_test(before, after):
        return None
    drawn = paired_draws(before, after, figure, seed=seed)
    if drawn is None:
        return unpaired(a, b)
    e = Estimate.of(Draws(drawn[:, None]).figure())
    if e.low is None or e.high is None:
        return None
    return Difference(float(drawn[0]), e.low, e.high, paired=True)


def same_test(a: Run, b: Run) -> bool:
    """Whether two runs were asked about the same triplets in the same wordings, as far as they say."""
    known, packs = [run.setting("triplets") for run in (a, b)], [run.setting("packs") or {} for run in (a, b)]
    shared = [name for name in HEADLINES.values() if all(name in pack for pack in packs)]
    return (None in known or known[0] == known[1]) and all(packs[0][name] == packs[1][name] for name in shared)


def paired_draws(before: Run | None, after: Run, figure: str, *, seed: int = 0) -> np.ndarray | None:
    """Return acc_t of `after`, minus that of `before` if given, on the data and on every resample of images: (1 + R,).

    None if a run has no samples for it, or the two were asked about different statements or images.
    """
    if before is None:
        answers = answers_to(after, figure)
        return None if answers is None else answer_draws(answers, seed=seed)
    both = paired_answers(before, after, figure)
    return None if both is None else answer_draws(both[1], seed=seed) - answer_draws(both[0], seed=seed)


def paired_answers(
    before: Run, after: Run, figure: str, *, relations: Sequence[str] = (), keys: pa.Array | None = None
) -> tuple[pa.Table, pa.Table] | None:
    """Return the answers of both; None if there are none, or they are not about the same statements and images.

    `relations`: only statements of these; empty: all. `keys`: only these statements.
    """
    old, new = (answers_to(run, figure, relations, keys) for run in (before, after))
    if old is None or new is None:
        return None
    if not (_alike(old, new, "key") and _alike(old, new, "image_id")):
        return None
    old, new = answered_by_all([old, new])
    return (old, new) if _alike(old, new, "image_id") else None


def _alike(a: pa.Table, b: pa.Table, name: str) -> bool:
    return bool(pc.unique(a[name]).sort() == pc.unique(b[name]).sort())


def answered_by_all(runs: Sequence[pa.Table]) -> list[pa.Table]:
    """Drop from the answers of several runs the questions that any of them answered with an error.

    If only a run's own errors were dropped, one that failed on hard questions would be left with an easier test.
    """
    asked = [pc.binary_join_element_wise(table["key"], table["template"], "\x1f") for table in runs]
    failed = pa.concat_arrays(
        [q.filter(pc.is_null(t["correct"])).combine_chunks() for q, t in zip(asked, runs, strict=True)]
    )
    return [t.filter(pc.invert(pc.is_in(q, failed))) for q, t in zip(asked, runs, strict=True)]


def answer_draws(answers: pa.Table, *, seed: int = 0) -> np.ndarray:
    """Return acc_t on the data and on every resample of its images: (1 + R,).

    Answers about the same images are resampled alike by the same seed, so the difference of two is a paired one.
    """
    images = pc.unique(answers["image_id"]).sort()
    bootstrap = Bootstrap(len(images), resamples=RESAMPLES, seed=seed)
    return np.asarray(mean_accuracy(answers, images, bootstrap).all[:, 0])


def answers_to(run: Run, figure: str, relations: Sequence[str] = (), keys: pa.Array | None = None) -> pa.Table | None:
    """Return ANSWERS to a headline figure's pack, limited to given relations and statements; None if there are none."""
    where = pc.field("pack") == HEADLINES[figure]
    if relations:
        where &= pc.field("relation").isin(list(relations))
    if keys is not None:
        where &= pc.field("key").isin(keys)
    return run.samples(ANSWERS, where)


def mean_accuracy(answers: pa.Table, images: pa.Array, bootstrap: Bootstrap) -> Draws:
    """Return acc_t, the mean over templates, on the data and on every resample of `images`; errors are not counted."""
    answers = answers.filter(pc.is_valid(answers["correct"]))
    template = pc.dictionary_encode(answers["template"].combine_chunks())
    image = pc.index_in(answers["image_id"].combine_chunks(), images).to_numpy()
    group, groups = template.indices.to_numpy(), len(template.dictionary)
    right, asked = (
        bootstrap.per_image(image, group, groups, values)
        for values in (answers["correct"].to_numpy().astype(float), np.ones(len(answers)))
    )
    return bootstrap.figures(np.divide, right, asked).mean(np.arange(groups))


def unpaired(a: Estimate, b: Estimate) -> Difference | None:
    """Return the difference of two independent figures from their own intervals, taken as normal.

    A figure without an interval counts as known exactly, which suits a blind floor given as a bare number;
    None if neither has one.
    """
    if a.value is None or b.value is None:
        return None
    spread = [(e.high - e.low) / 2 for e in (a, b) if e.low is not None and e.high is not None]
    if not spread:
        return None
    half, value = math.hypot(*spread), b.value - a.value
    return Difference(value, value - half, value + half)


def blind_floor(run: Run) -> tuple[str, Estimate]:
    """Return the best guesser that never sees a picture, and its accuracy."""
    floors = [(name, run.estimate("blind_floor", key)) for key, name in GUESSERS.items()]
    known = [(name, floor) for name, floor in floors if floor.value is not None]
    return max(known, key=lambda pair: pair[1].value or 0.0) if known else ("not measured", Estimate())


def finding(before: Run, after: Run, name: Callable[[str], str] = str) -> str:
    """Say in one sentence what was found, from the figures alone; `name` formats the models' names."""
    figure = next((f for f in ("test_g", "test_s", "unseen") if after.estimate(f, "acc_t").value is not None), None)
    if figure is None:
        return "No accuracy was measured, so nothing was found."
    count = after.section(figure).get("n_templates")
    over = "With one fixed wording" if count == 1 else f"Over {count or 'many'} wordings of the same questions"
    score, answered = after.estimate(figure, "acc_t"), after.estimate(figure, "answered").value
    said = f"{over}, {name(after.name)} is right {percent(score.value)} of the time"
    if before is not after:
        change = difference(before, after, figure)
        earlier = before.estimate(figure, "acc_t").value
        if change is not None and earlier is not None:
            said += f", {name(before.name)} {percent(earlier)}: {change.words()}"
    if answered is not None and answered < _WELL_ANSWERED:
        said += f"; only {percent(answered)} of its answers can be read"
    guesser, floor = blind_floor(after)
    if floor.value is None:
        return said + "."
    above = unpaired(floor, score)
    tail = {
        "same": ", which this sample cannot tell apart from the model",
        "lower": ", which is more than the model",
    }
    blind = f"a guesser that sees no picture (it uses {guesser}) {percent(floor.value)}"
    return f"{said}; {blind}{tail.get(above.verdict, '') if above else ''}."


def pairs(runs: Sequence[Run], *, first: bool = False) -> list[tuple[int, int]]:
    """Return which runs are compared, as indices (before, after)."""
    return compared([(run.name, run.spec.against) for run in runs], first=first)


def compared(models: Sequence[tuple[str, Sequence[str]]], *, first: bool = False) -> list[tuple[int, int]]:
    """Return which of (name, names to compare it with) are compared, as indices (before, after).

    One that names no earlier one is compared with the one before it, and with the very first if `first`.
    """
    names, found = [name for name, _ in models], []
    for at, (_, against) in enumerate(models):
        default = dict.fromkeys((at - 1, 0)) if first else (at - 1,)
        known = [names.index(name) for name in against if name in names[:at]]
        found += [(before, at) for before in known or default if at]
    return found


def steps(runs: list[Run]) -> list[dict[str, str]]:
    """Return each run against the ones it is compared with, one row per pair, in words."""
    rows = []
    for before, after in ((runs[i], runs[j]) for i, j in pairs(runs)):
        row = {"step": f"{before.name} → {after.name}"}
        for figure, label in (("test_s", "Test-S"), ("test_g", "Test-G"), ("unseen", "Unseen")):
            change = difference(before, after, figure)
            row[label] = change.words() if change is not None else "not measured"
        rows.append(row)
    return rows
