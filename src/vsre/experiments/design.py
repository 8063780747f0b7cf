"""Which of all combinations to run, and what the runs tell of each factor.

All combinations of four encoders, three ways to expand the data and two sizes are 15 x 8 x 2 = 240 models. A linear
model of main effects and a few interactions has some 25 unknowns, so 40 well-chosen runs settle it: those that make
det(X'X) large, X having a row for each run and a column for each effect (a D-optimal design: the volume of the joint
confidence region of all effects is the smallest). They are found by exchange: a run is swapped for the candidate that
raises the determinant most until none does (Fedorov 1972), from several random starts, by a fixed seed.
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

Matrix = NDArray[np.float64]
JOIN = " x "
"""Between two factors of an interaction."""

STARTS = 8
RIDGE = 1e-6


def model_matrix(factors: Sequence[Mapping[str, Any]], effects: Sequence[str]) -> Matrix:
    """X (runs, 1 + effects): ones, then each effect; a factor 0/1 is coded -1/+1, an interaction is their product.

    So coded, half an effect's difference between on and off is its coefficient, and main effects are averages over the
    other factors. Raises VsreError for an effect that the runs have no factor for.
    """
    names = {part for effect in effects for part in effect.split(JOIN)}
    for number, run in enumerate(factors, 1):
        if missing := sorted(n for n in names if not isinstance(run.get(n), int | float)):
            raise VsreError(f"arm {number} has no number for the factor {missing[0]!r} of an effect.")
    coded = {n: np.array([2.0 * float(run[n]) - 1.0 for run in factors]) for n in names}
    columns = [np.prod([coded[part] for part in effect.split(JOIN)], axis=0) for effect in effects]
    return np.column_stack([np.ones(len(factors)), *columns])


def chosen_models(fraction: Fraction) -> list[dict[str, Any]]:
    """The models of a fraction, as in a recipe file, in the order of the grid."""
    models = [*grid_models([fraction.axes], "fraction")]
    if fraction.runs >= len(models):
        return models
    items = [item.get("name") for item in fraction.axes[fraction.each]] if fraction.each else []
    axis = list(fraction.axes).index(fraction.each) if fraction.each else 0
    sizes = [len(values) for values in fraction.axes.values()]
    group = np.unravel_index(np.arange(len(models)), sizes)[axis]
    matrix = model_matrix([m.get("factors", {}) for m in models], fraction.effects)
    if fraction.runs < matrix.shape[1]:
        raise VsreError(f"fraction: {fraction.runs} runs cannot tell {matrix.shape[1]} effects apart.")
    if fraction.runs < 2 * len(items):
        raise VsreError(f"fraction: {fraction.runs} runs, but two of each {fraction.each} are {2 * len(items)}.")
    fixed = tuple(int(g) for g in np.repeat(np.arange(len(items)), 2))
    rows = tuple(map(tuple, matrix.tolist()))
    return [models[at] for at in _d_optimal(rows, tuple(map(int, group)), fixed, fraction.runs)]


@cache
def _d_optimal(
    rows: tuple[tuple[float, ...], ...], group: tuple[int, ...], fixed: tuple[int, ...], runs: int
) -> list[int]:
    """Places of the chosen candidates; the first len(fixed) runs are each bound to a group, none is taken twice."""
    candidates, groups = np.array(rows), np.array(group)
    best, best_value = [], -np.inf
    for start in range(STARTS):
        rng = np.random.default_rng(start)
        chosen: list[int] = []
        for bound in (*fixed, *[None] * (runs - len(fixed))):
            free = np.setdiff1d(np.flatnonzero(groups == bound) if bound is not None else np.arange(len(rows)), chosen)
            chosen.append(int(rng.choice(free)))
        value = _exchange(candidates, groups, fixed, chosen)
        if value > best_value + 1e-9:
            best, best_value = sorted(chosen), value
    return best


def _exchange(candidates: Matrix, groups: NDArray[np.int_], fixed: tuple[int, ...], chosen: list[int]) -> float:
    """Swap runs of `chosen` in place until no swap raises log det(X'X + ridge), which is returned."""
    improved = True
    while improved:
        improved = False
        for run in range(len(chosen)):
            others = [at for place, at in enumerate(chosen) if place != run]
            information = candidates[others].T @ candidates[others] + RIDGE * np.eye(candidates.shape[1])
            # det(M + x x') = det(M) (1 + x' M^-1 x): the candidate with the largest quadratic form is the best.
            gains = np.einsum("ij,jk,ik->i", candidates, np.linalg.inv(information), candidates)
            gains[others] = -np.inf
            if run < len(fixed):
                gains[groups != fixed[run]] = -np.inf
            better = int(np.argmax(gains))
            if gains[better] > gains[chosen[run]] * (1 + 1e-9):
                chosen[run], improved = better, True
    x = candidates[chosen]
    return float(np.linalg.slogdet(x.T @ x + RIDGE * np.eye(x.shape[1]))[1])


def efficiency(matrix: Matrix) -> float:
    """det(X'X)^(1/p) / n: 1 for an orthogonal design, 0 where effects cannot be told apart."""
    n, p = matrix.shape
    sign, log = np.linalg.slogdet(matrix.T @ matrix)
    return float(np.exp(log / p) / n) if sign > 0 else 0.0


def fit_effects(
    factors: Sequence[Mapping[str, Any]], effects: Sequence[str], drawn: Matrix, *, blocks: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """What each effect adds: on against off, in the unit of the figure.

    `drawn` (runs, 1 + R): a figure on the data and on resamples of the test pictures, the same resample in a column.
    `blocks`: runs with the same number share a mean of their own (a seed's world), a degree of freedom each.

    Each row is {"effect", "value", "low", "high", "p", "pictures": [low, high]}: bounds and p by Student's t from what
    the linear model leaves of the runs; over pictures: percentiles for these very runs. An interaction's value is how
    much more the one factor adds where the other is on. Raises VsreError where no degree of freedom is left.
    """
    matrix = model_matrix(factors, effects)
    numbers = np.zeros(len(matrix), int) if blocks is None else np.unique(np.asarray(blocks), return_inverse=True)[1]
    others = np.eye(numbers.max() + 1)[numbers][:, 1:]
    x = np.column_stack([matrix, others])
    left = len(x) - np.linalg.matrix_rank(x)
    if np.linalg.matrix_rank(x) < x.shape[1] or left < 1:
        raise VsreError(f"{len(x)} runs do not tell {x.shape[1]} effects apart.")
    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ drawn  # (effects, 1 + R)
    residuals = drawn[:, 0] - x @ coefficients[:, 0]
    error = np.sqrt(residuals @ residuals / left * np.diag(inverse))
    half = stats.t.ppf(0.975, left)
    found = []
    for at, effect in enumerate(effects, 1):
        # Coded -1/+1: the difference between on and off is twice the coefficient, of an interaction four times.
        times = 2.0 ** len(effect.split(JOIN))
        values, spread = times * coefficients[at], times * error[at]
        p = 2 * stats.t.sf(abs(values[0]) / spread, left) if spread > 1e-12 else 1.0
        low, high = np.percentile(values[1:], (2.5, 97.5)) if values.size > 1 else (np.nan, np.nan)
        found.append(
            {
                "effect": effect,
                "value": float(values[0]),
                "low": float(values[0] - half * spread),
                "high": float(values[0] + half * spread),
                "p": float(p),
                "pictures": [float(low), float(high)],
                "degrees": int(left),
            }
        )
    return found
