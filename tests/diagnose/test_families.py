"""Every family of models must be answered for as its own generate and forward answer for one prompt alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from diagnose_data import picture
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PaliGemmaProcessor
from transformers.processing_utils import ProcessorMixin

from tiny_families import (
    PicturesOnly,
    template,
    tiny_blip2,
    tiny_florence2,
    tiny_instructblip,
    tiny_paligemma,
    tiny_qwen2_vl,
)
from vsre.diagnose import Decoding, Prompt, TransformersEngine
from vsre.rewrite import FORMATS
from vsre.sources.images import load_image

DECODING = Decoding(short_tokens=4, full_tokens=7)
TEXTS = (
    "Is the cat left of the dog?",
    "Is it?",
    "Does the bowl contain the cake? Answer yes or no.",
    "The teddy bear is above the couch, next to the bowl, and the dog is not in the couch. True or false?",
    "Is the dog in the bowl? A. yes B. no",
)


@dataclass(frozen=True)
class Family:
    """A model to be asked; `way` and `why` are what the notes must say of it, `alike` whether it cannot be padded.

    Either way is right for one whose branches may place its positions or not: what counts is that they were compared.
    """

    build: Callable[[Path], Any]
    way: str
    why: str
    encoder_decoder: bool = False
    alike: bool = False
    grow: tuple[tuple[str, int], ...] = ()  # tensors that go along with the ids: what they hold for an answer's tokens


ENCODER = "encoder-decoder"
FAMILIES = {
    "paligemma": Family(tiny_paligemma, "plain", "nothing of the prompt stands behind", grow=(("token_type_ids", 1),)),
    "instructblip-llama": Family(
        partial(tiny_instructblip, language="llama"), "plain", "qformer_input_ids", alike=True
    ),
    "instructblip-t5": Family(partial(tiny_instructblip, language="t5"), "plain", ENCODER, encoder_decoder=True),
    "blip2-opt": Family(partial(tiny_blip2, language="opt"), "plain", "the shared prefix fails"),
    "blip2-t5": Family(partial(tiny_blip2, language="t5"), "plain", ENCODER, encoder_decoder=True),
    "florence2": Family(tiny_florence2, "plain", ENCODER, encoder_decoder=True),
    "qwen2-vl": Family(tiny_qwen2_vl, "shared prefix", "apart", grow=(("mm_token_type_ids", 0),)),
}


def load(build: Callable[[Path], Any], folder: Path, patch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The saved model and its processor; one that cannot be loaded is handed to the engine too."""
    processor = made[1] if isinstance(made := build(folder), tuple) else AutoProcessor.from_pretrained(folder)
    if isinstance(processor, PicturesOnly):
        patch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), processor


@dataclass
class Alone:
    """The reference: one prompt at a time, with nothing of the engine's."""

    family: Family
    model: Any
    processor: Any

    def inputs(self, data: bytes, prompt: Prompt) -> dict[str, torch.Tensor]:
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.text}]}]
        template = self.processor.chat_template or self.processor.tokenizer.chat_template
        text = self.processor.apply_chat_template(said, chat_template=template, tokenize=False)
        tensors = self.processor(images=load_image(data), text=text, return_tensors="pt")
        return {name: t for name, t in tensors.items() if name != "labels"}

    def text(self, data: bytes, prompt: Prompt) -> str:
        """Greedy decoding by the forward pass alone."""
        inputs, limit, said = self.inputs(data, prompt), DECODING.limit(prompt.style), []
        while len(said) < limit:
            token = int(self.forward(inputs, said)[-1].argmax())
            if token == self.processor.tokenizer.eos_token_id:
                break
            said.append(token)
        return self.processor.tokenizer.decode(said, skip_special_tokens=True)

    def generated(self, data: bytes, prompt: Prompt) -> str:
        inputs = self.inputs(data, prompt)
        settings = GenerationConfig(do_sample=False, max_new_tokens=DECODING.limit(prompt.style))
        out = self.model.generate(**inputs, generation_config=settings)[0]
        head = 0 if self.family.encoder_decoder else inputs["input_ids"].shape[1]
        return self.processor.tokenizer.decode(out[head:], skip_special_tokens=True)

    def forward(self, inputs: dict[str, torch.Tensor], said: list[int]) -> torch.Tensor:
        """Log-probabilities behind the prompt and behind each token said: (1 + len(said), V)."""
        ids = torch.tensor([said], dtype=torch.long)
        if self.family.encoder_decoder:
            start = torch.tensor([[self.model.generation_config.decoder_start_token_id]])
            logits = self.model(**inputs, decoder_input_ids=torch.cat([start, ids], 1)).logits
        else:
            more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            more |= {name: torch.full_like(ids, value) for name, value in self.family.grow}
            logits = self.model(**inputs | {name: torch.cat([inputs[name], t], 1) for name, t in more.items()}).logits
        return logits[0, -1 - len(said) :].log_softmax(-1)

    def log_probability(self, data: bytes, prompt: Prompt, answer: str) -> float:
        ids = self.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        logs = self.forward(self.inputs(data, prompt), ids[:-1])
        return float(sum(logs[i, token] for i, token in enumerate(ids)))


