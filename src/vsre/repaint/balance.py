"""Which of a picture's known captions are kept, so that text alone reveals nothing about truth.

A painted picture has many decided captions, most of them false (few things are in each other), and a scene redrawn ten
times has the same ones ten times. Keeping all would teach that "contains" means no. So a caption is added to a picture
only

- in turn: every picture gets as many true as false ones, as far as it has them;
- while its relation has at most SLACK more captions with its label than with the other, over the whole set;
- while the same caption has not been used more often with its label than with the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vsre.repaint.painter import Painted, Statement

SLACK = 2

_Words = tuple[str, str, str]


class Balance:
    """Chooses captions picture by picture; the outcome depends only on the order of the pictures.

    `per_image` is the maximum number of captions a picture gets besides those its job asked for. Memory grows with the
    number of different captions: with COCO's classes and VSR's relations, at most some 400,000.
    """

    def __init__(self, per_image: int) -> None:
        self.per_image = per_image
        self._labels: Counter[bool] = Counter()
        self._relations: Counter[tuple[str, bool]] = Counter()
        self._captions: Counter[_Words] = Counter()

    def choose(self, painted: Painted) -> list[Statement]:
        """The statements the job asked for, and those chosen in addition."""
        chosen: list[Statement] = []
        true = 0
        for statement in painted.statements:
            self._take(statement, chosen)
            true += statement.label
        rest: dict[bool, dict[str, list[Statement]]] = {True: {}, False: {}}
        for statement in painted.others:
            if self._may_be_said(statement):
                rest[statement.label].setdefault(statement.relation, []).append(statement)
        for _ in range(self.per_image):
            false = len(chosen) - true
            label = true < false if true != false else self._labels[True] <= self._labels[False]
            relation = self._neediest(label, rest[label])
            if relation is None:
                break
            self._take(rest[label][relation].pop(), chosen)
            if not rest[label][relation]:
                del rest[label][relation]
            true += label
        return chosen

    def _take(self, statement: Statement, chosen: list[Statement]) -> None:
        chosen.append(statement)
        self._labels[statement.label] += 1
        self._relations[statement.relation, statement.label] += 1
        self._captions[_words(statement)] += 1 if statement.label else -1

    def _may_be_said(self, statement: Statement) -> bool:
        balance = self._captions.get(_words(statement), 0)
        return balance <= 0 if statement.label else balance >= 0

    def _neediest(self, label: bool, relations: Iterable[str]) -> str | None:
        """The relation that lacks this label most, the rarest of several; None if all have enough of it."""
        best, least = None, (SLACK + 1, 0)
        for relation in relations:
            same, other = self._relations[relation, label], self._relations[relation, not label]
            if (same - other, same + other) < least:
                best, least = relation, (same - other, same + other)
        return best


def _words(statement: Statement) -> _Words:
    return statement.subject, statement.relation, statement.object
