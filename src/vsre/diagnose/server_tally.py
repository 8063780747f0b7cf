"""What asking a server took: requests, retries, tokens, cost, seconds, and what was odd about its answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vsre.diagnose.server_answers import Answer
from vsre.rewrite.clean import answer_part

_NAMES = 20
"""How many names a server may give its model before the rest are only counted."""


@dataclass
class Tally:
    """Counts over one engine's lifetime. `price_in` and `price_out` are per million tokens, in whatever currency."""

    price_in: float | None = None
    price_out: float | None = None
    requests: int = 0
    answers: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    uncounted: int = 0
    scores_asked: int = 0
    scores_listed: int = 0
    scores_given: int = 0
    seconds: list[float] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    fingerprints: Counter[str] = field(default_factory=Counter)

    def answered(self, answer: Answer, seconds: float) -> None:
        self.answers += 1
        self.seconds.append(seconds)
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            self.uncounted += 1
        self.prompt_tokens += answer.prompt_tokens or 0
        self.completion_tokens += answer.completion_tokens or 0
        self.cached_tokens += answer.cached_tokens
        for name, names in ((answer.model, self.models), (answer.fingerprint, self.fingerprints)):
            if name:
                names[name if name in names or len(names) < _NAMES else "others"] += 1
        self.odd["cut_at_limit"] += answer.finish == "length"
        self.odd["empty"] += not answer.text.strip()
        self.odd["thought_aloud"] += answer.reasoned
        self.odd["thoughts_without_answer"] += answer.reasoned and not (answer_part(answer.text) or "").strip()

    def notes(self) -> dict[str, Any]:
        """The counts as JSON. Latencies are of answered requests, from sending to the last byte."""
        times = np.percentile(self.seconds, (50, 90, 99, 100)).round(3).tolist() if self.seconds else None
        return {
            "requests": self.requests,
            "answers": self.answers,
            "retries": {"total": self.retries.total(), **dict(sorted(self.retries.items()))},
            "refused": dict(sorted(self.refused.items())),
            "odd_answers": {name: n for name, n in sorted(self.odd.items()) if n},
            "tokens": {
                "prompt": self.prompt_tokens,
                "of_these_cached": self.cached_tokens,
                "completion": self.completion_tokens,
                "answers_without_a_count": self.uncounted,
            },
            "cost": self.cost(),
            "scores": {"asked": self.scores_asked, "listed": self.scores_listed, "given": self.scores_given},
            "latency_s": dict(zip(("p50", "p90", "p99", "max"), times, strict=True)) if times else None,
            "server_models": dict(self.models),
            "system_fingerprints": dict(self.fingerprints),
        }

    def cost(self) -> float | None:
        """Tokens times prices; None without prices, or if the server counts no tokens. Discounts (for cached tokens,
        say) are unknown here: the cost of the answers counted is at most this."""
        if self.price_in is None or self.price_out is None or self.uncounted == self.answers:
            return None
        return round((self.prompt_tokens * self.price_in + self.completion_tokens * self.price_out) / 1e6, 6)