def questions() -> list[tuple[bytes, list[Prompt]]]:
    """Pictures of several sizes; prompts of several lengths, both styles, options of one token and of several."""
    formats = list(FORMATS.values())
    asked = []
    for i, size in enumerate([(96, 96), (96, 56), (56, 112), (96, 56)]):
        prompts = [
            Prompt(text, formats[(i + k) % len(formats)].options, ("short", "full")[k % 2])
            for k, text in enumerate(TEXTS)
        ]
        asked.append((picture(i, size=size), prompts))
    return asked


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_answers_are_those_of_one_prompt_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    model, processor = load(family.build, tmp_path, monkeypatch)
    alone, asked = Alone(family, model, processor), questions()
    engine = TransformersEngine(tmp_path, decoding=DECODING)
    replies = engine.answer(asked)
    notes = engine.notes()
    assert notes["way"] in family.way.split(" or ") and family.why in str(notes["why"]), notes
    assert bool(notes["plain_batches"]) == family.alike, notes
    texts, options = [], set()
    for (data, prompts), row in zip(asked, replies, strict=True):
        for prompt, reply in zip(prompts, row, strict=True):
            assert reply.error is None, reply
            assert reply.text == alone.text(data, prompt) == alone.generated(data, prompt)
            yes, no = prompt.options
            assert reply.logp_yes == pytest.approx(alone.log_probability(data, prompt, yes), rel=1e-3)
            assert reply.logp_no == pytest.approx(alone.log_probability(data, prompt, no), rel=1e-3)
            options.add(len(processor.tokenizer(yes, add_special_tokens=False)["input_ids"]))
        texts.append([reply.text for reply in row])
    # Answers that do not hang on the prompt and on the picture would prove nothing.
    assert len(set(chain(*texts))) > 8, texts
    assert len({row[1] for row in texts}) > 1, texts
    assert len(options) > 1


@torch.inference_mode()
def test_attention_both_ways_fails_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PaliGemma with a prompt that can be cut behind the picture: the picture's tokens still see the question."""
    monkeypatch.setattr(PaliGemmaProcessor, "prepare_inputs_layout", ProcessorMixin.prepare_inputs_layout)
    family = FAMILIES["paligemma"]
    alone, asked = Alone(family, *load(family.build, tmp_path, monkeypatch)), questions()[:2]
    engine = TransformersEngine(tmp_path, decoding=DECODING)
    replies = engine.answer(asked)
    notes = engine.notes()
    assert notes["way"] == "plain" and "apart" in notes["why"] and notes["largest_difference"] > 1e-2, notes
    for (data, prompts), row in zip(asked, replies, strict=True):
        assert [reply.text for reply in row] == [alone.text(data, prompt) for prompt in prompts]


@torch.inference_mode()
def test_question_is_never_taken_into_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PaliGemma's processor adds a line's end to a template's own: the tails match, the words before them do not."""
    family = FAMILIES["paligemma"]
    model, processor = load(family.build, tmp_path, monkeypatch)
    processor.chat_template = template("<image>", "{{ '\\n' }}")
    processor.save_pretrained(tmp_path)
    alone, asked = Alone(family, model, processor), questions()[:2]
    engine = TransformersEngine(tmp_path, decoding=DECODING)
    for (data, prompts), row in zip(asked, engine.answer(asked), strict=True):
        assert [(reply.error, reply.text) for reply in row] == [(None, alone.text(data, p)) for p in prompts]
    assert "changes the words behind the image" in engine.notes()["why"]


@torch.inference_mode()
def test_stored_generation_settings_change_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["florence2"]
    alone, asked = Alone(family, *load(family.build, tmp_path, monkeypatch)), questions()[:2]
    settings = alone.model.generation_config.to_dict()
    settings |= {"no_repeat_ngram_size": 1, "num_beams": 3, "min_new_tokens": 4, "repetition_penalty": 3.0}
    GenerationConfig(**settings).save_pretrained(tmp_path)
    engine = TransformersEngine(tmp_path, decoding=DECODING)
    for (data, prompts), row in zip(asked, engine.answer(asked), strict=True):
        assert [reply.text for reply in row] == [alone.text(data, prompt) for prompt in prompts]


@torch.inference_mode()
def test_answer_begins_behind_a_forced_first_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BART and its like have a first token put in front of what they say: options are the words behind it."""
    family = FAMILIES["florence2"]
    alone, asked = Alone(family, *load(family.build, tmp_path, monkeypatch)), questions()[:2]
    begin = alone.processor.tokenizer.bos_token_id
    forced = GenerationConfig(**alone.model.generation_config.to_dict() | {"forced_bos_token_id": begin})
    forced.save_pretrained(tmp_path)
    engine = TransformersEngine(tmp_path, decoding=DECODING)
    for (data, prompts), row in zip(asked, engine.answer(asked), strict=True):
        for prompt, reply in zip(prompts, row, strict=True):
            ids = alone.processor.tokenizer(prompt.options[0], add_special_tokens=False)["input_ids"]
            logs = alone.forward(alone.inputs(data, prompt), [begin, *ids[:-1]])[1:]
            expected = float(sum(logs[i, token] for i, token in enumerate(ids)))
            assert reply.logp_yes == pytest.approx(expected, rel=1e-3)
            limit = DECODING.limit(prompt.style)
            settings = GenerationConfig(do_sample=False, max_new_tokens=limit + 1, forced_bos_token_id=begin)
            out = alone.model.generate(**alone.inputs(data, prompt), generation_config=settings)[0]
            assert reply.text == alone.processor.tokenizer.decode(out, skip_special_tokens=True)
