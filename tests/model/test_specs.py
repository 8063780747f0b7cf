"""Encoder specs: one rule each, real shapes on the meta device, specs read from checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPModel,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SiglipConfig,
    SiglipModel,
)

from tiny_models import tiny_encoders, tiny_vision_configs
from vsre.errors import VsreError
from vsre.model import (
    ENCODERS,
    EncoderSpec,
    VsreConfig,
    VsreForConditionalGeneration,
    spec_from_checkpoint,
    spec_from_config,
)
from vsre.model.build import load_encoder
from vsre.model.reference import LLAMA_2_7B, VISION


def test_tokens_of_the_four_encoders() -> None:
    assert {name: spec.tokens for name, spec in ENCODERS.items()} == {
        "clip": 576,
        "siglip": 729,
        "dinov2": 256,
        "sam": 256,
    }
    kept = {name: spec.with_cls().tokens for name, spec in ENCODERS.items()}
    assert kept == {"clip": 577, "siglip": 729, "dinov2": 257, "sam": 256}
    assert sum(kept.values()) == 1819
    assert ENCODERS["siglip"].usable == 378


def test_specs_follow_from_the_real_configs() -> None:
    for name, spec in ENCODERS.items():
        assert spec_from_config(VISION[name], name, spec.checkpoint) == spec


@pytest.mark.parametrize(("keep_cls", "tokens"), [(False, 1817), (True, 1819)])
def test_real_shapes_on_the_meta_device(keep_cls: bool, tokens: int) -> None:
    specs = [spec.with_cls() if keep_cls else spec for spec in ENCODERS.values()]
    config = VsreConfig.of(LLAMA_2_7B, [(spec, VISION[spec.name]) for spec in specs], image_token_id=31999)
    assert (config.image_tokens, config.frame_size) == (tokens, 1024)
    with torch.device("meta"):
        model = VsreForConditionalGeneration(config)
        frames = torch.zeros(2, 3, 1024, 1024, dtype=torch.uint8)
        features = model.encode(frames)
        extra = int(keep_cls)
        assert {name: tuple(f.shape) for name, f in features.items()} == {
            "clip": (2, 576 + extra, 1024),
            "siglip": (2, 729, 1152),
            "dinov2": (2, 256 + extra, 768),
            "sam": (2, 256, 64, 64),
        }
        visual = model.project(features)
        assert visual.shape == (2, tokens, 4096)
        assert model.language_model(inputs_embeds=visual, logits_to_keep=1).logits.shape == (2, 1, 32000)
    sam = model.adapters["sam"]
    assert sam.conv1.weight.shape[:2] == (512, 256)
    assert sam.conv2.weight.shape[:2] == (1024, 512)


def test_spec_survives_json() -> None:
    for spec in ENCODERS.values():
        assert EncoderSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_spec_from_checkpoint(tmp_path: Path) -> None:
    for name, path in tiny_encoders(tmp_path).items():
        spec = spec_from_checkpoint(path)
        real = ENCODERS[name]
        assert (spec.name, spec.tokens, spec.image_size) == (name, 36, 96)
        rule = ("layer", "cls", "mean", "std", "adapter", "model_type")
        assert [getattr(spec, field) for field in rule] == [getattr(real, field) for field in rule]


def test_mean_and_std_come_from_the_image_processor(tmp_path: Path) -> None:
    path = tiny_encoders(tmp_path)["clip"]
    (path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    spec = spec_from_checkpoint(path, name="mine")
    assert (spec.name, spec.mean, spec.std) == ("mine", (0.1, 0.2, 0.3), (1, 1, 1))


def test_vision_part_of_a_full_checkpoint(tmp_path: Path) -> None:
    vision = tiny_vision_configs()
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 50,
    }
    prompt = SamPromptEncoderConfig(hidden_size=8, image_size=96, patch_size=4, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(hidden_size=8, mlp_dim=8, num_attention_heads=1, iou_head_hidden_dim=8)
    torch.manual_seed(0)
    full = {
        "clip": CLIPModel(CLIPConfig(text_config=text, vision_config=vision["clip"], projection_dim=16)),
        "siglip": SiglipModel(SiglipConfig(text_config=text, vision_config=vision["siglip"])),
        "sam": SamModel(
            SamConfig(vision_config=vision["sam"], prompt_encoder_config=prompt, mask_decoder_config=decoder)
        ),
    }
    for name, model in full.items():
        model.save_pretrained(tmp_path / name)
        spec = spec_from_checkpoint(tmp_path / name)
        assert spec.model_type == vision[name].model_type
        got = load_encoder(spec, torch.float32).state_dict()
        start = "vision_encoder." if name == "sam" else "vision_model."
        keep = start if name == "sam" else ""  # SamVisionModel has the prefix, the others have not
        wanted = {
            keep + key.removeprefix(start): value for key, value in model.state_dict().items() if key.startswith(start)
        }
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_bad_specs_say_what_to_do() -> None:
    sam = ENCODERS["sam"]
    with pytest.raises(VsreError, match="63x63 is not divisible by 4"):
        dataclasses.replace(sam, image_size=1008)
    with pytest.raises(VsreError, match="no patch"):
        dataclasses.replace(sam, image_size=8)
    with pytest.raises(VsreError, match=r"'a\.b'"):
        dataclasses.replace(sam, name="a.b")
    with pytest.raises(VsreError, match="no vision encoder of a known kind"):
        spec_from_config(BertConfig(), "bert", "x")
