"""Which of the captions known of a picture are kept, so that text alone tells nothing about truth.

A painted picture carries many decided captions, most of them false (few things are in each other). Keeping
all would teach that "contains" means no. Two rules instead: every picture gets as many true as false
captions, as far as it has them; and no relation gets more than SLACK more of one label than of the other,
counted over the set so far.
"""

from __future__ import annotations

from collections import Counter

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
        rest = list(painted.others)
        for statement in painted.statements:
            self._take(statement, chosen)
        for _ in range(self.per_image):
            true = sum(s.label for s in chosen)
            wanted = (
                (2 * true < len(chosen))
                if 2 * true != len(chosen)
                else self._labels[True] <= self._labels[False]
            )
            options = [s for s in rest if s.label is wanted and self._surplus(s) <= SLACK]
            if not options:
                break
            best = min(options, key=lambda s: (self._surplus(s), self._seen(s)))
            rest.remove(best)
            self._take(best, chosen)
        return chosen

    def _take(self, statement: Statement, chosen: list[Statement]) -> None:
        chosen.append(statement)
        self._counts[statement.relation, statement.label] += 1
        self._labels[statement.label] += 1

    def _surplus(self, s: Statement) -> int:
        """How many more captions of its relation have its label than the other."""
        return self._counts[s.relation, s.label] - self._counts[s.relation, not s.label]

    def _seen(self, s: Statement) -> int:
        return self._counts[s.relation, True] + self._counts[s.relation, False]
