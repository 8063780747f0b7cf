"""Which runs a fraction chooses, and that effects planted in figures are found again."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.experiments.design import Matrix, chosen_models, fit_effects, model_matrix, told_apart, variance_inflation
from vsre.experiments.files import load_experiment
from vsre.experiments.schema import Fraction
from vsre.recipes.expand import grid_models

NAMES = ["a", "b", "c"]
EFFECTS = [*NAMES, "a x b", "b x c", "a x b x c"]
GRID = [dict(zip(NAMES, on, strict=True)) for on in itertools.product((0, 1), repeat=3)]
SIZES = st.lists(st.floats(-1, 1), min_size=len(EFFECTS), max_size=len(EFFECTS))


def figure(factors: dict[str, int], sizes: list[float], mean: float) -> float:
    """By hand: half an effect up where its factor is on, half down where off; of interactions a quarter, an eighth."""
    return mean + sum(
        size * float(np.prod([2 * factors[part] - 1 for part in effect.split(" x ")])) / 2 ** len(effect.split(" x "))
        for effect, size in zip(EFFECTS, sizes, strict=True)
    )


@given(SIZES, st.floats(0, 1), st.permutations(GRID))
@settings(max_examples=50, deadline=None)
def test_planted_effects_are_found_exactly(sizes: list[float], mean: float, order: list[dict[str, int]]) -> None:
    drawn = np.array([[figure(f, sizes, mean)] * 3 for f in order])
    found = fit_effects(order, EFFECTS, drawn)
    assert [row["effect"] for row in found] == EFFECTS
    assert [row["value"] for row in found] == pytest.approx(sizes, abs=1e-9)
    assert all(row["low"] <= row["value"] + 1e-9 and row["degrees"] == 1 for row in found)
    assert [row["pictures"] for row in found] == [pytest.approx([size, size], abs=1e-9) for size in sizes]


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=20, deadline=None)
def test_an_interaction_is_what_one_adds_more_where_the_other_is_on(a: float, b: float, both: float) -> None:
    """Said in on and off, not in the code's -1 and +1: two factors, and a bonus where both are on."""
    runs = [dict(zip("ab", on, strict=True)) for on in itertools.product((0, 1), repeat=2)] * 2
    drawn = np.array([[a * r["a"] + b * r["b"] + both * r["a"] * r["b"]] for r in runs])
    values = {row["effect"]: row["value"] for row in fit_effects(runs, ["a", "b", "a x b"], drawn)}
    assert values == pytest.approx({"a": a + both / 2, "b": b + both / 2, "a x b": both}, abs=1e-9)


def test_bounds_and_p_are_those_of_a_t_test() -> None:
    """One factor of two groups: the linear model is the two-sample t-test with equal variances."""
    from scipy import stats

    off, on = [0.50, 0.53, 0.49, 0.52], [0.58, 0.61, 0.57, 0.55]
    runs = [{"a": 0}] * 4 + [{"a": 1}] * 4
    [row] = fit_effects(runs, ["a"], np.array([off + on]).T)
    test = stats.ttest_ind(on, off)
    bounds = test.confidence_interval(0.95)
    assert row["p"] == pytest.approx(test.pvalue) and row["degrees"] == 6
    assert (row["low"], row["high"]) == pytest.approx((bounds.low, bounds.high))


def test_no_factor_is_found_in_noise_more_often_than_it_may() -> None:
    rng = np.random.default_rng(0)
    found = [fit_effects(GRID, NAMES, rng.normal(size=(8, 1)))[0]["p"] < 0.05 for _ in range(400)]
    assert 0.02 < np.mean(found) < 0.09


def test_runs_that_cannot_tell_are_refused() -> None:
    with pytest.raises(VsreError, match="4 runs cannot separate a mean and 3 effects"):
        fit_effects(GRID[:4], NAMES, np.zeros((4, 1)))
    with pytest.raises(VsreError, match="cannot separate"):
        fit_effects([{"a": v, "b": v} for v in (0, 1)] * 3, ["a", "b"], np.zeros((6, 1)))


def test_a_factor_is_there_and_on_or_off() -> None:
    with pytest.raises(VsreError, match=r"arm 1 has no factor 'rewrit'\. Did you mean 'rewrite'"):
        model_matrix([{"rewrite": 1}], ["rewrit"])
    with pytest.raises(VsreError, match=r"'size' is 2500.*0 or 1"):
        model_matrix([{"size": 2500}], ["size"])


def efficiency(matrix: Matrix) -> float:
    """D-efficiency, det(X'X)^(1/p) / n: 1 for an orthogonal design."""
    sign, log = np.linalg.slogdet(matrix.T @ matrix)
    return float(np.exp(log / matrix.shape[1]) / len(matrix)) if sign > 0 else 0.0


