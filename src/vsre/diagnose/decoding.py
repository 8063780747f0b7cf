"""How answers are decoded: greedily, to the end token or up to a number of tokens.

Decoding does not stop as soon as an answer looks readable: "Yes. No." must stay an answer that says both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vsre.diagnose.branches import Branches


@dataclass(frozen=True)
class Decoding:
    """Maximum tokens per answer, for each answer style of a template. Recorded in every run."""

    short_tokens: int = 16
    full_tokens: int = 64

    def limit(self, style: str) -> int:
        return {"full": self.full_tokens, "none": 0}.get(style, self.short_tokens)


def decode(branches: Branches, limit: int, end: set[int]) -> list[list[int]]:
    """Greedy answers of all branches, as token ids without the end token; the branches are consumed."""
    answers: list[list[int]] = [[] for _ in range(len(branches))]
    done = [False] * len(branches)
    rows = list(range(len(branches)))  # which answer each branch still carried belongs to
    for step in range(limit):
        best = branches.logits.argmax(-1)  # (carried,)
        for row, token in zip(rows, best.tolist(), strict=True):
            done[row] = done[row] or token in end
            if not done[row]:
                answers[row].append(token)
        going = [i for i, row in enumerate(rows) if not done[row]]
        if not going or step == limit - 1:
            break
        # Dropping rows copies the cache, so it waits until it pays.
        if len(going) <= len(rows) // 2:
            kept = torch.tensor(going, device=best.device)
            branches, best, rows = branches.select(kept), best[kept], [rows[i] for i in going]
        branches.extend(best[:, None])
    return answers


def until_end(tokens: Sequence[int], end: set[int]) -> list[int]:
    """Generated token ids up to their end token."""
    return list(tokens[: next((i for i, token in enumerate(tokens) if token in end), len(tokens))])
