"""Choosing the thresholds of the rules on statements that people labelled.

Every correct verdict is worth 1 - price, every wrong one costs price, and the thresholds with the greatest sum are
taken (the net benefit of decision-curve analysis, Vickers & Elkin 2006). A rule is thus widened as long as the verdicts
it gains are right more often than `price`; all its verdicts together are right more often still. Unlike "the widest
rule that reaches a precision", this does not depend on the luck of a few rows. An alternative that gains nothing, or
gives fewer than `fewest` verdicts, is not used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vsre.relations.photo_measures import MEASURES, PhotoPair
from vsre.relations.photo_rules import view
from vsre.relations.rule_forms import SIDES, Alternative, Choice, Forms, Side, Values, choices

Array = np.ndarray[Any, np.dtype[Any]]

PRICE = 0.85
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Labelled:
    """A statement about two things, and whether people call it true."""

    relation: str
    pair: PhotoPair
    label: bool


def choose_thresholds(
    forms: Forms, statements: Sequence[Labelled], *, price: float = PRICE, fewest: int = FEWEST
) -> dict[str, dict[Side, tuple[Values, ...]]]:
    """The thresholds of every rule, as `rule_forms.Thresholds` holds them; the same statements give the same ones."""
    chosen: dict[str, dict[Side, tuple[Values, ...]]] = {}
    for name, rule in forms.rules.items():
        mine = [s for s in statements if s.relation in rule.relations]
        pairs = [view(s.pair, rule.relations[s.relation]) for s in mine]
        labels = np.array([s.label for s in mine], bool)
        for side in SIDES:
            right = labels if side == "pass" else ~labels
            open_, values = np.ones(len(mine), bool), []
            for alternative in rule.alternatives(side):
                if not choices(alternative):
                    continue
                picked, spoken = _choose(alternative, pairs, right, open_, price, fewest)
                values.append(picked)
                open_ &= ~spoken  # the next alternative is chosen for what the earlier ones leave
            if values:
                chosen.setdefault(name, {})[side] = tuple(values)
    return chosen


def _choose(
    alternative: Alternative, pairs: Sequence[PhotoPair], right: Array, open_: Array, price: float, fewest: int
) -> tuple[Values, Array]:
    """The best thresholds, or None, and the rows (n,) on which the alternative then gives a verdict."""
    if not pairs:
        return None, open_
    grids, holds = [], []  # thresholds of each condition, and the rows (T, n) each lets through
    for condition in alternative:
        values = [MEASURES[condition.measure].value(p) for p in pairs]
        measured = np.array([np.nan if v is None else v for v in values], float)
        choice = condition.threshold.choose if isinstance(condition.threshold, Choice) else (condition.threshold,)
        grids.append(choice)
        holds.append(np.array([condition.sign * (measured - t) > 0 for t in choice]).reshape(len(choice), -1))
    spoken = open_[None]
    for hold in holds:  # all combinations, the last condition's thresholds changing fastest
        spoken = (spoken[:, None] & hold[None]).reshape(-1, len(open_))
    verdicts = spoken.sum(axis=1)
    benefit = np.where(verdicts >= fewest, spoken @ (right - price), -np.inf)
    best = int(np.lexsort((-np.arange(len(benefit)), verdicts, np.round(benefit, 9)))[-1])
    if not benefit[best] > 0:
        return None, np.zeros_like(open_)
    combination = next(itertools.islice(itertools.product(*grids), best, None))
    picked = tuple(t for t, c in zip(combination, alternative, strict=True) if isinstance(c.threshold, Choice))
    return picked, spoken[best]
