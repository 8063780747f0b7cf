"""The processor: placeholders, chat template, answer masks, the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoProcessor, PreTrainedTokenizerFast, pipeline

from tiny_models import tiny_tokenizer
from vsre.errors import VsreError
from vsre.model import VsreImageProcessor, VsreProcessor, chat_template, prepare_tokenizer

IMAGE = Image.new("RGB", (80, 60), (200, 30, 30))


@pytest.fixture(scope="module", params=["vsre", "llava"])
def processor(request: pytest.FixtureRequest) -> Any:
    return AutoProcessor.from_pretrained(request.getfixturevalue(f"tiny_{request.param}_folder"))


def talk(*turns: str, image: Any = IMAGE) -> list[dict[str, Any]]:
    """User and assistant in turn; the picture comes first."""
    messages: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[i % 2], "content": [{"type": "text", "text": text}]}
        for i, text in enumerate(turns)
    ]
    messages[0]["content"].insert(0, {"type": "image", "image": image})
    return messages


def test_the_form_of_the_prompt(processor: Any) -> None:
    text = processor.apply_chat_template(talk("Is it red?", "Yes"))
    assert text == "USER: <image>\nIs it red? ASSISTANT: Yes</s>"
    prompt = processor.apply_chat_template(talk("Is it red?"), add_generation_prompt=True)
    assert prompt == "USER: <image>\nIs it red? ASSISTANT:"
    turns = processor.apply_chat_template(talk("a", "b", "c"), add_generation_prompt=True)
    assert turns == "USER: <image>\na ASSISTANT: b</s>USER: c ASSISTANT:"
    plain = processor.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<b>&amp;"}]
    )
    assert plain == "Be brief. USER: <b>&amp; "


def test_prompt_tokens_begin_the_whole(processor: Any) -> None:
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    whole = processor.apply_chat_template(talk("Is it red?", "Yes"), **options).input_ids[0]
    prompt = processor.apply_chat_template(talk("Is it red?"), add_generation_prompt=True, **options)
    assert torch.equal(whole[: prompt.input_ids.shape[1]], prompt.input_ids[0])


def test_answer_mask(processor: Any) -> None:
    """The mask marks the answers with their end tokens only, however many placeholders precede."""
    conversations = [
        talk("Is it red?", "Yes"),
        talk("Is it red? Yes", "No, it is not red.", "And now?", "True"),
    ]
    out = processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
        processor_kwargs={"padding": True},
    )
    masks = out["assistant_masks"].bool()
    decode = processor.tokenizer.decode
    assert masks.shape == out["input_ids"].shape
    assert decode(out["input_ids"][0][masks[0]]) == " Yes</s>"
    assert decode(out["input_ids"][1][masks[1]]) == " No, it is not red.</s> True</s>"
    assert not masks[out["attention_mask"] == 0].any()


def test_placeholders_and_round_trip(tiny_vsre_folder: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vsre_folder)
    assert isinstance(processor, VsreProcessor) and isinstance(processor.image_processor, VsreImageProcessor)
    out = processor(images=[IMAGE], text=["<image> red"])
    assert list(out["input_ids"][0]).count(processor.image_token_id) == 144
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.num_image_tokens == 144 and again.chat_template == chat_template()
    assert again.tokenizer.padding_side == "left"
    with pytest.raises(ValueError, match="number of images"):
        processor(images=[IMAGE], text=["<image><image>"])


def test_tokenizers_are_made_ready() -> None:
    tokenizer = tiny_tokenizer()
    before = len(tokenizer)
    assert prepare_tokenizer(tokenizer) == 0 and len(tokenizer) == before
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str().replace("<image>", "<old>"))
    bare = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", padding_side="right")
    with pytest.raises(VsreError, match="no <image> token"):
        VsreProcessor(VsreImageProcessor(), bare)
    assert prepare_tokenizer(bare) == 1  # <pad> is in its vocabulary already
    assert bare.pad_token == "<pad>" and bare.padding_side == "left"
    assert len(bare("<image>", add_special_tokens=False).input_ids) == 1
    with pytest.raises(VsreError, match="no end-of-sequence token"):
        prepare_tokenizer(PreTrainedTokenizerFast(tokenizer_object=core))


def test_pipeline(tiny_vsre_folder: Path) -> None:
    pipe = pipeline("image-text-to-text", model=str(tiny_vsre_folder))
    options = {"max_new_tokens": 4, "return_full_text": False}
    chat = talk("Is it red?")
    (answer,) = pipe(text=chat, **options)
    (direct,) = pipe(images=IMAGE, text="USER: <image>\nIs it red? ASSISTANT:", **options)
    assert isinstance(answer["generated_text"], str)
    assert answer["generated_text"] == direct["generated_text"]
    both = pipe(text=[chat, talk("And the dog? Yes or no?")], batch_size=2, **options)
    assert both[0][0]["generated_text"] == answer["generated_text"]
