"""Intervals where plain resampling misleads: distances that cannot be below 0, and shares of 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest

from vsre.diagnose.bootstrap import Array, Bootstrap, Draws

IMAGES, WORDINGS = 120, 30


def gaps(rng: np.random.Generator, true_gap: float, *, shared: float, seed: int) -> Draws:
    """Accuracy on true less on false statements of each wording; `shared`: how much wordings have in common."""

    def right(share: float) -> Array:
        own, common = rng.random((IMAGES, WORDINGS)), rng.random((IMAGES, 1))
        return np.where(rng.random((IMAGES, WORDINGS)) < shared, common, own) < share

    yes, no = right(0.7 + true_gap / 2), right(0.7 - true_gap / 2)
    ones = np.ones((IMAGES, WORDINGS))
    bootstrap = Bootstrap(IMAGES, resamples=400, seed=seed)
    rates = [bootstrap.figures(np.divide, side.astype(float), ones) for side in (yes, no)]
    return rates[0].minus(rates[1])


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_a_model_that_leans_to_neither_side_may_have_a_gap_of_0(shared: float) -> None:
    """Chance makes every wording's gap larger than 0, and resampling once more: plain percentiles never reach 0."""
    rng, every = np.random.default_rng(0), np.arange(WORDINGS)
    reached = plain = 0
    for seed in range(20):
        drawn = gaps(rng, 0.0, shared=shared, seed=seed)
        found = drawn.mean_distance(every)
        assert found["low"] <= found["value"] <= found["high"]
        reached += found["low"] == 0
        plain += drawn.distance(every).figure()["low"] == 0
    assert reached >= 17 and plain == 0


def test_a_gap_that_is_there_is_inside_its_interval() -> None:
    rng, every = np.random.default_rng(1), np.arange(WORDINGS)
    inside = 0
    for seed in range(20):
        found = gaps(rng, 0.3, shared=0.3, seed=seed).mean_distance(every)
        inside += found["low"] <= 0.3 <= found["high"]
        assert found["low"] > 0.1 and found["high"] < 0.5
    assert inside >= 17


def test_a_distance_without_any_doubt_is_itself() -> None:
    drawn = Draws(np.full((50, 3), [1.0, -1.0, np.nan]))
    assert drawn.mean_distance(np.arange(3), 9) == pytest.approx({"value": 1, "low": 1, "high": 1, "n": 9}, abs=1e-3)
    nothing = {"value": None, "low": None, "high": None, "n": None}
    assert drawn.mean_distance(np.array([2])) == drawn.mean_distance(np.array([], int)) == nothing
    once = Draws(np.array([[0.25]])).mean_distance(np.array([0]))
    assert once == {"value": 0.25, "low": None, "high": None, "n": None}, "without resamples there is no interval"


def test_resamples_are_moved_to_the_value() -> None:
    drawn = Draws(np.array([[0.1, np.nan], [0.2, np.nan], [0.4, 0.3]])).centred()
    assert drawn.all[:, 0] == pytest.approx([0.1, 0.0, 0.2]) and np.isnan(drawn.all[:, 1]).all()


def test_all_right_is_not_known_exactly() -> None:
    """The exact interval of a share of so many images, not of so many questions."""
    right, asked = np.array([[5.0, 0], [5, 0], [5, 0], [5, 2]]), np.array([[5.0, 0], [5, 0], [5, 0], [5, 2]])
    drawn = Bootstrap(4).figures(np.divide, right, asked)
    assert drawn.figure(0, 20) == {"value": 1.0, "low": pytest.approx(0.05 ** (1 / 4)), "high": 1.0, "n": 20}
    assert drawn.figure(1, 2)["low"] == pytest.approx(0.05), "one image tells next to nothing"
    assert drawn.mean(np.array([0, 1])).figure()["low"] == pytest.approx(0.05 ** (1 / 4))
    none = Bootstrap(4).figures(np.divide, 0 * right, asked).figure(0)
    assert (none["value"], none["low"]) == (0.0, 0.0) and none["high"] == pytest.approx(1 - 0.05 ** (1 / 4))
    some = Bootstrap(4).figures(np.divide, right - np.array([[1.0, 0], [0, 0], [0, 0], [0, 0]]), asked).figure(0)
    assert some["low"] < 0.95 < 1 == some["high"]
