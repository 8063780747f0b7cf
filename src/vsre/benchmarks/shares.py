"""Shares of items or groups, with intervals: items of one picture, or in one group, are resampled together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vsre.benchmarks.item import Item
from vsre.diagnose.bootstrap import Bootstrap, Draws, Figure

Value = tuple[Item, float | None]
"""What one item, or the group that it represents, counts; None if it does not count."""


@dataclass(frozen=True)
class Share:
    """A figure with its resamples, over `n` items or groups."""

    draws: Draws
    n: int

    def figure(self) -> Figure:
        return self.draws.figure(0, self.n)

    def times(self, factor: float) -> Share:
        return Share(Draws(self.draws.all * factor), self.n)

    def plus(self, other: Share) -> Share:
        """The sum; n is this one's."""
        return Share(Draws(self.draws.all + other.draws.all), self.n)

    def __bool__(self) -> bool:
        return self.n > 0


def average(shares: Sequence[Share]) -> Share:
    """The mean of shares with equal weights; n is the sum of theirs."""
    total = np.mean([share.draws.all for share in shares], axis=0)
    units = [share.draws.units for share in shares if share.draws.units is not None]
    most = np.max(units, axis=0) if len(units) == len(shares) else None
    return Share(Draws(total, most), sum(share.n for share in shares))


class Shares:
    """Means over items with intervals over clusters: items of one picture, or of one group, are drawn together."""

    def __init__(self, items: Sequence[Item], *, seed: int = 0, resamples: int = 1000) -> None:
        self._cluster = _clusters(items)
        self.bootstrap = Bootstrap(len(set(self._cluster.values())), resamples=resamples, seed=seed)

    def mean(self, values: Iterable[Value]) -> Share:
        """The mean of the values that are not None, (1 + resamples, 1) draws of it."""
        counted = [(self._cluster[item.key], value) for item, value in values if value is not None]
        cluster = np.array([c for c, _ in counted], np.int64)
        value = np.array([v for _, v in counted], np.float64)
        zero = np.zeros_like(cluster)
        sums, n = (self.bootstrap.per_image(cluster, zero, 1, v) for v in (value, np.ones(len(value))))
        draws = self.bootstrap.figures(np.divide, sums, n)
        if counted:
            draws.all[0, 0] = value.mean()  # the figure itself in full precision, unlike its interval
        return Share(draws, len(counted))


def _clusters(items: Sequence[Item]) -> dict[str, int]:
    """A number for each item's key: the same for all that are linked by picture or group, in order."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for item in items:
        parent[root("group " + item.group)] = root("picture " + item.picture.id)
    numbers: dict[str, int] = {}
    return {i.key: numbers.setdefault(root("group " + i.group), len(numbers)) for i in items}


def all_right(values: Sequence[float | None]) -> float | None:
    """Whether all are right, or how likely that is by chance; None if one of them does not count."""
    if not values or any(value is None for value in values):
        return None
    return float(np.prod([value for value in values if value is not None]))


def in_groups(items: Iterable[Item]) -> list[list[Item]]:
    """Items of each group, groups in the order of their first items."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    return list(groups.values())
