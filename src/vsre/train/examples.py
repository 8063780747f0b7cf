"""From a question to token ids and the span that is learnt, both given by the chat template.

Nothing here knows what a prompt looks like. The processor's chat template renders the conversation, its
`{% generation %}` marks say which characters the assistant wrote, and the tokenizer says which tokens those
are. A mask found by searching for "ASSISTANT:" goes wrong silently when the tokenizer changes; this one
cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from transformers.utils.chat_template_utils import render_jinja_template

from vsre.errors import VsreError


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids (int32) of one conversation, with exactly one image token; ids[first:end] is learnt."""

    ids: np.ndarray
    first: int
    end: int


def conversation(prompt: str, answer: str | None = None) -> list[dict[str, Any]]:
    """The messages of one question about one image, in the form that transformers' chat templates expect."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


class ChatEncoder:
    """Encodes questions with a processor's tokenizer and chat template.

    visual_tokens    how many tokens stand for one image, counted by running the processor on a blank one
    image_token_id   the id that is repeated for them
    pad_id           fills the right end of shorter sequences; never attended to, never learnt
    """

    def __init__(self, processor: Any) -> None:
        self.tokenizer = processor.tokenizer
        self.template: str = getattr(processor, "chat_template", None) or self.tokenizer.chat_template or ""
        if not re.search(r"\{%-?\s*generation\b", self.template):
            raise VsreError(
                "the processor's chat template has no {% generation %} marks, so it does not say what the "
                "assistant wrote. Put the marks round the assistant's text in chat_template.jinja."
            )
        image_token = getattr(processor, "image_token", "<image>")
        self.image_token_id: int = self.tokenizer.convert_tokens_to_ids(image_token)
        blank = processor(images=[Image.new("RGB", (64, 64))], text=[image_token], return_tensors="np")
        self.visual_tokens = int((np.asarray(blank["input_ids"]) == self.image_token_id).sum())
        self.eos_id: int | None = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else (self.eos_id or 0)

    def _tokenize(self, texts: list[str]) -> Any:
        # transformers adds the tokenizer's own special tokens unless the template already begins with one.
        bos = self.tokenizer.bos_token
        return self.tokenizer(texts, add_special_tokens=not (bos and texts[0].startswith(bos)))

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids a model is given at inference: the conversation up to where its answer begins."""
        texts, _ = render_jinja_template(
            [conversation(prompt)],
            chat_template=self.template,
            add_generation_prompt=True,
            **self._specials(),
        )
        return self._tokenize(texts)["input_ids"][0]

    def _specials(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)

    def encode(self, names: Sequence[str], prompts: Sequence[str], answers: Sequence[str]) -> list[Example]:
        """Encode questions in one go; `names` are used in messages only.

        Raises VsreError naming the question if nothing of it would be learnt, if it does not hold exactly
        one image, or if its prompt is tokenized differently from the same prompt at inference.
        """
        texts, spans = render_jinja_template(
            [conversation(p, a) for p, a in zip(prompts, answers, strict=True)],
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            **self._specials(),
        )
        for i, span in enumerate(spans):
            if span and span[-1][1] == len(texts[i]):
                # Some templates end with a space after the answer, which would be learnt in place of the end.
                texts[i] = texts[i].rstrip()
        encoded = self._tokenize(texts)
        examples = []
        for i, name in enumerate(names):
            ids = encoded["input_ids"][i]
            first, end = self._span(name, encoded, i, spans[i], len(texts[i]))
            if self.eos_id is not None and ids[end - 1] != self.eos_id:
                # The end of the turn is learnt too, or the model would never stop; add it if the template has
                # none.
                if end == len(ids):
                    ids = [*ids, self.eos_id]
                end += ids[end] == self.eos_id
            if ids.count(self.image_token_id) != 1:
                raise VsreError(
                    f"question {name}: its text holds {ids.count(self.image_token_id)} image tokens, not 1. "
                    "Take the token out of the prompt or caption."
                )
            examples.append(Example(np.array(ids, dtype=np.int32), first, end))
        if examples:
            self._check_prompt(names[0], prompts[0], examples[0])
        return examples

    def _span(self, name: str, encoded: Any, row: int, spans: list[tuple[int, int]], length: int) -> tuple[int, int]:
        if len(spans) == 1:
            start, stop = spans[0][0], min(spans[0][1], length)
            tokens = (encoded.char_to_token(row, c) for c in range(start, stop))
            first = next((t for t in tokens if t is not None), None)
            tokens = (encoded.char_to_token(row, c) for c in range(stop - 1, start - 1, -1))
            last = next((t for t in tokens if t is not None), None)
            if first is not None and last is not None:
                return first, last + 1
        raise VsreError(
            f"question {name}: no token of it would be learnt (its answer is empty, or the chat template "
            f"marks {len(spans)} answers where 1 is expected). Check the answer and the template."
        )

    def _check_prompt(self, name: str, prompt: str, example: Example) -> None:
        expected = self.prompt_ids(prompt)
        if expected != example.ids[: example.first].tolist():
            read = self.tokenizer.decode(example.ids[: example.first])
            raise VsreError(
                f"question {name}: the prompt is tokenized differently in training than at inference: "
                f"{read!r} against {self.tokenizer.decode(expected)!r}. Let the generation marks of the chat "
                "template begin where its generation prompt ends."
            )
