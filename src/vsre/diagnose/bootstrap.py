"""Intervals by resampling images: questions about one picture are not independent, so pictures are resampled.

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


def none_or_all(share: float, units: int) -> tuple[float, float]:
    """The exact interval (Clopper-Pearson) of a share of 0 or 1, with all of the uncertainty on one side."""
    doubt = 1 - (1 - LEVEL / 100) ** (1 / max(1, units))
    return (1 - doubt, 1.0) if share else (0.0, doubt)


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
        """function(*totals), on the data and on every resample; `sums` are (I, G), totals (1 + R, G).

        np.divide gives shares of the last sums, whose images are counted: see `Draws`.
        """
        totals = [np.concatenate([s.sum(0, keepdims=True, dtype=np.float64), self.weights @ s]) for s in sums]
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = function(*totals)
        units = np.broadcast_to((sums[-1] > 0).sum(0), drawn.shape[1:]) if function is np.divide else None
        return Draws(drawn, units)


class Draws:
    """G figures and their resamples: `all` is (1 + R, G), the data itself in row 0; NaN where nothing was asked.

    `units` (G,) holds, for shares, the number of images behind each: if all answers are right, or none, every resample
    is the same and shows no uncertainty, so the exact interval for that many images is given instead.
    """

    def __init__(self, all_: Array, units: Array | None = None) -> None:
        self.all, self.units = all_, units

    def mean(self, columns: Array) -> Draws:
        """The mean of some of the figures, itself resampled; figures without a value are left out."""
        picked = self.all[:, columns]
        known = ~np.isnan(picked)
        with np.errstate(invalid="ignore"):
            mean = (np.where(known, picked, 0).sum(1) / known.sum(1))[:, None]
        return Draws(mean, None if self.units is None or not known[0].any() else self.units[columns].max(keepdims=True))

    def distance(self, columns: Array) -> Draws:
        """The mean of the absolute value of some of the figures, itself resampled: see `mean_distance`."""
        return Draws(np.abs(self.all)).mean(columns)

    def centred(self) -> Draws:
        """The resamples moved so that their mean is the figure's value."""
        drawn = self.all[1:]
        with np.errstate(invalid="ignore"):
            mean = np.nansum(drawn, axis=0) / (~np.isnan(drawn)).sum(axis=0)
        return Draws(np.concatenate([self.all[:1], drawn + self.all[0] - mean]))

    def minus(self, other: Draws) -> Draws:
        return Draws(self.all - other.all)

    def mean_distance(self, columns: Array, n: int | None = None) -> Figure:
        """As `figure`, for the mean of |x| over some of the figures x, such as the gap of each wording.

        Noise moves each x, but can only raise |x| if x is near 0: the value is biased upward, and resamples once more.
        So `low` comes from an inverted test: it is the smallest mean, with all x shrunk by one factor, whose 95 % range
        still includes the value (0 if noise alone explains it). `high` is corrected for what resampling adds.
        """
        x = self.all[:, columns][:, ~np.isnan(self.all[0, columns])]
        drawn = self.distance(columns).all[1:, 0]
        drawn = drawn[np.isfinite(drawn)]
        if not x.size or not len(drawn):
            return Draws(self.distance(columns).all[:1]).figure(n=n)
        value, noise = float(np.abs(x[0]).mean()), (x[1:] - x[0])[~np.isnan(x[1:]).all(1)]

        def explains(factor: float) -> bool:
            return bool(np.percentile(np.nanmean(np.abs(factor * x[0] + noise), axis=1), _EDGES[1]) >= value)

        low, high = 0.0, 1.0
        for _ in range(0 if explains(0.0) else 12):
            middle = (low + high) / 2
            low, high = (low, middle) if explains(middle) else (middle, high)
        most = np.percentile(drawn, _EDGES[1]) - max(0.0, drawn.mean() - value)
        return {"value": value, "low": low * value, "high": float(max(value, most)), "n": n}

    def figure(self, column: int = 0, n: int | None = None) -> Figure:
        """{"value", "low", "high", "n"}: a percentile interval of LEVEL per cent; nulls if there is no value."""
        value, drawn = self.all[0, column], self.all[1:, column]
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(value):
            return {"value": None, "low": None, "high": None, "n": n}
        low, high = np.percentile(drawn, _EDGES) if len(drawn) else (None, None)
        if self.units is not None and value in (0.0, 1.0) and low == high:
            low, high = none_or_all(value, int(self.units[column]))
        return {
            "value": float(value),
            "low": None if low is None else float(low),
            "high": None if high is None else float(high),
            "n": n,
        }
