"""Questions for any vision-language model: its own processor and chat template make the inputs, answers are learnt.

A training sequence is the prompt exactly as diagnosis asks it, followed by the answer: the processor makes the prompt's
inputs, the answer's tokens follow, and only they are learnt. Nothing here depends on the model's family. Values per
token (types, masks) continue after the prompt with its last one, as they do in `generate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

from vsre.diagnose.prompts import Renderer
from vsre.errors import VsreError
from vsre.sources.images import load_image
from vsre.train.data import Pack, PackedQuestions
from vsre.train.examples import ChatEncoder, Example
from vsre.train.packing import IGNORE


class TextEncoder(ChatEncoder):
    """Keeps questions as text, in a store whose tokens are bytes; those of the answer are learnt.

    Processors take text, because they insert a picture's tokens themselves, as many as its size needs. So lengths are
    of text alone, and the longest questions of a `vlm` are those with the longest texts, whatever their pictures take.
    """

    def __init__(self) -> None:
        self.visual_tokens = 1

    def encode(self, names: Sequence[str], prompts: Sequence[str], answers: Sequence[str]) -> list[Example]:
        """Prompts and answers as bytes. Raises VsreError for a question without an answer: it would teach nothing."""
        examples = []
        for name, prompt, answer in zip(names, prompts, answers, strict=True):
            if not answer.strip():
                raise VsreError(f"question {name}: its answer is empty, so nothing of it would be learnt.")
            asked, said = prompt.encode(), answer.encode()
            ids = np.frombuffer(asked + said, dtype=np.uint8).astype(np.int32)
            examples.append(Example(ids, len(asked), len(ids)))
        return examples


def decode(example: Example) -> tuple[str, str]:
    """The prompt and answer of an example that TextEncoder made."""
    raw = example.ids.astype(np.uint8).tobytes()
    return raw[: example.first].decode(), raw[example.first :].decode()


class VlmCollator:
    """Turns questions into a batch: the processor's tensors, answers after the prompts; `labels`, `rows`, `tokens`.

    An item is one question. Padding is on the right, after the answers, where no token can see it. An
    encoder-decoder's answers are in its labels only. `answer_type`: the answers' value of `token_type_ids`, if it is
    not the prompt's last one. Raises VsreError, naming the question, for a picture that cannot be read and an answer
    that the tokenizer cannot encode.
    """

    answer_type: int | None = None

    def __init__(self, data: PackedQuestions, processor: Any, model: Any) -> None:
        self.data, self.processor, self.tokenizer = data, processor, processor.tokenizer
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.renderer = Renderer(processor, model.config, name=type(model).__name__)
        stops = model.generation_config.eos_token_id
        self.ends = {self.tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
        self.end = self._end()

    def __call__(self, items: Sequence[tuple[Pack, list[Example]]]) -> dict[str, Any]:
        examples = [example for _, found in items for example in found]
        asked = [(int(rows[0]), *decode(example)) for (rows, _), example in zip(items, examples, strict=True)]
        pictures = [self._picture(row) for row, _, _ in asked]
        answers = [[*self._answer(row, answer), self.end] for row, _, answer in asked]
        batch = self._inputs(pictures, [prompt for _, prompt, _ in asked])
        if self.renderer.encoder_decoder:
            width = max(map(len, answers))
            batch["labels"] = torch.tensor([a + [IGNORE] * (width - len(a)) for a in answers])
        else:
            batch = with_answers(batch, answers, self.tokenizer.pad_token_id, self.answer_type)
        for row, example in enumerate(examples):
            if example.end == example.first:  # a filler of a step that processes share
                batch["labels"][row] = IGNORE
        return {
            **batch,
            "rows": [row for row, _, _ in asked],
            "tokens": int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel(),
        }

    def _inputs(self, pictures: list[Image.Image], prompts: list[str]) -> dict[str, torch.Tensor]:
        """The processor's tensors for whole prompts, padded on the right."""
        rendered = self.renderer.render(prompts)
        begin = self.tokenizer.bos_token
        written = bool(begin and rendered[0].startswith(begin))
        with padding_right(self.tokenizer):
            tensors = dict(
                self.processor(
                    images=[[picture] for picture in pictures],  # one list per prompt
                    text=rendered,
                    padding=True,
                    padding_side="right",
                    truncation=False,
                    max_length=None,
                    **({"add_special_tokens": False} if written else {}),
                    return_tensors="pt",
                )
            )
        tensors.pop("labels", None)
        return tensors

    def _picture(self, row: int) -> Image.Image:
        try:
            return load_image(self.data.image(int(self.data.image_of[row])))
        except VsreError as error:
            raise VsreError(f"the image of question {self.data.question_ids([row])[0]}: {error}") from error

    def _answer(self, row: int, answer: str) -> list[int]:
        ids = self.renderer.option(answer)
        if not ids:
            name = self.data.question_ids([row])[0]
            raise VsreError(f"question {name}: the tokenizer of {self.renderer.name} cannot write {answer!r}.")
        return ids

    def _end(self) -> int:
        """The token that ends an answer: the template's if generation stops at it, else the tokenizer's."""
        said = {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}
        asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]}
        chosen = self.processor.chat_template or self.tokenizer.chat_template
        try:
            chat = self.processor.apply_chat_template([asked, said], chat_template=chosen, tokenize=False)
            tail = self.renderer.tokenize([chat[chat.rindex("Yes") :]])[0]
        except Exception:  # a template that cannot render answers: they end with the tokenizer's end token
            tail = []
        end = next((token for token in tail[::-1] if token in self.ends), self.tokenizer.eos_token_id)
        if end is None:
            raise VsreError(f"{self.renderer.name}: its tokenizer has no end token, so an answer could not end.")
        return int(end)


