"""How answers are decoded: greedily, up to a number of tokens, to the end token or until a short answer is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria

from vsre.diagnose.branches import Branches
from vsre.rewrite import AnswerFormat

_OPENING = " \n\t*_`\"'“‘(["
_CLOSING = ".,;:!?)"


@dataclass(frozen=True)
class Decoding:
    """The settings that decide an answer; they stand in every run.

    `short_tokens` and `full_tokens` bound an answer of each style. With `stop_early` a short answer ends once it
    begins with a canonical option and a punctuation mark ("Yes, ..."): what follows could only repeat or explain it.
    """

    short_tokens: int = 16
    full_tokens: int = 64
    stop_early: bool = True

    def limit(self, style: str) -> int:
        return self.full_tokens if style == "full" else self.short_tokens

    def settled(self, text: str, form: AnswerFormat, style: str) -> bool:
        """Whether a short answer needs no further tokens: "Yes," and "**No**." do, "A dog" and "No" do not."""
        if style == "full" or not self.stop_early:
            return False
        words = text.lstrip(_OPENING)
        for option in (form.yes, form.no):
            if words.startswith(option) and words[len(option) :].lstrip("*_`\"'”’")[:1] in tuple(_CLOSING):
                return True
        return False


class Answers:
    """Collects the tokens of Q answers as they are decoded, one column at a time."""

    def __init__(
        self, tokenizer: Any, decoding: Decoding, forms: Sequence[AnswerFormat], style: str, end: set[int]
    ) -> None:
        self.tokenizer, self.decoding, self.forms, self.style, self.end = (
            tokenizer,
            decoding,
            forms,
            style,
            end,
        )
        self.tokens: list[list[int]] = [[] for _ in forms]
        self.done = [False] * len(forms)

    def add(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Token tokens[i] is the next of answer rows[i]; answers that are done take no more."""
        fresh = []
        for row, token in zip(rows, tokens, strict=True):
            if self.done[row]:
                continue
            if token in self.end:
                self.done[row] = True
                continue
            self.tokens[row].append(token)
            self.done[row] = len(self.tokens[row]) >= self.decoding.limit(self.style)
            fresh.append(row)
        if self.decoding.stop_early and self.style != "full" and fresh:
            for row, text in zip(fresh, self._decode([self.tokens[row] for row in fresh]), strict=True):
                self.done[row] = self.done[row] or self.decoding.settled(text, self.forms[row], self.style)

    def texts(self) -> list[str]:
        """The answers as text, special tokens left out."""
        return self._decode(self.tokens)

    def _decode(self, tokens: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


class StopWhenDone(StoppingCriteria):
    """Lets `generate` stop each row by the same rule as the shared-prefix way."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.answers.add(range(len(input_ids)), input_ids[:, -1].tolist())
        return torch.tensor(self.answers.done, device=input_ids.device)


def decode(branches: Branches, answers: Answers) -> list[str]:
    """Greedy answers of all branches; they are used up. Finished ones are dropped when they are half."""
    rows = list(range(len(branches)))
    while True:
        best = branches.logits.argmax(-1)  # (Q,)
        answers.add(rows, best.tolist())
        going = [i for i, row in enumerate(rows) if not answers.done[row]]
        if not going:
            return answers.texts()
        if len(going) <= len(rows) // 2:
            kept = torch.tensor(going, device=best.device)
            branches, best, rows = branches.select(kept), best[kept], [rows[i] for i in going]
        branches.extend(best[:, None])
