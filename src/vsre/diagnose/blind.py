"""The blind floor: what guessers that never see a picture score on the same test (arXiv 2412.18224 gives none).

A test is about vision only as far as a model beats these. All are fitted on the training triplets:

- majority        the commonest label
- per_relation    the commonest label for the caption's relation
- ngrams          logistic regression on the caption's words, pairs and triples of words
- leave_one_out   whether the caption's other rows are mostly true or mostly false. Captions written with one true and
                  one false picture, then split at random, give the label away: the seen one predicts the opposite
- lookup          the label of the same picture and caption if they are in the training data, else the guess of
                  leave_one_out. Above the others only if test rows leaked into training
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vsre.diagnose.bootstrap import Array, Bootstrap
from vsre.triplets import parquet_files

COLUMNS = ("image_id", "caption", "relation", "label")
FITTED = ("per_relation", "ngrams", "leave_one_out", "lookup")


class Statement(NamedTuple):
    """A triplet without its picture."""

    image_id: str
    caption: str
    relation: str
    label: bool


def read_statements(path: Any) -> list[Statement]:
    """The triplets of a file or folder without their pictures."""
    table = pa.concat_tables([pq.read_table(file, columns=list(COLUMNS)) for file in parquet_files(path)])
    return [Statement(*row) for row in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)]


def blind_floor(
    train: Sequence[Statement] | None, test: Sequence[Statement], *, seed: int = 0, resamples: int = 1000
) -> dict[str, Any]:
    """Accuracy of each guesser on `test`, with intervals over its images.

    Without `train` there is only the majority of the test's own labels: a bound that no constant answer can beat.
    """
    labels = np.array([s.label for s in test], bool)
    images = {image: i for i, image in enumerate(sorted({s.image_id for s in test}))}
    image = np.array([images[s.image_id] for s in test], np.int64)
    bootstrap = Bootstrap(len(images), resamples=resamples, seed=seed)
    below = bootstrap.per_image(image, np.zeros_like(image), 1, np.ones(len(test)))

    def figure(guess: Array) -> Any:
        right = bootstrap.per_image(image, np.zeros_like(image), 1, (guess == labels).astype(float))
        return bootstrap.figures(np.divide, right, below).figure(0, len(test))

    fitted = train if train else test
    majority = _majority([s.label for s in fitted])
    floor: dict[str, Any] = {
        "fitted_on": "train" if train else "test",
        "n_train": len(train or ()),
        "majority": figure(np.full(len(test), majority)),
    }
    if not train:
        return floor | dict.fromkeys(FITTED)
    guess = leave_one_out(train, test)
    known = {(s.image_id, s.caption): s.label for s in train}
    seen = [known.get((s.image_id, s.caption)) for s in test]
    guesses = {
        "per_relation": per_relation(train, test),
        "ngrams": ngrams(train, test),
        "leave_one_out": guess,
        "lookup": np.array([g if s is None else s for g, s in zip(guess, seen, strict=True)], bool),
    }
    return floor | {name: figure(found) for name, found in guesses.items()}


def per_relation(train: Sequence[Statement], test: Sequence[Statement]) -> Array:
    return _by_state([s.relation for s in train], [s.label for s in train], [s.relation for s in test])


def ngrams(train: Sequence[Statement], test: Sequence[Statement]) -> Array:
    labels = [s.label for s in train]
    if len(set(labels)) < 2:
        return np.full(len(test), _majority(labels))
    # Imported here: it takes a second, which should not delay the first answer.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    model.fit([s.caption for s in train], labels)
    return np.asarray(model.predict([s.caption for s in test]), bool)


def leave_one_out(train: Sequence[Statement], test: Sequence[Statement]) -> Array:
    """Guesses from the training labels of the same caption; which way they point is learnt on the training rows, each
    seen without its own label."""
    count = Counter[str]()
    for s in train:
        count[s.caption] += 1 if s.label else -1
    met = {s.caption for s in train}
    several = Counter(s.caption for s in train)

    def state(balance: int, others: bool) -> str:
        return "none" if not others else "even" if not balance else "mostly true" if balance > 0 else "mostly false"

    own = [state(count[s.caption] - (1 if s.label else -1), several[s.caption] > 1) for s in train]
    return _by_state(own, [s.label for s in train], [state(count[s.caption], s.caption in met) for s in test])


def _by_state(states: Sequence[str], labels: Sequence[bool], asked: Sequence[str]) -> Array:
    """The commonest label of each state, or of all rows for a state never seen."""
    balance = Counter[str]()
    for state, label in zip(states, labels, strict=True):
        balance[state] += 1 if label else -1
    fallback = _majority(labels)
    return np.array([balance[s] >= 0 if s in balance else fallback for s in asked], bool)


def _majority(labels: Sequence[bool]) -> bool:
    return 2 * sum(labels) >= len(labels)
