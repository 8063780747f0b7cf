from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from train_world import load

from tiny_models import tiny_llava, tiny_vsre
from vsre.errors import VsreError
from vsre.train import ChatEncoder
from vsre.train.examples import conversation

PROMPTS = ["Is the cat left of the dog?", "Is the naïve “cat” 左 of the dog? <b>", "True or false: x."]
ANSWERS = ["Yes", "No, the naïve cat 左 is not left of it.", "True"]


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(tiny_llava(tmp_path_factory.mktemp("llava")))[1]


def learnt(encoder: ChatEncoder, prompts: list[str], answers: list[str]) -> list[str]:
    examples = encoder.encode([f"q{i}" for i in range(len(prompts))], prompts, answers)
    return [encoder.tokenizer.decode(e.ids[e.first : e.end]) for e in examples]


def test_only_the_answer_and_its_end_are_learnt(processor: Any) -> None:
    encoder = ChatEncoder(processor)
    assert learnt(encoder, PROMPTS, ANSWERS) == [f" {a}</s>" for a in ANSWERS]


def test_the_mask_is_the_one_transformers_gives(processor: Any) -> None:
    encoder = ChatEncoder(processor)
    examples = encoder.encode(list("abc"), PROMPTS, ANSWERS)
    for prompt, answer, example in zip(PROMPTS, ANSWERS, examples, strict=True):
        theirs = processor.tokenizer.apply_chat_template(
            conversation(prompt, answer),
            chat_template=processor.chat_template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        mask = theirs["assistant_masks"]
        begun = len(example.ids) - len(mask)  # <s>, which the processor adds and a bare tokenizer call here does not
        assert example.ids[begun:].tolist() == theirs["input_ids"]
        assert (example.first - begun, example.end - begun) == (mask.index(1), len(mask))


def test_the_prompt_is_the_one_seen_at_inference(processor: Any) -> None:
    encoder = ChatEncoder(processor)
    example = encoder.encode(["a"], PROMPTS[:1], ANSWERS[:1])[0]
    from PIL import Image

    messages = conversation(PROMPTS[0])
    messages[0]["content"][0]["image"] = Image.new("RGB", (9, 9))
    asked = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    ids = asked["input_ids"][0]
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    at = ids.index(encoder.image_token_id)
    once = ids[: at + 1] + ids[at + encoder.visual_tokens :]
    assert once == example.ids[: example.first].tolist()


def test_visual_tokens_are_counted_with_the_processor(processor: Any, tmp_path: Path) -> None:
    assert ChatEncoder(processor).visual_tokens == 36
    assert ChatEncoder(load(tiny_vsre(tmp_path, ("clip", "sam")))[1]).visual_tokens == 72


def test_a_row_that_teaches_nothing_is_named(processor: Any) -> None:
    silent = ChatEncoder(processor)
    silent.template = silent.template.replace("{{ ' ' }}{%- for part", "{%- for part").replace("{{ eos_token }}", "")
    with pytest.raises(VsreError, match="question b/t2: no token of it would be learnt"):
        silent.encode(["a/t1", "b/t2"], ["Is it?", "Is it not?"], ["Yes", ""])


def test_a_template_without_marks_is_refused(processor: Any) -> None:
    template = processor.chat_template
    try:
        processor.chat_template = template.replace("generation -", "filter trim -").replace(
            "endgeneration", "endfilter"
        )
        with pytest.raises(VsreError, match=r"has no \{% generation %\} marks"):
            ChatEncoder(processor)
    finally:
        processor.chat_template = template


def test_a_template_that_tokenizes_prompts_differently_is_refused(processor: Any) -> None:
    """The known cause of a loss of 0: training cuts the prompt into other tokens than inference does."""
    encoder = ChatEncoder(processor)
    encoder.template = encoder.template.replace(
        "{{ 'ASSISTANT:' }}\n        {%- gen", "{{ 'ASSISTANT: ' }}\n        {%- gen"
    )
    with pytest.raises(VsreError, match="question q7: the prompt is tokenized differently"):
        encoder.encode(["q7"], PROMPTS[:1], ANSWERS[:1])


def test_the_end_is_learnt_where_the_template_leaves_it_out(processor: Any) -> None:
    encoder = ChatEncoder(processor)
    encoder.template = encoder.template.replace("{{ eos_token }}", "{{ ' ' }}")  # as llava-hf's own template ends
    assert learnt(encoder, PROMPTS, ANSWERS) == [f" {a}</s>" for a in ANSWERS]


@pytest.mark.parametrize("prompt", ["What does <image> mean?", "<image><image>"])
def test_an_image_token_in_the_text_is_refused(processor: Any, prompt: str) -> None:
    with pytest.raises(VsreError, match="question bad: its text holds"):
        ChatEncoder(processor).encode(["good", "bad"], ["Is it?", prompt], ["Yes", "No"])
