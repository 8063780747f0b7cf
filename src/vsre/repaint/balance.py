"""Which of the captions known of a picture are kept, so that text alone tells nothing about truth.

A painted picture carries many decided captions, most of them false (few things are in each other). Keeping
all would teach that "contains" means no. Two rules instead: every picture gets as many true as false
captions, as far as it has them; and no relation gets more than SLACK more of one label than of the other,
counted over the set so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vsre.repaint.painter import Painted, Statement

SLACK = 2


class Balance:
    """Chooses captions picture by picture; the outcome depends on the order of the pictures and on nothing
    else.

    `per_image` is the most captions a picture gets beside those its job asked for.
    """

    def __init__(self, per_image: int) -> None:
        self.per_image = per_image
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._labels: Counter[bool] = Counter()

    def choose(self, painted: Painted) -> list[Statement]:
        """The statements the job asked for and chosen others."""
        chosen: list[Statement] = []
        rest: dict[bool, dict[str, list[Statement]]] = {True: {}, False: {}}
        for statement in painted.others:
            rest[statement.label].setdefault(statement.relation, []).append(statement)
        true = 0
        for statement in painted.statements:
            self._take(statement, chosen)
            true += statement.label
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
        self._counts[statement.relation, statement.label] += 1
        self._labels[statement.label] += 1

    def _neediest(self, label: bool, relations: Iterable[str]) -> str | None:
        """The relation that lacks this label most, the rarest of those; None where all have enough of it."""
        best, least = None, (SLACK + 1, 0)
        for relation in relations:
            same, other = self._counts[relation, label], self._counts[relation, not label]
            if (same - other, same + other) < least:
                best, least = relation, (same - other, same + other)
        return best
