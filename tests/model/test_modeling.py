"""The model: equal results by every path through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model_pictures import picture
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from tiny_models import SIZE
from vsre.errors import VsreError
from vsre.model import VsreConfig, VsreForConditionalGeneration, VsreProcessor


@pytest.fixture(scope="module")
def loaded(tiny_vsre_folder: Path) -> tuple[VsreForConditionalGeneration, VsreProcessor]:
    model = AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder)
    return model, AutoProcessor.from_pretrained(tiny_vsre_folder)


@pytest.fixture
def model(loaded: tuple[VsreForConditionalGeneration, Any]) -> Iterator[VsreForConditionalGeneration]:
    yield loaded[0].eval()
    loaded[0].zero_grad()


@pytest.fixture
def processor(loaded: tuple[Any, VsreProcessor]) -> VsreProcessor:
    return loaded[1]


@pytest.fixture
def inputs(processor: VsreProcessor) -> Any:
    """Two rows of unlike length, one picture each."""
    return processor(
        images=[[picture(0)], [picture(1, 60, 90)]],
        text=["USER: <image>\nIs the cat left of the dog? ASSISTANT:", "USER: <image>\nCake? ASSISTANT:"],
        padding=True,
        return_tensors="pt",
    )


def test_saved_and_loaded_gives_the_same(model: VsreForConditionalGeneration, inputs: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(again, VsreForConditionalGeneration)
    assert again.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert again.generation_config.eos_token_id == model.config.text_config.eos_token_id


def test_loaded_in_half_precision(tiny_vsre_folder: Path, inputs: Any) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(**inputs).logits.dtype == torch.bfloat16


def test_config_round_trip(model: VsreForConditionalGeneration, tmp_path: Path) -> None:
    config = model.config
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, VsreConfig)
    for other in (again, VsreConfig.from_dict(config.to_dict())):
        assert other.specs == config.specs
        assert [c.to_diff_dict() for c in other.vision_configs] == [c.to_diff_dict() for c in config.vision_configs]
        assert other.text_config.to_diff_dict() == config.text_config.to_diff_dict()
    assert config.get_text_config().vocab_size == config.text_config.vocab_size
    assert VsreConfig().specs == ()
    with pytest.raises(VsreError, match="same name"):
        VsreConfig(encoders=config.encoders[:1] * 2)


def test_encoders_stay_frozen(model: VsreForConditionalGeneration, inputs: Any) -> None:
    model.train()
    assert model.training and model.language_model.training and model.adapters.training
    assert not any(module.training for module in model.encoders.modules())
    assert not any(p.requires_grad for p in model.encoders.parameters())
    model(**inputs, labels=inputs.input_ids).loss.backward()
    assert all(p.grad is None for p in model.encoders.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.adapters.parameters())
    with_head = [p for n, p in model.language_model.named_parameters() if p.grad is None]
    assert with_head == []


@torch.no_grad()
def test_left_padding_changes_nothing(
    model: VsreForConditionalGeneration, processor: VsreProcessor, inputs: Any
) -> None:
    # A row alone, without padding, against the same row in a batch.
    alone = processor(images=[picture(1, 60, 90)], text=["USER: <image>\nCake? ASSISTANT:"], return_tensors="pt")
    length = alone.input_ids.shape[1]
    assert inputs.attention_mask[1, 0] == 0
    together = model(**inputs, position_ids=(inputs.attention_mask.cumsum(1) - 1).clamp(min=0)).logits
    torch.testing.assert_close(together[1, -length:], model(**alone).logits[0])
    batch = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    single = model.generate(**alone, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert torch.equal(batch[1, -6:], single[0, -6:])


@torch.no_grad()
def test_generation_reads_the_picture_once(
    model: VsreForConditionalGeneration, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda pixels: calls.append(len(pixels)) or encode(pixels))
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    cached = model.generate(**inputs, **options)
    assert calls == [2]
    assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))
    features = model.get_image_features(inputs.pop("pixel_values"))
    calls.clear()
    assert torch.equal(cached, model.generate(**inputs, image_features=features, **options))
    assert calls == []


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2])
def test_generation_from_what_is_known_of_the_pictures(
    model: VsreForConditionalGeneration, inputs: Any, beams: int
) -> None:
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "num_beams": beams}
    seen = model.generate(**inputs, **options)
    encoded = model.encode(inputs.pop("pixel_values"))
    for known in ({"encoder_features": encoded}, {"image_features": model.project(encoded)}):
        assert torch.equal(seen, model.generate(**inputs, **known, **options))


@torch.no_grad()
def test_several_pictures_a_row(model: VsreForConditionalGeneration, processor: VsreProcessor) -> None:
    a, b, c = (picture(seed) for seed in range(3))
    text = ["USER: <image>\n<image>\nSame? ASSISTANT:", "USER: <image>\nSame? ASSISTANT:"]
    inputs = processor(images=[[a, b], [c]], text=text, padding=True, return_tensors="pt")
    assert inputs.pixel_values.shape == (3, 3, SIZE, SIZE)
    hidden = model(**inputs).image_hidden_states
    assert hidden.shape == (3, 144, 32)
    other = processor(images=[[a, c], [b]], text=text, padding=True, return_tensors="pt")
    assert not torch.allclose(model(**inputs).logits, model(**other).logits)
    # Several answers a row must each read their own row's pictures.
    options = {"max_new_tokens": 4, "eos_token_id": None, "do_sample": False}
    beams = model.generate(**inputs, **options, num_beams=3, num_return_sequences=1)
    alone = processor(images=[[a, b]], text=text[:1], return_tensors="pt")
    assert torch.equal(beams[0, -4:], model.generate(**alone, **options, num_beams=3)[0, -4:])


@torch.no_grad()
def test_text_alone(model: VsreForConditionalGeneration, processor: VsreProcessor) -> None:
    text = processor(text=["USER: Yes? ASSISTANT:"], return_tensors="pt")
    same = model.language_model(**text).logits
    assert torch.equal(model(**text).logits, same)


@torch.no_grad()
def test_frames_as_bytes_or_fractions(model: VsreForConditionalGeneration, inputs: Any) -> None:
    pixels = inputs.pop("pixel_values")
    assert pixels.dtype == torch.uint8
    torch.testing.assert_close(model.get_image_features(pixels), model.get_image_features(pixels.float() / 255))


def test_loss_is_weighted_by_tokens(model: VsreForConditionalGeneration, inputs: Any) -> None:
    labels = inputs.input_ids.masked_fill(inputs.input_ids == model.config.image_token_id, -100)
    whole = model(**inputs, labels=labels)
    mean = torch.nn.functional.cross_entropy(whole.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(whole.loss, mean)
    count = (labels[:, 1:] != -100).sum()
    # In two steps, each divided by the count of the whole batch, as the Trainer accumulates.
    parts = sum(
        model(**{k: v[i : i + 1] for k, v in inputs.items()}, labels=labels[i : i + 1], num_items_in_batch=count).loss
        for i in range(2)
    )
    torch.testing.assert_close(parts, whole.loss)


@torch.no_grad()
def test_logits_to_keep(model: VsreForConditionalGeneration, inputs: Any) -> None:
    whole = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, whole[:, -2:])
    places = torch.tensor([3, 150])
    torch.testing.assert_close(model(**inputs, logits_to_keep=places).logits, whole[:, places])
    labels = inputs.input_ids
    kept = model(**inputs, labels=labels, logits_to_keep=places, shift_labels=labels[:, places + 1])
    wanted = torch.nn.functional.cross_entropy(whole[:, places].flatten(0, 1), labels[:, places + 1].flatten())
    torch.testing.assert_close(kept.loss, wanted)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_branches_equal_separate_rows(
    attention: str, model: VsreForConditionalGeneration, processor: VsreProcessor
) -> None:
    """One prefix with the picture, two branches that see it and themselves only, against two plain rows."""
    model.set_attn_implementation(attention)
    tokenizer = processor.tokenizer
    prefix = processor(images=[picture(0)], text=["USER: <image>\n"], return_tensors="pt")
    branches = [tokenizer(t, add_special_tokens=False).input_ids for t in ("Is the cat?", "The bowl: true?")]
    start = prefix.input_ids.shape[1]
    ids = torch.cat([prefix.input_ids, torch.tensor([branches[0] + branches[1]])], dim=1)
    lengths = [len(b) for b in branches]
    branch = torch.tensor([0] * start + [1] * lengths[0] + [2] * lengths[1])
    causal = torch.ones(len(branch), len(branch), dtype=torch.bool).tril()
    mask = causal & ((branch[:, None] == branch[None]) | (branch[None] == 0))
    positions = torch.cat([torch.arange(start), *(start + torch.arange(n) for n in lengths)])
    packed = model(
        input_ids=ids,
        pixel_values=prefix.pixel_values,
        attention_mask=mask[None, None],
        position_ids=positions[None],
    ).logits[0]
    for number, tokens in enumerate(branches, start=1):
        row = torch.cat([prefix.input_ids, torch.tensor([tokens])], dim=1)
        plain = model(input_ids=row, pixel_values=prefix.pixel_values).logits[0, start:]
        torch.testing.assert_close(packed[branch == number], plain)
    model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_eager_and_sdpa_agree(tiny_vsre_folder: Path, model: VsreForConditionalGeneration, inputs: Any) -> None:
    eager = AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder, attn_implementation="eager")
    assert {m.config._attn_implementation for m in eager.encoders.values()} == {"eager"}
    assert eager.language_model.config._attn_implementation == "eager"
    assert model.language_model.config._attn_implementation == "sdpa"
    mixed = AutoModelForImageTextToText.from_pretrained(
        tiny_vsre_folder, attn_implementation={"": "sdpa", "text_config": "eager"}
    )
    assert {m.config._attn_implementation for m in mixed.encoders.values()} == {"sdpa"}
    assert mixed.language_model.config._attn_implementation == "eager"
    real = inputs.attention_mask.bool()  # what stands on padding is arbitrary
    torch.testing.assert_close(eager(**inputs).logits[real], model(**inputs).logits[real], atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_changes_nothing(model: VsreForConditionalGeneration, inputs: Any) -> None:
    model.train()
    model(**inputs, labels=inputs.input_ids).loss.backward()
    plain = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs, labels=inputs.input_ids).loss.backward()
    model.gradient_checkpointing_disable()
    for name, gradient in plain.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)


def test_what_does_not_fit_is_said(model: VsreForConditionalGeneration, inputs: Any) -> None:
    pixels = inputs.pop("pixel_values")
    with pytest.raises(VsreError, match="288 <image> tokens, but 1 pictures give 144"):
        model(**inputs, pixel_values=pixels[:1])
    with pytest.raises(VsreError, match="they say the same"):
        model(**inputs, pixel_values=pixels, image_features=torch.zeros(2, 144, 32))
    with pytest.raises(VsreError, match="square frames"):
        model(**inputs, pixel_values=pixels[..., :50])
    with pytest.raises(VsreError, match="need input_ids"):
        model(inputs_embeds=torch.zeros(1, 2, 32), pixel_values=pixels)
