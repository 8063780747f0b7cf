"""What can be said about the labels: the blind floors, the ceiling set by people's votes, the balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import betaln  # type: ignore[import-untyped]
from scipy.stats import beta  # type: ignore[import-untyped]

from vsre.audit.rows import QUESTIONS, Row, Side
from vsre.diagnose.blind import Statement, blind_floor
from vsre.diagnose.bootstrap import Array, Bootstrap

TOLD = ("per_relation", "ngrams", "leave_one_out")
"""The guessers that know only a test row's words: above the better constant they show that captions reveal labels."""


def floors(train_side: Side, test_side: Side, *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Return `vsre.diagnose.blind.blind_floor` with three more guessers, which learn nothing.

    `constant` is the better of always true and always false on this test: anything above it has information. `opposite`
    says the opposite of the majority label of training rows with the same caption, `lookup_or_opposite` the label of
    the identical row if it is in training, else that; for captions that are new or even, both say the most common label
    of training. If a side is questions, whose captions are not known, only constant answers are given.
    """
    train, test = train_side.rows, test_side.rows
    if QUESTIONS in (*train_side.kinds, *test_side.kinds):
        return blind_floor(None, _statements(test), seed=seed, resamples=resamples) | {
            "constant": constant(test, seed=seed, resamples=resamples),
            "opposite": None,
            "lookup_or_opposite": None,
        }
    floor = blind_floor(_statements(train), _statements(test), seed=seed, resamples=resamples)
    floor["constant"] = constant(test, seed=seed, resamples=resamples)
    majority = 2 * sum(row.label for row in train) >= len(train)
    balance = Counter[str]()
    known: dict[tuple[int, str], bool] = {}
    for row in train:
        balance[row.words] += 1 if row.label else -1
        known[row.image, row.words] = row.label
    opposite = [balance[row.words] < 0 if balance[row.words] else majority for row in test]
    lookup = [known.get((row.image, row.words), guess) for row, guess in zip(test, opposite, strict=True)]
    for name, guesses in (("opposite", opposite), ("lookup_or_opposite", lookup)):
        right = np.array([guess == row.label for guess, row in zip(guesses, test, strict=True)], float)
        floor[name] = _mean(right, test, seed, resamples)
    return floor


def told(floor: dict[str, Any]) -> list[str]:
    """Return the guessers of TOLD whose interval is above the better constant's."""
    top = floor["constant"]["high"]
    return [
        n for n in TOLD if floor.get(n) and floor[n]["low"] is not None and top is not None and floor[n]["low"] > top
    ]


def ceiling(rows: Sequence[Row], *, seed: int = 0, resamples: int = 1000) -> dict[str, Any] | None:
    """Estimate, from the votes, the accuracy of someone who always says what most people would; None without votes.

    For each row a share of all people would say true. The shares follow a beta distribution, the votes on a row a
    binomial one with its share; the two parameters are fitted to all rows by maximum likelihood. A row then counts with
    the probability that its share is on the side of its label. The interval is over pictures, with fixed parameters.
    """
    voted = [row for row in rows if row.votes is not None]
    if not voted:
        return None
    patterns = Counter((row.votes, row.label) for row in voted if row.votes is not None)
    a, b = _fit(Counter(row.votes for row in voted if row.votes is not None))
    right = {
        (votes, label): float((beta.sf if label else beta.cdf)(0.5, a + votes[0], b + votes[1]))
        for votes, label in patterns
    }
    value = _mean(np.array([right[row.votes, row.label] for row in voted if row.votes]), voted, seed, resamples)
    against = [row.votes[row.label] for row in voted if row.votes is not None]  # votes for the other label
    outvoted = sum(2 * n > sum(row.votes or ()) for n, row in zip(against, voted, strict=True))
    dissent = sum(n > 0 for n in against)
    return value | {
        "rows_with_dissent": dissent,
        "share_with_dissent": dissent / len(voted),
        "rows_outvoted": outvoted,
        "votes": sum(sum(row.votes or ()) for row in voted),
        "votes_for_label": 1 - sum(against) / sum(sum(row.votes or ()) for row in voted),
        "beta": [a, b],
    }


def balance(train: Sequence[Row], test: Sequence[Row]) -> dict[str, Any]:
    """Return shares of true rows, and both sides' rows and true rows by relation, most frequent in the test first."""
    counts: dict[str, dict[str, Any]] = {}
    for side, rows in (("train", train), ("test", test)):
        for row in rows:
            entry = counts.setdefault(
                row.relation or "(none)", {f"{s}_{n}": 0 for s in ("train", "test") for n in ("rows", "true")}
            )
            entry[f"{side}_rows"] += 1
            entry[f"{side}_true"] += row.label
    ordered = sorted(counts.items(), key=lambda item: (-item[1]["test_rows"], -item[1]["train_rows"], item[0]))
    return {
        "train_true": sum(row.label for row in train) / len(train),
        "test_true": sum(row.label for row in test) / len(test),
        "by_relation": dict(ordered),
    }


def _statements(rows: Sequence[Row]) -> list[Statement]:
    return [Statement(str(row.image), row.words, row.relation, row.label) for row in rows]


def constant(rows: Sequence[Row], *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Return the accuracy of the better of always true and always false."""
    true = np.array([row.label for row in rows], float)
    return _mean(true if 2 * true.sum() >= len(true) else 1 - true, rows, seed, resamples)


def _mean(values: Array, rows: Sequence[Row], seed: int, resamples: int) -> dict[str, Any]:
    # In blind_floor's order, so that the same guesses get the same interval.
    numbers = {image: i for i, image in enumerate(sorted({row.image for row in rows}, key=str))}
    image = np.array([numbers[row.image] for row in rows], np.int64)
    bootstrap = Bootstrap(len(numbers), resamples=resamples, seed=seed)
    above, below = (bootstrap.per_image(image, np.zeros_like(image), 1, v) for v in (values, np.ones(len(rows))))
    return bootstrap.figures(np.divide, above, below).figure(0, len(rows))


def _fit(votes: Counter[tuple[int, int]]) -> tuple[float, float]:
    """Fit the beta distribution's parameters to how often rows have each (true, false) count of votes."""
    yes, no, times = (np.array(v, float) for v in zip(*((t, f, n) for (t, f), n in votes.items()), strict=True))

    def loss(logs: Array) -> float:
        a, b = np.exp(logs)
        return -float((times * (betaln(a + yes, b + no) - betaln(a, b))).sum())

    # Bounded: if all votes agree on every row, the likelihood grows without limit as both parameters go to 0.
    found = minimize(loss, np.log([0.2, 0.2]), method="L-BFGS-B", bounds=[(np.log(1e-3), np.log(1e3))] * 2)
    a, b = np.exp(found.x)
    return float(a), float(b)
