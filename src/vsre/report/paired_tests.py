"""Tests for two models that answered the same questions, and what a sample of a given size can show.

Answers about one picture are correlated, so a test that treats questions as independent finds differences that are not
there. McNemar's test is one: it is given for one wording at a time, alongside a test whose units are the pictures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats  # type: ignore[import-untyped]

from vsre.diagnose.bootstrap import Array
from vsre.report.seeds import holm

ALPHA, POWER = 0.05, 0.8
_EXACT = 13
"""Up to so many images with a difference, all sign patterns are tried (2^13 = 8,192); above, they are sampled."""
_CHUNK = 1000


class McNemar(NamedTuple):
    """Two-sided p-values for `a_only` questions that only A has right against `b_only` that only B has right."""

    a_only: int
    b_only: int
    exact: float
    mid_p: float


def mcnemar(a_only: int, b_only: int) -> McNemar:
    """Return McNemar's exact conditional test and its mid-p variant (Fagerland, Lydersen & Laake 2013).

    Under the null hypothesis the discordant questions fall to either side like a fair coin. The exact test is
    conservative; mid-p subtracts the probability of what was observed and comes close to the nominal level. Both treat
    questions as independent, which those about one picture are not.
    """
    n, least = a_only + b_only, min(a_only, b_only)
    if n == 0:
        return McNemar(0, 0, 1.0, 1.0)
    exact = float(stats.binomtest(least, n, 0.5).pvalue)
    below, here = stats.binom.cdf(least - 1, n, 0.5), stats.binom.pmf(least, n, 0.5)
    return McNemar(a_only, b_only, exact, float(min(1.0, 2 * below + here)))


def sign_flip(parts: Array, *, draws: int = 10_000, seed: int = 0) -> Array:
    """Return two-sided p-values (G,) for a difference of 0, with images as units.

    `parts` (I, G) holds what each image adds to each of G differences. If two models are alike, all answers about an
    image can be swapped between them: its part changes sign. p is the share of swaps that give a difference at least as
    large. With one question per image this is McNemar's exact test; its normal approximation is the test of Obuchowski
    (1998) for clustered pairs, as in Durkalski et al. (2003). Exact up to 13 images with a difference; above, by seeded
    draws, where p cannot be less than 1 / (draws + 1).
    """
    observed = np.abs(parts.sum(0))
    slack = 1e-9 * np.abs(parts).sum(0)  # sums that differ only by rounding count as equal
    rng = np.random.default_rng(seed)
    reached = np.zeros(parts.shape[1])
    for start in range(0, draws, _CHUNK):
        signs = rng.integers(0, 2, (min(_CHUNK, draws - start), len(parts))) * 2.0 - 1.0
        reached += (np.abs(signs @ parts) >= observed - slack).sum(0)
    p = (1 + reached) / (1 + draws)
    for column in np.flatnonzero((parts != 0).sum(0) <= _EXACT):
        p[column] = _all_flips(parts[parts[:, column] != 0, column], observed[column] - slack[column])
    return p


def _all_flips(parts: Array, observed: float) -> float:
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(parts)))).reshape(2 ** len(parts), len(parts))
    return float((np.abs(signs @ parts) >= observed).mean())


def corrected(p_values: Sequence[float]) -> list[tuple[float, float]]:
    """Return (Holm's p, Benjamini and Hochberg's q) of each, in the order given.

    Holm keeps the chance of any false alarm in the table below the level, however the tests are correlated; q below .1
    says that a tenth of the rows up to there may be false alarms (for independent or positively dependent tests).
    """
    if not p_values:
        return []
    q = stats.false_discovery_control(list(p_values), method="bh")
    return [(h, float(each)) for h, each in zip(holm(p_values), q, strict=True)]


class Spread(NamedTuple):
    """What the precision of one difference depends on.

    `n` statements are behind it, `discordance` is the mean of their squared differences (with one wording: the share of
    statements that just one of the models has right); `design_effect` is how many times larger its variance is than
    that of `n` independent statements; `images` is the number of units, `wordings` that of questions per statement.
    """

    n: float
    discordance: float
    design_effect: float
    images: int
    wordings: float = 1.0


def spreads(image_parts: Array, image_weights: Array, parts: Array, weights: Array, *, wordings: Array) -> list[Spread]:
    """Return the spread of G differences, each a weighted sum over statements.

    `image_parts` and `image_weights` are (I, G), `parts` and `weights` (K, G): what an image or a statement adds to the
    difference, and its share of the weight, which sums to 1 in each group; `wordings` (G,) as in Spread. The design
    effect is the ratio of the two variances that result with images and with statements as units (Kish 1965), at least
    1: a sample that by chance is less correlated must not be trusted more. Without any difference it is the mean number
    of statements per image.
    """
    images, n = (image_weights > 0).sum(0), 1 / (weights**2).sum(0)
    discordance = n * (parts**2).sum(0)
    by_image, by_statement = (
        (units / np.maximum(units - 1, 1)) * ((p - w * p.sum(0)) ** 2).sum(0)
        for units, p, w in ((images, image_parts, image_weights), ((weights > 0).sum(0), parts, weights))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(by_statement > 1e-18, by_image / by_statement, n / images)
    rows: Any = zip(n, discordance, np.maximum(effect, 1.0), images, wordings, strict=True)
    return [Spread(float(a), float(b), float(c), int(d), float(e)) for a, b, c, d, e in rows]


def detectable(spread: Spread, *, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the smallest true difference that a sample of this size and spread shows in `power` of cases, two-sided.

    Solves Connor's (1987) equation for pairs, d = t1 sqrt(v D) + t2 sqrt(v (D - d^2)), with D the discordance and
    v = design effect / n; t1 and t2 are quantiles at 1 - alpha / 2 and `power` of Student's t with images - 1 degrees
    of freedom instead of the normal's, for samples of few pictures. Half a question is added to each cell of the table
    of pairs (Agresti & Min 2005), so that a sample without a discordant pair does not promise to show everything, and D
    is at least what d itself requires.
    600 independent rows with a discordance of .12 show 4 points. None if no difference could be shown.
    """
    if spread.images < 2:
        return None
    low, high = (float(stats.t.ppf(q, spread.images - 1)) for q in (1 - alpha / 2, power))
    added = 1 / spread.wordings  # half a question per cell, in statements
    discordance = (spread.n * spread.discordance + added) / (spread.n + 2 * added)
    v = spread.design_effect / spread.n

    def shortfall(d: float) -> float:
        # a difference of d requires that much discordance: at least d / wordings, and at least d^2
        needed = max(discordance, d / spread.wordings, d * d)
        return low * math.sqrt(v * needed) + high * math.sqrt(v * (needed - d * d)) - d

    return float(optimize.brentq(shortfall, 0.0, 1.0)) if shortfall(1.0) < 0 else None
