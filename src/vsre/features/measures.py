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

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of K = A A' and L = B B', with the unbiased estimator of HSIC (Song et al.,
    JMLR 13, 2012), as in Nguyen et al. (arXiv 2010.15327, section 3); an estimate below 0 gives 0. With
    the biased one (Kornblith et al., arXiv 1905.00414), two encoders that have nothing in common reach .5 as
    soon as they are as wide as there are things. 1 if one is a rotation and scaling of the other; a set without
    variance gives 0. Raises VsreError if the numbers of things differ or are below 4.
    """
    if len(a) != len(b):
        raise VsreError(
            f"Features of {len(a)} and of {len(b)} things cannot be compared: give those of the same things."
        )
    if len(a) < 4:
        raise VsreError(f"Alignment of {len(a)} things cannot be estimated: give 4 at least.")
    one, other = _centred_gram(a), _centred_gram(b)
    own = np.linalg.norm(one) * np.linalg.norm(other)
    return float(np.clip((one * other).sum() / own, 0.0, 1.0)) if own > 0 else 0.0


def _centred_gram(features: Array) -> Array:
    """The matrix (n, n) of scalar products, U-centred: the diagonal is 0, and rows and columns sum to 0. The sum of two
    such matrices' elementwise products over n (n - 3) is the unbiased HSIC (Szekely and Rizzo, 2014).
    """
    x = np.asarray(features, np.float64)
    centred = x - x.mean(0)
    if np.linalg.norm(centred) <= 1e-12 * np.linalg.norm(x):  # rounding of the mean is not variance
        return np.zeros((len(x), len(x)))
    gram, n = centred @ centred.T, len(x)
    np.fill_diagonal(gram, 0.0)
    sums = gram.sum(0)
    gram = gram - sums[:, None] / (n - 2) - sums[None] / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0.0)
    return np.asarray(gram)


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
    are left out. Raises VsreError unless two classes have two members each.
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