@contextmanager
def padding_right(tokenizer: Any) -> Iterator[None]:
    """Make a tokenizer pad on the right, for a processor that asks it and not its caller for the side (Kosmos-2's)."""
    side, tokenizer.padding_side = tokenizer.padding_side, "right"
    try:
        yield
    finally:
        tokenizer.padding_side = side


def with_answers(
    inputs: dict[str, torch.Tensor], answers: Sequence[Sequence[int]], pad: int, answer_type: int | None = None
) -> dict[str, torch.Tensor]:
    """The inputs of prompts (B, L), padded on the right, with the answers after them and `labels` (B, L').

    Inputs with a value per token continue with that of the prompt's last token, token types with `answer_type`.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    lengths = mask.sum(1).tolist()
    width = max(n + len(a) for n, a in zip(lengths, answers, strict=True))
    labels = torch.full((len(ids), width), IGNORE)
    whole = {"input_ids": ids.new_full((len(ids), width), pad), "attention_mask": mask.new_zeros(len(ids), width)}
    along = [name for name in _along(inputs) if name not in whole]
    whole |= {name: inputs[name].new_zeros(len(ids), width, *inputs[name].shape[2:]) for name in along}
    for row, (n, answer) in enumerate(zip(lengths, answers, strict=True)):
        end = n + len(answer)
        whole["input_ids"][row, :n] = ids[row, :n]
        labels[row, n:end] = whole["input_ids"][row, n:end] = torch.tensor(answer)
        whole["attention_mask"][row, :end] = 1
        for name in along:
            whole[name][row, :n] = inputs[name][row, :n]
            whole[name][row, n:] = inputs[name][row, n - 1]
            if name == "token_type_ids" and answer_type is not None:
                whole[name][row, n:] = answer_type
    return {**inputs, **whole, "labels": labels}


def _along(inputs: dict[str, torch.Tensor]) -> Iterable[str]:
    """The names of inputs with a value for every token of the prompt."""
    shape = inputs["input_ids"].shape
    others = [name.removesuffix("input_ids") for name in inputs if name.endswith("_input_ids")]  # a second text
    for name, tensor in inputs.items():
        alike = tensor.shape[:2] == shape and not tensor.is_floating_point()
        if alike and not any(name.startswith(other) for other in others):
            yield name
