"""LLaVA as a one-encoder VSRE and back: equal logits, and what cannot be said either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    SiglipVisionConfig,
)

from tiny_models import SIZE, tiny_text_config, tiny_tokenizer, tiny_vision_configs
from vsre.errors import VsreError
from vsre.export.llava import convert_from_llava, convert_to_llava
from vsre.model import VsreForConditionalGeneration, build_vsre, spec_from_checkpoint
from vsre.model.adapters import LlavaProjector
from vsre.model.from_llava import check_equal, llava_from_vsre, vsre_from_llava

TEMPLATE = (  # LLaVA-1.5's, which renders a question as VSRE's does and marks its answers without an end
    "{% for message in messages %}{{ message['role'].upper() + ': '}}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' '}}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def square(seed: int, width: int = 120, height: int = 120) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def make_llava(
    vision: PreTrainedConfig | None = None,
    text: PreTrainedConfig | None = None,
    *,
    crop: bool = True,
    template: str = TEMPLATE,
    **fields: Any,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A tiny random LLaVA as published ones are: shortest edge to the input's size, then its centre."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    vision = vision or tiny_vision_configs()["clip"]
    text = text or tiny_text_config(tokenizer)
    has_cls = not isinstance(vision, SiglipVisionConfig)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        **{"image_seq_length": (SIZE // vision.patch_size) ** 2, **fields},
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.normal_(0, 0.2)  # at transformers' 0.02 the text would hardly see the picture
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": SIZE}, do_center_crop=crop, crop_size={"height": SIZE, "width": SIZE}
        ),
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=template,
        num_additional_image_tokens=int(has_cls),
    )
    return model, processor


def ask(model: Any, processor: Any, image: Image.Image, question: str = "Is the cat left of the dog?") -> torch.Tensor:
    """The logits of a question about a picture, through the model's own processor and chat template."""
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        return model(**inputs).logits


