"""Tests for two models that answered the same questions, and what a sample of a given size can show.

Answers about one picture hang together, so a test that counts questions as independent finds differences that are not
there. McNemar's test is such a one: it is given for one wording at a time, beside a test whose units are the pictures.
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
"""Up to so many images with a difference all sign patterns are gone through (2^13 = 8,192), above they are drawn."""
_CHUNK = 1000


class McNemar(NamedTuple):
    """Two-sided p-values for `a_only` questions that A alone has right against `b_only` that B alone has."""

    a_only: int
    b_only: int
    exact: float
    mid_p: float


def mcnemar(a_only: int, b_only: int) -> McNemar:
    """McNemar's exact conditional test and its mid-p variant (Fagerland, Lydersen & Laake 2013).

    Under the null hypothesis the discordant questions fall to either side like a fair coin. The exact test is
    conservative; mid-p takes off the probability of what was seen and comes close to the level. Both take every
    question as independent, which questions about one picture are not.
    """
    n, least = a_only + b_only, min(a_only, b_only)
    if n == 0:
        return McNemar(0, 0, 1.0, 1.0)
    exact = float(stats.binomtest(least, n, 0.5).pvalue)
    below, here = stats.binom.cdf(least - 1, n, 0.5), stats.binom.pmf(least, n, 0.5)
    return McNemar(a_only, b_only, exact, float(min(1.0, 2 * below + here)))


def sign_flip(parts: Array, *, draws: int = 10_000, seed: int = 0) -> Array:
    """Two-sided p-values (G,) for a difference of 0, with images as units.

    `parts` (I, G) holds what each image adds to each of G differences. Where two models are alike, which of them an
    image's answers belong to could be swapped, all of that image's at once: its part changes sign. p is the share of
    swaps that give a difference as large. With one question an image this is McNemar's exact test; its normal
    approximation is the test of Obuchowski (1998) for clustered pairs, as in Durkalski et al. (2003). Exact up to
    13 images with a difference, by seeded draws above, where p cannot be less than 1 / (draws + 1).
    """
    observed = np.abs(parts.sum(0))
    slack = 1e-9 * np.abs(parts).sum(0)  # sums that are equal but for rounding count as equal
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
    """(Holm's p, Benjamini and Hochberg's q) of each, in the order given.

    Holm holds the chance of any false alarm in the table below the level, however the tests hang together; q below .1
    says that a tenth of the rows as far up may be false alarms (for tests that are independent or lean the same way).
    """
    if not p_values:
        return []
    q = stats.false_discovery_control(list(p_values), method="bh")
    return [(h, float(each)) for h, each in zip(holm(p_values), q, strict=True)]


class Spread(NamedTuple):
    """What the precision of one difference hangs on.

    `n` statements stand behind it, `discordance` is the mean of their squared differences (with one wording: the share
    of statements that just one of the models has right); `design_effect` is how many times larger its variance is than
    that of `n` independent statements; `images` is the number of units, `wordings` that of questions a statement.
    """

    n: float
    discordance: float
    design_effect: float
    images: int
    wordings: float = 1.0


def spreads(image_parts: Array, image_weights: Array, parts: Array, weights: Array, *, wordings: Array) -> list[Spread]:
    """The spread of G differences, each a weighted sum over statements.

    `image_parts` and `image_weights` are (I, G), `parts` and `weights` (K, G): what an image or a statement adds to the
    difference, and its share of the weight, which sums to 1 in each group; `wordings` (G,) as in Spread. The design
    effect is the ratio of the two variances that result with images and with statements as units (Kish 1965), at least
    1: a sample that by chance hangs together less must not be trusted more. Without any difference it is the mean
    number of statements an image.
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
    """The smallest true difference that a sample of this size and spread shows in `power` of all cases, two-sided.

    Solves Connor's (1987) equation for pairs, d = t1 sqrt(v D) + t2 sqrt(v (D - d^2)), with D the discordance and
    v = design effect / n; t1 and t2 are quantiles at 1 - alpha / 2 and `power` of Student's t with images - 1 degrees
    of freedom in place of the normal's, for samples of few pictures. Half a question is added to each cell of the table
    of pairs (Agresti & Min 2005), so that a sample without a discordant pair does not promise to show everything, and D
    is no less than d itself needs.
    600 independent rows with a discordance of .12 show 4 points. None where no difference could be shown.
    """
    if spread.images < 2:
        return None
    low, high = (float(stats.t.ppf(q, spread.images - 1)) for q in (1 - alpha / 2, power))
    added = 1 / spread.wordings  # half a question a cell, in statements
    discordance = (spread.n * spread.discordance + added) / (spread.n + 2 * added)
    v = spread.design_effect / spread.n

    def shortfall(d: float) -> float:
        # a difference of d takes at least that much discordance: d / wordings of it, and no less than d^2
        needed = max(discordance, d / spread.wordings, d * d)
        return low * math.sqrt(v * needed) + high * math.sqrt(v * (needed - d * d)) - d

    return float(optimize.brentq(shortfall, 0.0, 1.0)) if shortfall(1.0) < 0 else None
