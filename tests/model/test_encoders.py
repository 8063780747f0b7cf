"""Encoders of every family, at any size, within a budget: what is taken from them lies where the picture has it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from model_pictures import frames, marked, picture
from PIL import Image
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    ConvNextConfig,
    ConvNextV2Config,
    DINOv3ConvNextConfig,
    PreTrainedConfig,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2VisionConfig,
    ViTConfig,
)

from tiny_models import tiny_encoders, tiny_llm, tiny_vision_configs
from vsre.errors import VsreError
from vsre.model import (
    ENCODERS,
    ChannelFusion,
    build_vsre,
    encoder_pixels,
    plan,
    plan_checkpoints,
    spec_from_checkpoint,
    spec_from_config,
)
from vsre.model.build import load_encoder
from vsre.model.encoder_families import FAMILIES, HALF, Family, interpolated
from vsre.model.encoders import frozen_features, resample, select_features
from vsre.model.reference import LLAMA_2_7B

STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
"""Two stages: a stem of 4 pixels, halved once."""
FIFTH: dict[str, PreTrainedConfig] = {
    "siglip2": Siglip2VisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_patches=36
    ),
    "convnext": ConvNextConfig(**STAGES, num_stages=2, image_size=96),
    "convnextv2": ConvNextV2Config(**STAGES, num_stages=2, image_size=96),
    "dinov3-convnext": DINOv3ConvNextConfig(**STAGES, image_size=96),
}
GRIDS = {"siglip2": 6, "convnext": 12, "convnextv2": 12, "dinov3-convnext": 12}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_encoders(tmp_path_factory.mktemp("encoders"))


def saved(config: PreTrainedConfig, folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def sees_the_marker(encoder: Any, spec: Any) -> None:
    """The cell that changes most is the one with the marker in it; attention is off, as in test_frame."""
    for name, parameter in encoder.named_parameters():
        if any(part in name for part in ("out_proj", "attention.output.dense", "attn.proj", "o_proj")):
            parameter.data.zero_()
    blank = frozen_features(encoder, frames(marked(96, 96, None), 96), spec)
    for x, y in [(0.27, 0.4), (0.73, 0.6)]:
        change = (frozen_features(encoder, frames(marked(96, 96, (x, y)), 96), spec) - blank)[0]
        strength = change.norm(dim=0) if change.ndim == 3 else change.norm(dim=1).view(spec.token_grid, -1)
        n = len(strength)
        row, column = divmod(int(strength.argmax()), n)
        assert abs((column + 0.5) / n - x) <= 0.55 / n + 0.05 and abs((row + 0.5) / n - y) <= 0.55 / n + 0.05


@pytest.mark.parametrize("name", FIFTH)
def test_a_fifth_encoder(name: str, llm: Path, four: dict[str, Path], tmp_path: Path) -> None:
    """Any of them beside the paper's four: from its checkpoint alone, saved, loaded, asked."""
    spec = spec_from_checkpoint(saved(FIFTH[name], tmp_path / name))
    assert (spec.name, spec.grid, spec.tokens, spec.hidden_size) == (name, GRIDS[name], GRIDS[name] ** 2, 16)
    model, processor = build_vsre(llm, [*map(spec_from_checkpoint, four.values()), spec], fusion=ChannelFusion(6))
    model.save_pretrained(tmp_path / "vsre")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "vsre")
    inputs = processor(images=[picture(0)], text=["<image> Yes"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
        with model.knocked_out([name]):
            assert not torch.equal(model(**inputs).logits, again(**inputs).logits)
    assert again.generate(**inputs, max_new_tokens=2).shape[0] == 1
    again.set_attn_implementation("eager")
    sees_the_marker(again.encoders[name], spec)


def test_adding_a_family_is_adding_one_entry(llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    path = saved(ViTConfig(**body, image_size=96), tmp_path / "vit")
    with pytest.raises(VsreError, match=r"model_type 'vit'.*add an entry to vsre\.model\.encoder_families\.FAMILIES"):
        spec_from_checkpoint(path)

    entry = Family(layer=-1, cls="drop", mean=HALF, std=HALF, any_size=True, inputs=interpolated)
    monkeypatch.setitem(FAMILIES, "vit", entry)
    model, processor = build_vsre(llm, [spec_from_checkpoint(path).at(image_size=128)])
    assert processor.num_image_tokens == 64
    model.save_pretrained(tmp_path / "vsre")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "vsre")
    frame = torch.rand(1, 3, 128, 128)
    assert torch.equal(again.get_image_features(frame), model.get_image_features(frame))
    sees_the_marker(again.encoders["vit"], again.specs[0])


def test_real_configs_of_a_fifth_encoder() -> None:
    """Strides, widths and sizes of the published shapes, by the configs' own defaults."""
    made = {
        "siglip2": spec_from_config(Siglip2VisionConfig(), "siglip2", "x"),
        "convnext": spec_from_config(ConvNextV2Config(), "convnext", "x"),
        "dinov3": spec_from_config(DINOv3ConvNextConfig(), "dinov3", "x"),
    }
    assert {n: (s.image_size, s.patch_size, s.tokens, s.hidden_size) for n, s in made.items()} == {
        "siglip2": (256, 16, 256, 768),
        "convnext": (224, 32, 49, 768),
        "dinov3": (224, 32, 49, 768),
    }
    assert plan(LLAMA_2_7B, [made["convnext"].at(image_size=1024)]).tokens == 1024
    oblong = Siglip2VisionConfig(patch_size=[16, 8])
    with pytest.raises(VsreError, match=r"\[16, 8\] pixels, and only squares"):
        spec_from_config(oblong, "oblong", "x")


@torch.no_grad()
def test_siglip2_is_given_what_its_own_processor_gives() -> None:
    image = picture(3)
    spec = spec_from_config(FIFTH["siglip2"], "siglip2", "x")
    own = Siglip2ImageProcessorPil(patch_size=16, max_num_patches=36)(image, return_tensors="pt")
    ours = spec.inputs(encoder_pixels(frames(image, 96), spec))
    assert torch.equal(ours["spatial_shapes"], own["spatial_shapes"])
    torch.testing.assert_close(ours["pixel_values"], own["pixel_values"], atol=1e-5, rtol=0)
    torch.manual_seed(0)
    encoder = AutoModel.from_config(FIFTH["siglip2"]).eval()
    torch.testing.assert_close(encoder(**ours).last_hidden_state, encoder(**own).last_hidden_state)


def test_vision_part_of_a_full_siglip2(tmp_path: Path) -> None:
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    full = Siglip2Model(Siglip2Config(text_config={**text, "vocab_size": 50}, vision_config=FIFTH["siglip2"].to_dict()))
    full.save_pretrained(tmp_path)
    got = load_encoder(spec_from_checkpoint(tmp_path), torch.float32).state_dict()
    wanted = full.vision_model.state_dict()
    assert got.keys() == wanted.keys() and all(torch.equal(got[key], wanted[key]) for key in got)


def test_layouts_of_features() -> None:
    """Channels first or last, CLS and registers before the grid: the same cells come out."""
    spec = spec_from_config(tiny_vision_configs()["dinov2"], "x", "x")
    grid = torch.rand(2, 16, 6, 6)
    tokens = grid.flatten(2).transpose(1, 2)
    before = torch.rand(2, 5, 16)  # CLS and four registers

    def select(features: torch.Tensor, cls: str) -> torch.Tensor:
        return select_features(SimpleNamespace(last_hidden_state=features), dataclasses.replace(spec, cls=cls))

    for features, cls in (
        (grid, "none"),
        (grid.permute(0, 2, 3, 1), "none"),
        (tokens, "none"),
        (torch.cat([before, tokens], 1), "drop"),
    ):
        assert torch.equal(select(features, cls), tokens)
    kept = select(torch.cat([before, tokens], 1), "keep")
    assert torch.equal(kept, torch.cat([before[:, :1], tokens], 1))
    for features, cls in (
        (tokens, "drop"),
        (torch.cat([before, tokens], 1), "none"),
        (tokens[:, :30], "none"),
        (tokens[..., :8], "none"),
        (grid[..., :5], "none"),
    ):
        with pytest.raises(VsreError, match=r"Encoder x: its features have the shape .*, not 6x6 places of 16"):
            select(features, cls)


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_another_input_size(name: str, llm: Path, four: dict[str, Path], tmp_path: Path) -> None:
    own = spec_from_checkpoint(four[name])
    model, processor = build_vsre(llm, [own.at(image_size=160)])
    assert processor.num_image_tokens == 100 and processor.image_processor.size["height"] == 160
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    inputs = processor(images=[picture(0)], text=["<image> Yes"], return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 160, 160)
    assert torch.equal(model(**inputs).logits, again(**inputs).logits)
    sees_the_marker(again.encoders[name], again.specs[0])


def test_a_family_with_one_size_says_so(llm: Path, four: dict[str, Path]) -> None:
    sam = spec_from_checkpoint(four["sam"])
    with pytest.raises(VsreError, match=r"image_size is 64, .* takes 96 pixels only: .* sam_vision_model"):
        plan_checkpoints(llm, [sam.at(image_size=64)])


@pytest.mark.parametrize(
    ("name", "budget", "tokens"),
    [("clip", 36, 36), ("clip", 35, 25), ("siglip", 9, 9), ("dinov2", 1, 1), ("sam", 16, 16), ("sam", 24, 16)],
)
@torch.no_grad()
def test_a_budget_of_tokens(name: str, budget: int, tokens: int, llm: Path, four: dict[str, Path]) -> None:
    """The largest square within it, and no more than there are; features are smaller before they are kept."""
    spec = spec_from_checkpoint(four[name]).at(tokens=budget)
    assert spec.tokens == plan_checkpoints(llm, [spec]).tokens == tokens
    model, processor = build_vsre(llm, [spec])
    assert processor.num_image_tokens == tokens
    frame = torch.rand(1, 3, 96, 96)
    features = model.encode(frame)[name]
    n = spec.token_grid
    assert features.shape == ((1, 8, 4 * n, 4 * n) if name == "sam" else (1, n * n, 16))
    assert model.project({name: features}).shape == (1, tokens, 32)
    sees_the_marker(model.encoders[name], spec)


def test_a_budget_counts_the_cls_token_and_frees_sam_of_its_divisor() -> None:
    clip, sam = ENCODERS["clip"], ENCODERS["sam"]
    assert [clip.at(tokens=n).with_cls().tokens for n in (145, 144, 10_000)] == [145, 122, 577]
    assert dataclasses.replace(sam, image_size=1008, token_budget=225).feature_grid == 60
    assert sam.at(tokens=10_000).feature_grid == 64
    with pytest.raises(VsreError, match=r"a budget of 1 tokens leaves none for the picture\. Give at least 2"):
        clip.with_cls().at(tokens=1)
    assert clip.at() == clip and "token_budget" not in clip.to_dict()
    small = clip.at(tokens=64)
    assert type(small).from_dict(small.to_dict()) == small


@given(st.integers(1, 40), st.integers(1, 40))
def test_resampling_keeps_places(m: int, n: int) -> None:
    """A map that says where it is says so on the new grid, to a twelfth of a cell; only the outermost cells, which
    have neighbours on one side, are off by up to half of one."""
    at = (torch.arange(m) + 0.5) / m
    ramps = torch.stack([at.expand(m, m), at[:, None].expand(m, m), torch.ones(m, m)])[None]
    x, y, one = resample(ramps, n)[0]
    torch.testing.assert_close(one, torch.ones(n, n))
    wanted = (torch.arange(n) + 0.5) / n
    cell = max(1 / m, 1 / n)
    inside = (wanted > cell) & (wanted < 1 - cell)
    for found in (x, y.T):
        off = (found - wanted).abs() / cell
        assert off.max() <= 0.5 and (not inside.any() or off[:, inside].max() <= 1 / 12)


def test_adaptive_pooling_would_move_places() -> None:
    """Why `resample` is not adaptive average pooling: the figure in its docstring."""
    ramp = ((torch.arange(27) + 0.5) / 27).expand(1, 1, 27, 27)
    found = F.adaptive_avg_pool2d(ramp, 24)[0, 0, 0]
    assert float((found - (torch.arange(24) + 0.5) / 24).abs().max()) * 27 == pytest.approx(0.44, abs=0.01)


def test_half_precision_and_grey_pictures(llm: Path, four: dict[str, Path]) -> None:
    spec = spec_from_checkpoint(four["siglip"]).at(tokens=16)
    model, processor = build_vsre(llm, [spec], dtype=torch.bfloat16, fusion=ChannelFusion(5))
    inputs = processor(images=[Image.new("L", (40, 90), 90)], text=["<image> Yes"], return_tensors="pt")
    assert model(**inputs).logits.dtype == torch.bfloat16


def test_weights_that_are_not_there_are_not_made_up(four: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(four["clip"])
    kept = {name: tensor for name, tensor in model.state_dict().items() if "layers.0.mlp.fc1" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(VsreError, match=r"lacks 2 of the model's weights \(.*mlp\.fc1\.bias"):
        load_encoder(spec_from_checkpoint(tmp_path), torch.float32)
