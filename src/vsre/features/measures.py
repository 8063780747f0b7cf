"""Measures on feature vectors that compare encoders, relations and stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.errors import VsreError

Array = NDArray[np.floating[Any]]


def linear_cka(a: Array, b: Array) -> float:
    """Linear centred kernel alignment of two sets of features (n, C) and (n, D) of the same n things, in [0, 1].

    ||Bc' Ac||_F^2 / (||Ac' Ac||_F ||Bc' Bc||_F) with columns centred (Kornblith et al., arXiv 1905.00414, section 3).
    1 where one is a rotation and scaling of the other; a set without variance gives 0. Raises VsreError where the
    numbers of things differ.
    """
    if len(a) != len(b):
        raise VsreError(
            f"Features of {len(a)} and of {len(b)} things cannot be compared: give those of the same things."
        )
    a, b = (np.asarray(x, np.float64) - np.mean(x, 0, dtype=np.float64) for x in (a, b))
    own = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(b.T @ a) ** 2 / own) if own > 0 else 0.0


def effective_rank(features: Array) -> float:
    """How many directions features (n, C) really use: exp of the entropy of their normalised singular values, columns
    centred (Roy and Vetterli, EUSIPCO 2007). Between 1 and min(n, C); 0 for features without variance."""
    centred = np.asarray(features, np.float64) - np.mean(features, 0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False)
    if values.sum() <= 0:
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def class_distances(features: Array, classes: Sequence[str]) -> dict[str, Any]:
    """How tightly the features (n, C) of a class lie together, and how far apart classes lie.

    `within`: class -> mean Euclidean distance between two different members; `between` the mean distance between
    members of different classes; `mean_within` the mean over classes. All are divided by the mean distance between any
    two of the n, so that 1 means no structure and widths and scales do not matter: arXiv 2412.18224 (Table 4) gives an
    intra-class distance without saying how it was normalised. `ratio` is mean_within / between. Classes of one member
    are left out. Raises VsreError where no two classes have two members.
    """
    names = np.asarray(classes)
    kept = [name for name in sorted(set(classes)) if (names == name).sum() > 1]
    if len(kept) < 2:
        raise VsreError("Distances between classes need two classes with two members each.")
    chosen = np.isin(names, kept)
    x, names = np.asarray(features, np.float64)[chosen], names[chosen]
    squares = (x**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * x @ x.T, 0.0))
    n = len(x)
    whole = distances.sum() / (n * (n - 1))
    if whole == 0:
        raise VsreError("All features are the same: there is no distance between them.")
    same = names[:, None] == names[None]
    within = {}
    for name in kept:
        members = names == name
        k = int(members.sum())
        within[name] = round(float(distances[np.ix_(members, members)].sum() / (k * (k - 1)) / whole), 4)
    between = float(distances[~same].mean() / whole)
    mean = float(np.mean(list(within.values())))
    return {
        "within": within,
        "mean_within": round(mean, 4),
        "between": round(between, 4),
        "ratio": round(mean / between, 4),
        "n": {name: int((names == name).sum()) for name in kept},
    }