def test_the_shipped_fraction() -> None:
    fraction = load_experiment("gain").fraction
    assert fraction is not None
    arms = chosen_models(fraction)
    names = [arm["name"] for arm in arms]
    assert len(arms) == len(set(names)) == 48
    first = arms[:15]
    assert all(arm["name"].endswith(", rewrite (large)") for arm in first)
    assert len({tuple(arm["start"]["encoders"]) for arm in first}) == 15, "every set of encoders"
    factors = [arm["factors"] for arm in arms]
    assert {len(arm) for arm in factors} == {8}
    asked = {frozenset(effect.split(" x ")) for effect in fraction.effects}
    assert asked == {frozenset(some) for n in (1, 2) for some in itertools.combinations(factors[0], n)}, "no pair lacks"
    reached = efficiency(model_matrix(factors, fraction.effects))
    every = model_matrix([m["factors"] for m in grid_models([fraction.axes], "all")], fraction.effects)
    rng = np.random.default_rng(0)
    at_random = [efficiency(every[rng.choice(len(every), 48, replace=False)]) for _ in range(200)]
    assert max(at_random) < reached
    assert (round(reached, 2), round(float(np.median(at_random)), 2), round(efficiency(every), 2)) == (0.77, 0.6, 0.98)
    assert chosen_models(fraction) == arms, "the same on every call"
    main = model_matrix(factors, list(factors[0]))
    grid = [arm for model in grid_models([fraction.axes], "all") for arm in arms[15:] if arm["name"] == model["name"]]
    as_in_grid = model_matrix([arm["factors"] for arm in (*first, *grid)], list(factors[0]))
    for done in (20, 25, 30):
        assert efficiency(main[:done]) > efficiency(as_in_grid[:done]), "what is done first tells most"
    assert told_apart(factors, fraction.effects) == fraction.effects
    assert told_apart(factors[:45], fraction.effects) == list(factors[0]), "enough degrees, but nearly collinear"
    assert (
        variance_inflation(model_matrix(factors, fraction.effects)).max()
        < 2.1
        < 12
        < (variance_inflation(model_matrix(factors[:45], fraction.effects)).max())
    )


def test_effects_that_some_of_the_runs_can_tell() -> None:
    every = [dict(zip("abc", bits, strict=True)) for bits in itertools.product((0, 1), repeat=3)]
    asked = ["a", "b", "c", "a x b"]
    assert told_apart(every + every[:1], asked) == asked
    assert told_apart(every, asked) == ["a", "b", "c"], "three degrees of freedom are few for an interaction"
    assert told_apart([run for run in every if run["c"]], asked) == ["a", "b"], (
        "four runs have no degree left for a x b"
    )
    assert told_apart(every[:3], asked) == [] and told_apart(every[:1], asked) == []


def axes(**sizes: int) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{"name": f"{name}{at}", "factors": {name: at % 2, f"{name}2": at // 2}} for at in range(size)]
        for name, size in sizes.items()
    }


@pytest.mark.parametrize(
    ("runs", "whole", "effects", "says"),
    [
        (5, {}, ["a", "a2", "b", "b2"], "5 runs for a mean and 4 effects; it takes at least 6"),
        (4, {"b": "b3"}, ["a", "b"], "4 runs cannot separate 2 effects"),
        (8, {}, ["a", "b", "c"], "no factor 'c'"),
    ],
)
def test_too_few_runs_are_refused(runs: int, whole: dict[str, str], effects: list[str], says: str) -> None:
    with pytest.raises(VsreError, match=says):
        chosen_models(Fraction(runs=runs, whole=whole, axes=axes(a=4, b=4), effects=effects))


def test_effects_that_no_run_can_tell_apart_are_refused() -> None:
    twins = {"a": [{"name": str(v), "factors": {"a": v, "twin": v}} for v in (0, 1)], **axes(b=4)}
    for runs in (6, 8):
        with pytest.raises(VsreError, match="some effects are confounded in all combinations"):
            chosen_models(Fraction(runs=runs, axes=twins, effects=["a", "twin"]))


def test_all_combinations_with_an_item_are_in_where_that_is_asked_for() -> None:
    fraction = Fraction(runs=9, whole={"b": "b2"}, axes=axes(a=4, b=4, c=2), effects=["a", "b", "c"])
    taken = [arm["name"] for arm in chosen_models(fraction)]
    assert len(taken) == len(set(taken)) == 9
    assert {f"a{a}, b2, c{c}" for a in range(4) for c in range(2)} < set(taken)
    one = fraction.model_copy(update={"whole": {"a": "a0", "b": "b2"}})
    assert {"a0, b2, c0", "a0, b2, c1"} < {arm["name"] for arm in chosen_models(one)}
    with pytest.raises(VsreError, match="7 runs, but `whole` alone takes 8"):
        chosen_models(fraction.model_copy(update={"runs": 7}))
    with pytest.raises(ValueError, match="whole: 'bb' is not an axis"):
        Fraction(runs=9, whole={"bb": "b2"}, axes=axes(a=4, b=4), effects=["a"])
    with pytest.raises(ValueError, match="no item of b is called 'b9'"):
        Fraction(runs=9, whole={"b": "b9"}, axes=axes(a=4, b=4), effects=["a"])


def test_all_combinations_are_taken_where_there_are_no_more() -> None:
    fraction = Fraction(runs=99, axes=axes(a=2, b=4), effects=["a", "b"])
    assert len(chosen_models(fraction)) == 8
