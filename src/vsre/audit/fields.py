"""Whether a field other than the label reveals it: learnt on training rows one field at a time, tried on the test.

A field's guess is the most common label of its value in training (the most common overall for a value never seen). A
field also reveals the label if some of its values come with only one label: `reference_frame` in VSR is set only on
true rows, which a majority over all rows hardly shows.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]

from vsre.audit.rows import Row, Side
from vsre.diagnose.bootstrap import Array, Bootstrap

IDENTITY, CONTENT, VOTES, PROVENANCE, OTHER = "identity", "content", "votes", "provenance", "other"
"""What a field is: which picture or row this is; what the row says; the votes its label was made from; what a model is
never shown; anything else."""

SEEN = 10
"""Training rows with one label that a value needs before it is taken to mean that label."""

GAIN = 0.02
LEVEL = 0.05

_KINDS = {
    IDENTITY: r"image|image_link|image_id|image_name|key|provenance\.(rows|source_image_id)",
    CONTENT: r"caption|relation|subj|obj|subject|object",
    VOTES: r"(provenance\.audit\.)?vote_(true|false)_validator_id",
    PROVENANCE: r"provenance\..+",
}


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, name)), OTHER)


def fields(train: Side, test: Side, *, seed: int = 0, resamples: int = 1000) -> list[dict[str, Any]]:
    """Return one entry per field of both sides with at least two values in training, the most revealing first.

    `accuracy` of the field's guess and its `gain` over the better constant answer have 95 % intervals; `one_label`
    counts test `rows` whose value has one label in training, in at least SEEN rows, and those that have it (`right`).
    `tells_label` is true if the gain passes GAIN and a one-sided test at LEVEL over all fields, or if one-label values
    cover 1 % of the test rows (and at least five) and 95 % of those have that label.
    """
    known = {name: train.column(name) for name in train.fields if name in test.fields}
    names = [name for name, column in known.items() if len(set(column)) > 1]
    if not names:
        return []
    truth = np.array([row.label for row in test.rows], bool)
    labels = [row.label for row in train.rows]
    majority = 2 * sum(labels) >= len(labels)
    right = np.empty((len(names), len(truth)), bool)
    sure: list[dict[str, int]] = []
    for i, name in enumerate(names):
        guess, one = _guesses(known[name], labels, test.column(name), majority)
        right[i] = guess == truth
        sure.append({"rows": sum(g is not None for g in one), "right": _hits(one, test.rows)})
    accuracy, true = _draws(right, truth, test.rows, seed, resamples)
    entries = []
    for i, name in enumerate(names):
        gain, pure = accuracy.all[:, i] - np.maximum(true.all[:, 0], 1 - true.all[:, 0]), sure[i]
        spread = float(gain[1:].std())
        p = float(ndtr(-gain[0] / spread)) if spread else float(gain[0] <= 0)
        certain = pure["rows"] >= max(5, 0.01 * len(truth)) and pure["right"] >= 0.95 * pure["rows"]
        difference = type(accuracy)(gain[:, None]).figure(0, len(truth))
        entries.append({
            "field": name,
            "kind": kind_of(name),
            "values": len({v for v in known[name] if v is not None}),
            "accuracy": accuracy.figure(i, len(truth)),
            "gain": difference,
            "p": p,
            "one_label": pure,
            "tells_label": bool(certain or (gain[0] >= GAIN and p * len(names) <= LEVEL)),
        })  # fmt: skip
    return sorted(entries, key=lambda e: (-e["tells_label"], -e["gain"]["value"]))


def _guesses(
    known: Sequence[str | None], labels: Sequence[bool], asked: Sequence[str | None], majority: bool
) -> tuple[Array, list[bool | None]]:
    """Return the most common label of each value asked, and the label of values that have only one, None elsewhere."""
    count: dict[str | None, Counter[bool]] = defaultdict(Counter)
    for value, label in zip(known, labels, strict=True):
        count[value][label] += 1
    best, one = {}, {}
    for value, found in count.items():
        best[value] = majority if found[True] == found[False] else found[True] > found[False]
        one[value] = best[value] if len(found) == 1 and found.total() >= SEEN else None
    return np.array([best.get(value, majority) for value in asked], bool), [one.get(value) for value in asked]


def _hits(guesses: Sequence[bool | None], rows: Sequence[Row]) -> int:
    return sum(guess == row.label for guess, row in zip(guesses, rows, strict=True) if guess is not None)


def _draws(right: Array, truth: Array, rows: Sequence[Row], seed: int, resamples: int) -> Any:
    """Return accuracy of each field (F, N) and the share of true rows (N,), on the data and on the same resamples."""
    numbers = {image: i for i, image in enumerate(sorted({row.image for row in rows}))}
    image = np.array([numbers[row.image] for row in rows], np.int64)
    bootstrap = Bootstrap(len(numbers), resamples=resamples, seed=seed)
    group = np.repeat(np.arange(len(right)), len(rows))
    zeros = np.zeros(len(rows), np.int64)
    below = bootstrap.per_image(image, zeros, 1, np.ones(len(rows)))
    above = bootstrap.per_image(np.tile(image, len(right)), group, len(right), right.ravel().astype(float))
    base = bootstrap.per_image(image, zeros, 1, truth.astype(float))
    return bootstrap.figures(np.divide, above, below), bootstrap.figures(np.divide, base, below)
