"""How far a model without eyes gets on a set of captions: the floor every result must be read against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

BLIND_KEYS = ("caption", "relation", "subj", "obj", "label")
"""What of a VSR row a model without eyes may know."""


def _majority(train: Sequence[Row], test: Sequence[Row], key: Callable[[Row], Any]) -> float:
    """Accuracy of the commonest training label among rows of the same key; unseen keys and ties count one
    half.
    """
    counts: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for row in train:
        counts[key(row)][row["label"]] += 1
    score = 0.0
    for row in test:
        no, yes = counts.get(key(row), (0, 0))
        score += 0.5 if no == yes else float(row["label"] == (yes > no))
    return score / max(len(test), 1)


def _opposite(train: Sequence[Row], test: Sequence[Row]) -> tuple[float, float]:
    """The leave-one-out trick (guess the opposite of the same caption's training labels), and its
    coverage.
    """
    sums: dict[str, list[int]] = defaultdict(list)
    for row in train:
        sums[row["caption"]].append(row["label"])
    score, covered = 0.0, 0
    for row in test:
        labels = sums.get(row["caption"])
        mean = sum(labels) / len(labels) if labels else 0.5
        covered += bool(labels)
        score += 0.5 if mean == 0.5 else float(row["label"] == (mean < 0.5))
    return score / max(len(test), 1), covered / max(len(test), 1)


def _ngrams(train: Sequence[Row], test: Sequence[Row]) -> float:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    vectorizer = CountVectorizer(ngram_range=(1, 3), token_pattern=r"\S+")
    model = MultinomialNB().fit(vectorizer.fit_transform([r["caption"] for r in train]), [r["label"] for r in train])
    predicted = model.predict(vectorizer.transform([r["caption"] for r in test]))
    return float(sum(int(p == r["label"]) for p, r in zip(predicted, test, strict=True)) / len(test))


def blind_floor(train: Sequence[Row], test: Sequence[Row]) -> dict[str, float]:
    """Accuracies on `test` of models that see captions and labels of `train` only (rows: caption, relation,
    subj, obj, label 0 or 1): majority, majority per relation, per ordered pair of classes, caption n-grams,
    and the leave-one-out trick with the share of test captions that occur in train at all.
    """
    if not train or not test:
        return {}
    opposite, coverage = _opposite(train, test)
    return {
        "majority": _majority(train, test, lambda r: None),
        "per_relation": _majority(train, test, lambda r: r["relation"]),
        "per_pair": _majority(train, test, lambda r: (r["subj"], r["obj"])),
        "ngrams": _ngrams(train, test),
        "leave_one_out": opposite,
        "captions_seen": coverage,
    }
