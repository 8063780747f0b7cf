"""What an engine gives back for one prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """One answer: the raw text, or the error that prevented it.

    `logp_yes` and `logp_no` are the log-probabilities of the format's canonical options as the whole next words:
    summed over an option's tokens, without its end token and without length normalisation.
    """

    text: str | None = None
    logp_yes: float | None = None
    logp_no: float | None = None
    error: str | None = None

    @property
    def p_yes(self) -> float | None:
        """P(yes) / (P(yes) + P(no))."""
        if self.logp_yes is None or self.logp_no is None:
            return None
        gap = self.logp_no - self.logp_yes
        return 1 / (1 + math.exp(gap)) if gap < 700 else 0.0
