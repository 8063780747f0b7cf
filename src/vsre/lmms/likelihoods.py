"""Likelihood tasks of lmms-eval: the losses of a question's options, and the questions that have none.

lmms-eval takes the option with the smallest loss, and of equal ones the first: it has no unanswered questions. One that
could not be answered therefore counts as its first option, and as right if that is the right one.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from vsre.diagnose import Reply
from vsre.errors import VsreError

MOST_FAILED = 0.01
"""Largest share of a task's questions that may fail: beyond it, the score is no longer one of the model."""


def losses(reply: Reply, options: int) -> list[float] | None:
    """For each option the mean of -log P over its tokens and the end token; None if one of them has no number."""
    if reply.error or len(reply.scores) != options:
        return None
    found = [-score.mean_with_end for score in reply.scores]
    return found if all(map(math.isfinite, found)) else None


@dataclass
class Failures:
    """For each task, how many questions were asked, how many of them have no losses, and why the first has none."""

    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, task: str, reply: Reply, found: list[float] | None) -> None:
        self.asked[task] += 1
        if found is None:
            self.failed[task] += 1
            self.reasons.setdefault(task, reply.error or "an option's likelihood is missing or no number")

    def check(self) -> None:
        """Raises VsreError if more than MOST_FAILED of a task's questions failed."""
        for task, n in self.failed.items():
            if n > MOST_FAILED * self.asked[task]:
                raise VsreError(
                    f"{task}: {self._count(task)} ({self.reasons[task]}). lmms-eval would count each as its first "
                    f"option, so there is no score; up to {100 * MOST_FAILED:g} % is tolerated. Fix what the reason "
                    "names, or leave those questions out of the task."
                )

    def told(self) -> list[str]:
        """A line for each task in which questions failed."""
        return [
            f"{task}: {self._count(task)} and counted as the first option, right wherever that is the right one "
            f"({self.reasons[task]})"
            for task in self.failed
        ]

    def _count(self, task: str) -> str:
        return f"{self.failed[task]} of {self.asked[task]} likelihood questions could not be answered"
