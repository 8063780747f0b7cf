"""Choosing which combinations of factors to run, and estimating the factors' effects from the runs.

All combinations of four encoders, three ways to expand the data and two sizes are 15 x 8 x 2 = 240 models. A linear
model of main effects and the interactions of all pairs has 37 unknowns, so 48 well-chosen runs are enough: those that
make det(X'X) large, where X has a row for each run and a column for each effect (a D-optimal design: the joint
confidence region of all effects has the smallest volume). They are found by exchange: run by run, each is swapped for
the candidate that raises the determinant most, until none does (Fedorov's exchange, as modified by Cook and Nachtsheim
1980), from several random starts with fixed seeds. Their order is chosen by the same determinant for main effects
alone, so that an unfinished experiment estimates as much as possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from vsre.errors import VsreError
from vsre.experiments.schema import Fraction
from vsre.recipes.expand import grid_models
from vsre.recipes.near import nearest

Matrix = NDArray[np.float64]
JOIN = " x "
"""Joins the two factors of an interaction."""

STARTS = 8
RIDGE = 1e-6
ENOUGH = 4
"""Fewest degrees of freedom for interactions in a part of a fraction: Student's t is 12.7, 4.3, 3.2, 2.8 for 1 to 4."""
INFLATED = 10.0
"""Largest variance inflation factor with interactions: "certainly not as large as 10" (Marquardt 1970)."""


def model_matrix(factors: Sequence[Mapping[str, Any]], effects: Sequence[str]) -> Matrix:
    """Return X (runs, 1 + effects): ones, then each effect; factors 0/1 are coded -1/+1, interactions are products.

    With this coding a main effect's coefficient is half the difference between on and off, averaged over the other
    factors. Raises VsreError for an effect with a factor that some run lacks or has as other than 0 or 1.
    """
    names = {part for effect in effects for part in effect.split(JOIN)}
    for number, run in enumerate(factors, 1):
        for name in sorted(names):
            if name not in run:
                raise VsreError(f"effects: arm {number} has no factor {name!r}. {nearest(name, run)}")
            if run[name] not in (0, 1):
                raise VsreError(f"effects: {name!r} is {run[name]!r} in arm {number}; a factor is off or on, 0 or 1.")
    coded = {n: np.array([2.0 * float(run[n]) - 1.0 for run in factors]) for n in names}
    columns = [np.prod([coded[part] for part in effect.split(JOIN)], axis=0) for effect in effects]
    return np.column_stack([np.ones(len(factors)), *columns])


def chosen_models(fraction: Fraction) -> list[dict[str, Any]]:
    """Return the models of a fraction, as in a recipe file: those of `whole` in grid order, then the chosen ones.

    Each chosen one adds the most information on the main effects to those before it. Raises VsreError if so many runs,
    or all possible ones, cannot estimate the effects with a degree of freedom left.
    """
    models = [*grid_models([fraction.axes], "fraction")]
    matrix = model_matrix([m.get("factors", {}) for m in models], fraction.effects)
    runs, unknown = min(fraction.runs, len(models)), matrix.shape[1]
    if runs <= unknown:
        raise VsreError(f"fraction: {runs} runs for a mean and {unknown - 1} effects; it takes at least {unknown + 1}.")
    if np.linalg.matrix_rank(matrix) < unknown:
        raise VsreError("fraction: some effects are confounded in all combinations. Leave out the redundant ones.")
    if runs == len(models):
        return models
    fixed = _whole(fraction)
    if runs < len(fixed):
        raise VsreError(f"fraction: {runs} runs, but `whole` alone takes {len(fixed)}.")
    chosen = _d_optimal(tuple(map(tuple, matrix.tolist())), fixed, runs)
    if np.linalg.matrix_rank(matrix[chosen]) < unknown:
        raise VsreError(f"fraction: {runs} runs cannot separate {unknown - 1} effects. Give it more runs.")
    main = [0, *(at for at, effect in enumerate(fraction.effects, 1) if JOIN not in effect)]
    return [models[at] for at in _most_telling_first(matrix[:, main], fixed, chosen)]


def _whole(fraction: Fraction) -> tuple[int, ...]:
    """Return the indices of the combinations that are always included."""
    if not fraction.whole:
        return ()
    sizes = [len(items) for items in fraction.axes.values()]
    places = np.unravel_index(np.arange(np.prod(sizes)), sizes)
    kept = np.ones(len(places[0]), bool)
    for at, (axis, items) in zip(places, fraction.axes.items(), strict=True):
        if axis in fraction.whole:
            kept &= at == [item.get("name") for item in items].index(fraction.whole[axis])
    return tuple(np.flatnonzero(kept).tolist())


@cache
def _d_optimal(rows: tuple[tuple[float, ...], ...], fixed: tuple[int, ...], runs: int) -> list[int]:
    """Return the indices of the chosen candidates, sorted: the fixed ones are among them, and none is chosen twice."""
    candidates = np.array(rows)
    best, best_value = [], -np.inf
    for start in range(STARTS):
        rng = np.random.default_rng(start)
        free = rng.choice(np.setdiff1d(np.arange(len(rows)), fixed), runs - len(fixed), replace=False)
        chosen = [*fixed, *free.tolist()]
        value = _exchange(candidates, len(fixed), chosen)
        if value > best_value + 1e-9:
            best, best_value = sorted(chosen), value
    return best