CASES: dict[str, dict[str, Any]] = {
    "llava-1.5": {},
    "full": {"vision_feature_select_strategy": "full"},
    "counted from the front": {"vision_feature_layer": 1},
    "last": {"vision_feature_layer": -1},
    "embeddings": {"vision_feature_layer": -3},
    "in a list": {"vision_feature_layer": [-2]},
    "no bias": {"multimodal_projector_bias": False},
    "tied": {"tie_word_embeddings": True},
    "dinov2": {"vision": tiny_vision_configs()["dinov2"], "vision_feature_layer": -1},
    "siglip": {
        "vision": tiny_vision_configs()["siglip"],
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equal_logits_both_ways(case: dict[str, Any], tmp_path: Path) -> None:
    llava, processor = make_llava(**case)
    model, own = vsre_from_llava(llava, processor)
    assert check_equal(model, llava) == 0
    image = square(1)
    wanted = ask(llava, processor, image)
    torch.testing.assert_close(ask(model, own, image), wanted)
    assert not torch.allclose(ask(model, own, square(2)), wanted, atol=1e-4), "the picture does not matter"
    # Saved and loaded by its own classes it is the same model.
    model.save_pretrained(tmp_path / "vsre")
    own.save_pretrained(tmp_path / "vsre")
    again = VsreForConditionalGeneration.from_pretrained(tmp_path / "vsre")
    torch.testing.assert_close(ask(again, type(own).from_pretrained(tmp_path / "vsre"), image), wanted)
    back, back_processor = llava_from_vsre(again, own)
    assert check_equal(again, back) == 0
    torch.testing.assert_close(ask(back, back_processor, image), wanted)
    back.save_pretrained(tmp_path / "llava")
    back_processor.save_pretrained(tmp_path / "llava")
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava")
    torch.testing.assert_close(ask(loaded, LlavaProcessor.from_pretrained(tmp_path / "llava"), image), wanted)


def test_generates_the_same_and_shares_its_weights() -> None:
    llava, processor = make_llava()
    model, own = vsre_from_llava(llava, processor)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    text = "USER: <image>\nIs the cat left of the dog? ASSISTANT:"
    answers = [
        m.generate(**p(images=square(3), text=text, return_tensors="pt"), **options)
        for m, p in ((llava, processor), (model, own))
    ]
    assert torch.equal(*answers)
    assert model.get_input_embeddings().weight is llava.get_input_embeddings().weight
    assert not any(p.requires_grad for p in model.encoders.parameters())
    assert isinstance(model.adapters["clip"], LlavaProjector)


def test_pictures_that_are_not_square_are_seen_whole() -> None:
    """LLaVA's processor cuts: what lies outside its square changes nothing. VSRE sees it."""
    llava, processor = make_llava()
    model, own = vsre_from_llava(llava, processor)
    wide = square(4, 240, 120)
    other = wide.copy()
    other.paste((255, 0, 0), (0, 0, 40, 120))
    assert torch.equal(ask(llava, processor, wide), ask(llava, processor, other))
    assert not torch.allclose(ask(model, own, wide), ask(model, own, other), atol=1e-4)
    # Written back as LLaVA it still sees the whole: padded, never cut.
    back, back_processor = llava_from_vsre(model, own)
    assert not torch.allclose(ask(back, back_processor, wide), ask(back, back_processor, other), atol=1e-4)
    one, two = (
        p.image_processor(images=[wide], return_tensors="pt")["pixel_values"][0].float() for p in (own, back_processor)
    )
    spec = model.config.specs[0]
    shown = (one / 255 - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    assert (shown - two).abs().mean() < 0.05  # the same places; borders and rounding differ a little


def test_a_chat_template_that_asks_otherwise_stays() -> None:
    other = TEMPLATE.replace("'ASSISTANT:'", "'Answer:'")
    _, own = vsre_from_llava(*make_llava(template=other))
    assert own.chat_template == other
    _, own = vsre_from_llava(*make_llava())
    assert "{%- generation -%}" in own.chat_template  # VSRE's: the same prompts, and answers that end


def test_what_vsre_cannot_say() -> None:
    siglip = tiny_vision_configs()["siglip"]
    for fields, words in (
        ({"vision_feature_layer": [-2, -1]}, r"layers \[-2, -1\]"),
        ({"projector_hidden_act": "relu"}, "activation 'relu'"),
        ({"vision": siglip}, "no CLS token: what is left is no square"),
    ):
        with pytest.raises(VsreError, match=words):
            vsre_from_llava(*make_llava(**fields))
    llava, processor = make_llava()
    llava.config.image_token_index = 7
    with pytest.raises(VsreError, match="the model's image token 7"):
        vsre_from_llava(llava, processor)


def test_what_llava_cannot_say(tiny_vsre_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="4 encoders"):
        convert_to_llava(tiny_vsre_folder, tmp_path / "out")
    parts = tiny_vsre_folder.parent
    three_layers, processor = build_vsre(parts / "llm", [spec_from_checkpoint(parts / "encoders" / "clip")])
    with pytest.raises(VsreError, match="adapter 'projector'; LLaVA's projector has two layers"):
        llava_from_vsre(three_layers, processor)
    siglip = {"vision": tiny_vision_configs()["siglip"], "vision_feature_select_strategy": "full"}
    model, processor = vsre_from_llava(*make_llava(**siglip))
    model.config.encoders[0]["spec"]["layer"] = -1
    with pytest.raises(VsreError, match="after the final norm"):
        llava_from_vsre(model, processor)


def test_logits_that_differ_are_found() -> None:
    llava, processor = make_llava()
    model, _ = vsre_from_llava(llava, processor)
    other, _ = make_llava()
    with torch.no_grad():
        other.model.multi_modal_projector.linear_2.bias += 0.1
    with pytest.raises(VsreError, match="not the same function"):
        check_equal(model, other)


def test_folders(tiny_llava_folder: Path, tmp_path: Path) -> None:
    report = convert_from_llava(tiny_llava_folder, tmp_path / "vsre")
    assert report["largest_difference_of_logits"] == 0 and report["visual_tokens"] == 36
    assert "squeezes" in report["pictures"]
    back = convert_to_llava(tmp_path / "vsre", tmp_path / "llava")
    assert back["largest_difference_of_logits"] == 0
    with pytest.raises(VsreError, match="not a LLaVA"):
        convert_from_llava(tmp_path / "vsre", tmp_path / "again")
    with pytest.raises(VsreError, match="not a VSRE"):
        convert_to_llava(tiny_llava_folder, tmp_path / "again")
    with pytest.raises(VsreError, match="something already"):
        convert_from_llava(tiny_llava_folder, tmp_path / "vsre")
    assert not (tmp_path / "again").exists()


def test_half_precision(tiny_llava_folder: Path, tmp_path: Path) -> None:
    report = convert_from_llava(tiny_llava_folder, tmp_path / "vsre", dtype="bfloat16")
    assert report["largest_difference_of_logits"] == 0
    assert VsreForConditionalGeneration.from_pretrained(tmp_path / "vsre", dtype="auto").dtype == torch.bfloat16
