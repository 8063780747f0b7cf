"""From a prompt to token ids: the chat template, the image's place in it, and the options' tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from vsre.errors import VsreError

_STUB = "Is it?"
_OTHER = "Can one see anything?"
"""Begins differently from the stub, so that what the two have in common is not part of the question."""


@dataclass(frozen=True)
class Prompt:
    """One question as an engine needs it.

    `options` are the answers whose likelihood is wanted (for a yes/no question, yes first). `style` says how long an
    answer may get: "short", "full", or "none" for likelihoods only. `end`: the likelihood of ending after an option is
    wanted too.
    """

    text: str
    options: tuple[str, ...] = ()
    style: str = "short"
    end: bool = False


@dataclass(frozen=True)
class Prefix:
    """What all prompts of an image begin with: its token ids and the processor's tensors for the picture.

    `ids` is (1, P) and ends after the image's last placeholder; `tensors` hold the pixel values and whatever else the
    model's forward takes besides ids and attention mask, with (1, P, ...) ones cut to the prefix. `behind` is what
    these hold for every later token, (1, 1, ...) each.
    """

    ids: torch.Tensor
    tensors: dict[str, torch.Tensor]
    behind: dict[str, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def like(self) -> tuple[Any, ...]:
        """Prefixes with an equal value here can be run as one batch, and what is shown for one holds for the others.

        Masks are compared by value: they decide what a prompt may see of its picture, whatever their shape.
        """
        masks = [
            t for _, t in sorted(self.tensors.items()) if not t.is_floating_point() and bool((t == t.bool()).all())
        ]
        seen = hashlib.sha256(b"".join(mask.bool().numpy().tobytes() for mask in masks)).hexdigest()
        return (self.ids.shape[1], seen, *sorted((name, t.shape, t.dtype) for name, t in self.tensors.items()))


class Renderer:
    """Renders and tokenizes prompts for one processor.

    `suffixes` and `prefix` split a prompt after its image, so that the suffix needs no picture. That the two halves
    equal what the processor makes of the whole is not assumed: engines compare them.
    """

    def __init__(self, processor: Any, config: Any, *, name: str = "the model", picture: bool = True) -> None:
        """`name` stands for the model in messages. Without `picture` prompts are rendered as text alone.

        Raises VsreError if the chat template fails, leaves the question out, or shows a picture when there is none.
        """
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.name, self.picture = name, picture
        # Some composite models say so only in their language model's config.
        self.encoder_decoder = bool(
            config.is_encoder_decoder or getattr(config.get_text_config(), "is_encoder_decoder", False)
        )
        self.image_token = next(
            (
                found
                for found in (
                    getattr(config, "image_token_id", None),
                    getattr(config, "image_token_index", None),
                    getattr(processor, "image_token_id", None),
                )
                if found is not None
            ),
            None,
        )
        # What a chat template writes for the picture may differ from the tokens that replace it (Gemma 3).
        written = [str(getattr(processor, name, "")) for name in ("image_token", "boi_token")]
        known = self.tokenizer.get_vocab()
        self._placeholders = {self.image_token, *(known[text] for text in written if text in known)} - {None}
        self._stub, self._other = self.render([_STUB, _OTHER])
        self._thinks = self._stub.rstrip().endswith("<think>")  # the template itself opens the model's thoughts
        if self._stub == self._other:
            raise VsreError(f"{name}: the model's chat template leaves the question out ({self._stub[:200]!r}).")
        if not picture and not self._placeholders.isdisjoint(self.tokenize([self._stub])[0]):
            raise VsreError(f"{name}: cannot be asked without a picture: its chat template writes one anyway.")
        self._head: list[int] | None = None  # the ids of an unexpanded prompt up to and including its placeholder
        self._options: dict[str, list[int]] = {}

    def render(self, texts: Sequence[str]) -> list[str]:
        """The chat form of each prompt, with one image placeholder, up to where the answer begins."""
        return self._chat([[self._user(text)] for text in texts], generation=True)

    def render_each(self, texts: Sequence[str]) -> list[str | VsreError]:
        """`render`, with the error in place of a prompt that the template fails on."""
        try:
            return [*self.render(texts)]
        except VsreError as error:
            if len(texts) == 1:
                return [error]
            return [found for text in texts for found in self.render_each([text])]

    def _user(self, text: str) -> dict[str, Any]:
        picture = [{"type": "image"}] if self.picture else []
        return {"role": "user", "content": [*picture, {"type": "text", "text": text}]}

    def _chat(self, chats: list[list[dict[str, Any]]], *, generation: bool) -> list[str]:
        chosen = self.processor.chat_template or self.tokenizer.chat_template  # some processors drop theirs
        try:
            return self.processor.apply_chat_template(
                chats, chat_template=chosen, add_generation_prompt=generation, tokenize=False
            )
        except Exception as error:  # jinja and template code may raise anything
            what = "an image with a question" if self.picture else "a question without an image"
            reason = f"{type(error).__name__}: {error}"[:500]
            raise VsreError(f"{self.name}: the model's chat template cannot render {what} ({reason}).") from error

    def tokenize(self, rendered: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered prompts, with the image placeholder unexpanded and the processor's special tokens."""
        begin = self.tokenizer.bos_token
        special = not (begin and rendered and rendered[0].startswith(begin))
        return self.tokenizer(list(rendered), add_special_tokens=special, verbose=False)["input_ids"]

    def whole(self, images: Sequence[Image.Image] | None, rendered: Sequence[str]) -> dict[str, torch.Tensor]:
        """The processor's own tensors for whole prompts, one image each, or for prompts without any.

        Padded on the left, as an answer follows the prompt; on the right for an encoder.
        """
        begin = self.tokenizer.bos_token
        written = bool(begin and rendered[0].startswith(begin))
        tensors = dict(
            self.processor(
                # Nested as for chats: one list per prompt.
                images=None if images is None else [[image] for image in images],
                text=list(rendered),
                padding=True,
                padding_side="right" if self.encoder_decoder else "left",
                truncation=False,
                max_length=None,  # some tokenizers are saved with one, and a truncated prompt would be another question
                **({"add_special_tokens": False} if written else {}),  # otherwise the processor decides
                return_tensors="pt",
            )
        )
        tensors.pop("labels", None)  # some processors add training labels: a question has none
        return tensors

    def prefix(self, image: Image.Image) -> Prefix:
        """Process the picture once. Raises ValueError if no prefix can be separated from the question."""
        if self.encoder_decoder:
            raise ValueError("the model is an encoder-decoder: its encoder reads the question with the picture")
        tensors = self.whole([image], [self._stub])
        ids = tensors.pop("input_ids")  # (1, L)
        tensors.pop("attention_mask", None)
        for name in tensors:
            if name.endswith("input_ids"):
                raise ValueError(f"the model looks at the picture with the question in mind (it takes {name})")
        places = ids[:0] if self.image_token is None else torch.eq(ids[0], self.image_token).nonzero()
        if not len(places):
            raise ValueError("the processor puts no image tokens into the prompt")
        plain, other = self.tokenize([self._stub, self._other])
        length = int(ids.shape[1])
        tail = 0  # how many ids after the image are the same with and without the image's expansion
        most = min(length - 1 - int(places[-1]), len(plain))
        while tail < most and plain[-1 - tail] == ids[0, -1 - tail]:
            tail += 1
        if not tail:
            raise ValueError("nothing of the prompt stands behind the image")
        head = plain[: len(plain) - tail]
        if other[: len(head)] != head:
            raise ValueError("the processor changes the words behind the image")
        self._head = head
        cut = length - tail
        # There may be as many tiles of pixels as tokens; those do not go along with the tokens.
        along = {n: t for n, t in tensors.items() if t.shape[:2] == (1, length) and not t.is_floating_point()}
        behind = {n: t[:, -1:] for n, t in along.items() if bool((t[:, cut:] == t[:, -1:]).all())}
        return Prefix(ids[:, :cut], tensors | {n: t[:, :cut] for n, t in along.items()}, behind)

    def suffixes(self, rendered: Sequence[str]) -> list[list[int] | None]:
        """The ids after the image; [] for a prompt with its own placeholder, None for one that begins differently."""
        head = self._head
        if head is None:
            raise ValueError("no picture has been processed yet")
        n = len(head)
        return [
            (ids[n:] if self._placeholders.isdisjoint(ids[n:]) else []) if ids[:n] == head else None
            for ids in self.tokenize(rendered)
        ]

    def texts(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Generated token ids as text, without special tokens; thoughts that the prompt opens begin with <think>."""
        said = self.tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [f"<think>{text}" for text in said] if self._thinks else said

    def option(self, answer: str) -> list[int]:
        """Token ids of an answer as the chat template writes it, without the end token.

        Empty if the tokenizer cannot write it or thoughts come before it: its likelihood is then unknown.
        """
        if self._thinks:
            return []
        if answer not in self._options:
            ids = self._option(answer)
            self._options[answer] = [] if self.tokenizer.unk_token_id in ids else ids
        return self._options[answer]

    def _option(self, answer: str) -> list[int]:
        if self.encoder_decoder:  # the decoder's text begins with the answer
            return self.tokenizer(text_target=answer, add_special_tokens=False)["input_ids"]
        spoken = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        chat = self._chat([[self._user(_STUB), spoken]], generation=False)[0]
        lead = "" if self._stub[-1:].isspace() else " "
        if chat.startswith(self._stub):
            before = chat[len(self._stub) :].split(answer, 1)[0]
            lead = lead if before.strip() else before
        asked, answered = self.tokenize([self._stub, self._stub + lead + answer])
        if answered[: len(asked)] == asked and len(answered) > len(asked):
            return answered[len(asked) :]
        return self.tokenizer(lead + answer, add_special_tokens=False)["input_ids"]