def _exchange(candidates: Matrix, fixed: int, chosen: list[int]) -> float:
    """Swap runs of `chosen` in place, except the first `fixed`, while log det(X'X + ridge) rises; return its value."""
    improved = True
    while improved:
        improved = False
        for run in range(fixed, len(chosen)):
            others = [at for place, at in enumerate(chosen) if place != run]
            information = candidates[others].T @ candidates[others] + RIDGE * np.eye(candidates.shape[1])
            # det(M + x x') = det(M) (1 + x' M^-1 x): the candidate with the largest quadratic form is the best.
            gains = np.einsum("ij,jk,ik->i", candidates, np.linalg.inv(information), candidates)
            gains[others] = -np.inf
            better = int(np.argmax(gains))
            if gains[better] > gains[chosen[run]] * (1 + 1e-9):
                chosen[run], improved = better, True
    x = candidates[chosen]
    return float(np.linalg.slogdet(x.T @ x + RIDGE * np.eye(x.shape[1]))[1])


def _most_telling_first(candidates: Matrix, fixed: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Order `chosen`: the fixed ones first, then always the one that raises det(X'X) most."""
    ordered, left = [*fixed], [at for at in chosen if at not in fixed]
    while left:
        information = candidates[ordered].T @ candidates[ordered] + RIDGE * np.eye(candidates.shape[1])
        gains = np.einsum("ij,jk,ik->i", candidates[left], np.linalg.inv(information), candidates[left])
        # Rounded: ties broken by floating-point noise would change the order from machine to machine.
        ordered.append(left.pop(int(np.argmax(np.round(gains / gains.max(), 6)))))
    return ordered


def told_apart(factors: Sequence[Mapping[str, Any]], effects: Sequence[str]) -> list[str]:
    """Return the effects that some of a fraction's runs can estimate: those of factors that vary among them.

    All of these if the runs separate them, leave ENOUGH degrees of freedom and inflate no variance INFLATED times, else
    the main effects alone, else none: such intervals would be several times as wide as the bias from leaving
    interactions out.
    """
    names = {part for effect in effects for part in effect.split(JOIN)}
    varies = {name for name in names if len({run[name] for run in factors}) > 1}
    several = [effect for effect in effects if varies.issuperset(effect.split(JOIN))]
    for some in (several, [effect for effect in several if JOIN not in effect]):
        x = model_matrix(factors, some)
        joint = any(JOIN in effect for effect in some)
        if not some or len(x) - x.shape[1] < (ENOUGH if joint else 1) or np.linalg.matrix_rank(x) < x.shape[1]:
            continue
        if not joint or variance_inflation(x).max() < INFLATED:
            return some
    return []


def variance_inflation(x: Matrix) -> NDArray[np.float64]:
    """Return (1 + effects,) the variance of each coefficient over that in an orthogonal design of as many runs."""
    return len(x) * np.diag(np.linalg.inv(x.T @ x))


def fit_effects(factors: Sequence[Mapping[str, Any]], effects: Sequence[str], drawn: Matrix) -> list[dict[str, Any]]:
    """Estimate what each effect adds: on minus off, in the unit of the figure.

    `drawn` (runs, 1 + R): a figure on the data and on resamples of the test pictures, the same resample in a column.

    Each row is {"effect", "value", "low", "high", "p", "pictures": [low, high], "degrees"}: bounds and p by Student's t
    from the linear model's residuals, with so many degrees of freedom; `pictures`: percentiles for these runs. An
    interaction's value is how much more one factor adds when the other is on. Residuals of zero say nothing about
    chance: p is 1 then. Raises VsreError if no degree of freedom is left or effects cannot be separated.
    """
    x = model_matrix(factors, effects)
    left = len(x) - x.shape[1]
    if left < 1 or np.linalg.matrix_rank(x) < x.shape[1]:
        raise VsreError(f"{len(x)} runs cannot separate a mean and {x.shape[1] - 1} effects.")
    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ drawn  # (1 + effects, 1 + R)
    residuals = drawn[:, 0] - x @ coefficients[:, 0]
    error = np.sqrt(residuals @ residuals / left * np.diag(inverse))
    half = stats.t.ppf(0.975, left)
    found = []
    for at, effect in enumerate(effects, 1):
        # Coded -1/+1: the difference between on and off is twice the coefficient, for an interaction four times.
        times = 2.0 ** len(effect.split(JOIN))
        values, spread = times * coefficients[at], times * error[at]
        low, high = np.percentile(values[1:], (2.5, 97.5)) if values.size > 1 else (np.nan, np.nan)
        found.append(
            {
                "effect": effect,
                "value": float(values[0]),
                "low": float(values[0] - half * spread),
                "high": float(values[0] + half * spread),
                "p": float(2 * stats.t.sf(abs(values[0]) / spread, left)) if spread > 1e-12 else 1.0,
                "pictures": [float(low), float(high)],
                "degrees": left,
            }
        )
    return found
