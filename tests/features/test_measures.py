"""Alignment, rank and distances of feature vectors, against values known by hand and against laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.features import class_distances, effective_rank, linear_cka


def cloud(seed: int, n: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width))


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), width=st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_alignment_does_not_see_rotation_scale_or_shift(seed: int, scale: float, width: int) -> None:
    a = cloud(seed, 40, width)
    turn = np.linalg.qr(cloud(seed + 1, width, width))[0]
    assert linear_cka(a, scale * a @ turn + 3.0) == pytest.approx(1.0)
    b = cloud(seed + 2, 40, width + 1)
    assert linear_cka(a, b) == pytest.approx(linear_cka(b, a))
    assert 0 <= linear_cka(a, b) <= 1


def hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased estimator as arXiv 2010.15327 writes it, term by term."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    product = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float(product - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3))


@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_that_of_the_formula(seed: int) -> None:
    a = cloud(seed, 7, 3)
    b = np.concatenate([a[:, :1], cloud(seed + 9, 7, 2)], 1) + 5.0
    k, m = a @ a.T, b @ b.T
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert linear_cka(a, b) == pytest.approx(max(0.0, expected))
    assert linear_cka(a, a) == pytest.approx(1.0)


def test_alignment_of_what_has_nothing_in_common() -> None:
    a, b = cloud(0, 300, 400), cloud(1, 300, 500)
    assert linear_cka(a, b) < 0.01  # the biased estimator gives .6 where features are wider than things are many
    half = np.concatenate([a, b], 1)  # has all of a and as much beside it
    assert linear_cka(a, half) == pytest.approx(np.sqrt(400 / 900), abs=0.01)
    assert linear_cka(a, np.full((300, 3), 0.1)) == 0
    with pytest.raises(VsreError, match="of 300 and of 3 things"):
        linear_cka(a, b[:3])
    with pytest.raises(VsreError, match="give 4 at least"):
        linear_cka(a[:3], b[:3])


def test_rank_counts_directions() -> None:
    corners = np.concatenate([np.eye(5), -np.eye(5)])
    assert effective_rank(corners) == pytest.approx(5)
    assert effective_rank(np.outer(np.arange(9.0), np.ones(4))) == pytest.approx(1)
    assert effective_rank(np.ones((6, 3))) == 0


def test_distances_of_two_tight_classes() -> None:
    points = np.array([[0.0, 0], [0, 1], [10, 0], [10, 1], [99, 99]])
    found = class_distances(points, ["a", "a", "b", "b", "alone"])
    far = np.sqrt(101)
    whole = (1 + 1 + 2 * 10 + 2 * far) / 6
    assert found["within"] == {"a": round(1 / whole, 4), "b": round(1 / whole, 4)}
    assert found["between"] == pytest.approx((10 + far) / 2 / whole, abs=1e-4)
    assert found["ratio"] == pytest.approx(2 / (10 + far), abs=1e-4)
    assert found["n"] == {"a": 2, "b": 2}


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 1000))
@settings(max_examples=25, deadline=None)
def test_without_structure_every_distance_is_one_whatever_the_scale(seed: int, scale: float) -> None:
    points = scale * cloud(seed, 400, 30)
    found = class_distances(points, ["abcd"[i % 4] for i in range(400)])
    assert found["mean_within"] == pytest.approx(1, abs=0.05)
    assert found["between"] == pytest.approx(1, abs=0.05)


def test_classes_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(VsreError, match="two classes"):
        class_distances(cloud(0, 4, 2), ["a", "a", "b", "c"])
    with pytest.raises(VsreError, match="are the same"):
        class_distances(np.ones((4, 2)), ["a", "a", "b", "b"])
