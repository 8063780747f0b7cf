"""Ranks with their uncertainty: which of several models a sample can tell apart, and the ranks left open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from vsre.diagnose.bootstrap import LEVEL, Array
from vsre.report.inputs import Estimate


def told_apart(draws: Array, images: int) -> Array:
    """Return which of n models are above which, bool (n, n), from each one's figure on the same resamples, (n, 1 + R).

    All pairs are compared with one bound: the 95th percentile, over resamples, of the largest studentised deviation of
    any difference from its value on the data. So in 95 % of samples no pair is told apart wrongly, and the resulting
    ranks hold for all models at once (Mogstad, Romano, Shaikh & Wilhelm 2024, "Inference for Ranks"). For few `images`
    the bound is that of Student's t at the same tail, and the resamples' variance, which is too small by a factor of
    (images - 1) / images, is corrected.
    """
    value = draws[:, None, 0] - draws[None, :, 0]
    drawn = draws[:, None, 1:] - draws[None, :, 1:]  # (n, n, R)
    error = drawn.std(axis=2, ddof=1)
    known = error > 1e-12
    if images < 2 or not known.any():
        return np.zeros(value.shape, bool)
    largest = (np.abs(drawn - value[:, :, None])[known] / error[known][:, None]).max(axis=0)
    tail = stats.norm.sf(np.percentile(largest, LEVEL))
    bound = stats.t.isf(tail, images - 1) * np.sqrt(images / (images - 1))
    return np.asarray(known & (value > bound * error))


def apart_by_interval(figures: Sequence[Estimate]) -> Array:
    """Return the same without answers: an interval has to be entirely above another's. It separates fewer pairs."""
    low = np.array([np.nan if f.low is None else f.low for f in figures])
    high = np.array([np.nan if f.high is None else f.high for f in figures])
    return np.asarray(low[:, None] > high[None, :])


def rank_ranges(above: Array) -> list[tuple[int, int]]:
    """Return the best and worst rank each model may have: 1 + those above it, and n - those below it."""
    n = len(above)
    return [(1 + int(above[:, i].sum()), n - int(above[i].sum())) for i in range(n)]
