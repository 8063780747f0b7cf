"""Every family of models must be answered for as its own generate and forward answer for one prompt alone."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Literal

import pytest
import torch
from diagnose_data import picture
from transformers import GenerationConfig, PaliGemmaProcessor
from transformers.processing_utils import ProcessorMixin

from tiny_families import template
from tiny_families_reference import DECODING, FAMILIES, Alone, load, questions
from vsre.diagnose import Reply, TransformersEngine
from vsre.sources.images import load_image

Way = Literal["auto", "plain"]


def check(replies: list[list[Reply]], expected: list[list[tuple[str, list[float]]]]) -> None:
    for reply, (text, logps) in zip(chain(*replies), chain(*expected), strict=True):
        assert reply.error is None, reply
        assert reply.text == text
        assert [score.logp for score in reply.scores] == pytest.approx(logps, rel=1e-3)


SELDOM = ("kosmos2", "llava-onevision", "cohere2-vision", "glm-4v", "qwen3.5")
MARKED = [pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ()) for name in FAMILIES]


@pytest.mark.parametrize("name", MARKED)
@torch.inference_mode()
def test_answers_are_those_of_one_prompt_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    alone, asked = Alone(family, *load(family.build, tmp_path, monkeypatch)), questions()
    expected = [[alone.answer(data, prompt) for prompt in prompts] for data, prompts in asked]
    assert [[alone.generated(data, p) for p in prompts] for data, prompts in asked] == [
        [text for text, _ in row] for row in expected
    ]
    engine = TransformersEngine(tmp_path, decoding=DECODING)
    check(engine.answer(asked), expected)
    notes = engine.notes()
    assert notes["way"] == family.way and family.why in str(notes["why"]), notes
    assert bool(notes["plain_batches"]) == family.alike, notes
    if family.way != "plain":
        engine = TransformersEngine(tmp_path, decoding=DECODING, way="plain")
        check(engine.answer(asked), expected)
        assert engine.notes()["batch_prompts"] == 64 and not engine.notes()["plain_batches"], engine.notes()
    # Answers that do not hang on the prompt and on the picture would prove nothing.
    texts = [[text for text, _ in row] for row in expected]
    assert len(set(chain(*texts))) > 8, texts
    assert len({row[1] for row in texts}) > 1, texts
    lengths = {len(alone.ids(option)) for _, prompts in asked for prompt in prompts for option in prompt.options}
    assert len(lengths) > 1


@torch.inference_mode()
def test_prefixes_with_other_masks_are_proved_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 3.2's pictures are padded to one shape: what was shown of four tiles says nothing of one."""
    family = FAMILIES["llama3.2-vision"]
    load(family.build, tmp_path, monkeypatch)
    engine = TransformersEngine(tmp_path, decoding=DECODING)
    sizes = ((96, 96), (40, 40), (96, 96))
    one, other, again = (engine.renderer.prefix(load_image(picture(i, size=size))) for i, size in enumerate(sizes))
    assert {n: t.shape for n, t in one.tensors.items()} == {n: t.shape for n, t in other.tensors.items()}
    assert one.like != other.like
    assert one.like == again.like and not torch.equal(one.tensors["pixel_values"], again.tensors["pixel_values"])
    assert one.behind["cross_attention_mask"].tolist() == [[[[1, 1, 1, 1]]]]
    assert other.behind["cross_attention_mask"].tolist() == [[[[1, 0, 0, 0]]]]


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
