"""Intervals by resampling images: questions about one picture are not independent, so pictures are what is drawn.

A figure is a function of per-image sums, so a thousand resamples are one matrix product: `weights` says how often each
image is drawn in each resample.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Figure = dict[str, float | int | None]

LEVEL = 95
_EDGES = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)


class Bootstrap:
    """`resamples` draws of `images` images with replacement; the same seed gives the same intervals."""

    def __init__(self, images: int, *, resamples: int = 1000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.images = images
        drawn = rng.multinomial(images, [1 / images] * images, size=resamples) if images else np.empty((resamples, 0))
        self.weights = drawn.astype(np.float32)  # (R, I)

    @cached_property
    def drawn(self) -> Array:
        """How often each image counts, (I, 1 + R): once in the data itself, then in each resample."""
        return np.concatenate([np.ones((self.images, 1), np.float32), self.weights.T], axis=1)

    def per_image(self, image: Array, group: Array, groups: int, values: Array) -> Array:
        """Sums of `values` (n,) for each image and group, (I, G), float32; `image` and `group` hold codes (n,)."""
        cells = image.astype(np.int64) * groups + group
        sums = np.bincount(cells, weights=values, minlength=self.images * groups)
        return sums.reshape(self.images, groups).astype(np.float32)

    def figures(self, function: Callable[..., Array], *sums: Array) -> Draws:
        """function(*totals), on the data and on every resample; `sums` are (I, G), totals (1 + R, G)."""
        totals = [np.concatenate([s.sum(0, keepdims=True, dtype=np.float64), self.weights @ s]) for s in sums]
        with np.errstate(divide="ignore", invalid="ignore"):
            return Draws(function(*totals))


class Draws:
    """G figures and their resamples: `all` is (1 + R, G), the data itself in row 0; NaN where nothing was asked."""

    def __init__(self, all_: Array) -> None:
        self.all = all_

    def mean(self, columns: Array) -> Draws:
        """The mean of some of the figures, itself resampled; figures without a value are left out."""
        picked = self.all[:, columns]
        known = ~np.isnan(picked)
        with np.errstate(invalid="ignore"):
            return Draws((np.where(known, picked, 0).sum(1) / known.sum(1))[:, None])

    def absolute(self) -> Draws:
        return Draws(np.abs(self.all))

    def minus(self, other: Draws) -> Draws:
        return Draws(self.all - other.all)

    def figure(self, column: int = 0, n: int | None = None) -> Figure:
        """{"value", "low", "high", "n"}: a percentile interval of LEVEL per cent; nulls where there is no value."""
        value, drawn = self.all[0, column], self.all[1:, column]
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(value):
            return {"value": None, "low": None, "high": None, "n": n}
        low, high = np.percentile(drawn, _EDGES) if len(drawn) else (None, None)
        return {
            "value": float(value),
            "low": None if low is None else float(low),
            "high": None if high is None else float(high),
            "n": n,
        }
