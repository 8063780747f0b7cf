"""What an engine gives back for one prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from vsre.errors import VsreError


@dataclass(frozen=True)
class Score:
    """How likely an option is as the next words: log P summed over its `tokens` tokens.

    `end` is log P of ending the answer right after it, if the prompt asked for that.
    """

    logp: float
    tokens: int
    end: float | None = None

    @property
    def mean(self) -> float:
        """Length-normalised: log P per token."""
        return self.logp / self.tokens

    @property
    def mean_with_end(self) -> float:
        """The mean over the option's tokens and the end token, as in LLaVA-style likelihood ranking."""
        if self.end is None:
            raise ValueError("the likelihood of ending was not asked for")
        return (self.logp + self.end) / (self.tokens + 1)


@dataclass(frozen=True)
class Reply:
    """One answer: the raw text, or the error that prevented it.

    `scores` are those of the prompt's options in their order; empty if the engine gives no likelihoods. `text`
    is None for a prompt that asked only for likelihoods. `cut`: the answer was cut off at the token limit; None if the
    engine does not say.
    """

    text: str | None = None
    scores: tuple[Score, ...] = ()
    error: str | None = None
    cut: bool | None = field(default=None, compare=False)

    @classmethod
    def yes_no(cls, text: str, yes: float, no: float) -> Self:
        """An answer with log P of a yes and of a no, one token each."""
        return cls(text, (Score(yes, 1), Score(no, 1)))

    @property
    def logp_yes(self) -> float | None:
        """log P of the first option."""
        return self.scores[0].logp if self.scores else None

    @property
    def logp_no(self) -> float | None:
        """log P of the second option."""
        return self.scores[1].logp if len(self.scores) > 1 else None

    @property
    def p_yes(self) -> float | None:
        """P(yes) / (P(yes) + P(no))."""
        if self.logp_yes is None or self.logp_no is None:
            return None
        gap = self.logp_no - self.logp_yes
        return 1 / (1 + math.exp(gap)) if gap < 700 else 0.0


class Interrupted(VsreError):
    """Raised when an engine cannot go on, for example when its server is gone. `replies` holds what it had answered in
    the last call, None for the rest: those are kept, and calling the run again resumes from there."""

    def __init__(self, message: str, replies: Sequence[Sequence[Reply | None]]) -> None:
        super().__init__(message)
        self.replies = replies
