"""Fusions: whatever joins the encoders, every visual token stands for a known cell of the picture."""

from __future__ import annotations

import io
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_pictures import frames, marked, picture
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from tiny_models import tiny_encoders, tiny_llm
from vsre.diagnose import Prompt, TransformersEngine
from vsre.errors import VsreError
from vsre.model import (
    ENCODERS,
    ChannelFusion,
    EncoderSpec,
    Fusion,
    InterleaveFusion,
    SequenceFusion,
    VsreConfig,
    build_vsre,
    fusion_from,
    plan,
    spec_from_checkpoint,
)
from vsre.model.encoders import as_map, as_tokens
from vsre.model.reference import LLAMA_2_7B

WAYS = {
    "sequence": (SequenceFusion(), 144),
    "channel": (ChannelFusion(), 36),
    "channel 4": (ChannelFusion(grid=4), 16),
    "interleave": (InterleaveFusion(), 144),
    "interleave rows": (InterleaveFusion(by="row"), 144),
    "interleave 8": (InterleaveFusion(grid=8), 256),
}
PAPER = list(ENCODERS.values())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[EncoderSpec]]:
    folder = tmp_path_factory.mktemp("parts")
    return tiny_llm(folder / "llm"), [spec_from_checkpoint(p) for p in tiny_encoders(folder / "encoders").values()]


def build(parts: tuple[Path, list[EncoderSpec]], fusion: Fusion) -> tuple[Any, Any]:
    torch.manual_seed(4)
    return build_vsre(*parts, fusion=fusion)


@pytest.fixture(params=WAYS)
def joined(request: pytest.FixtureRequest, parts: Any) -> tuple[Any, Any, int]:
    """Model, processor and how many visual tokens are expected."""
    fusion, tokens = WAYS[request.param]
    return *build(parts, fusion), tokens


def ask(processor: Any, *seeds: int) -> Any:
    texts = ["USER: <image>\nIs the cat left of the dog? ASSISTANT:"] * len(seeds)
    return processor(images=[[picture(s)] for s in seeds], text=texts, return_tensors="pt")


@torch.no_grad()
def test_all_agree_on_the_number_of_tokens(joined: Any) -> None:
    model, processor, tokens = joined
    config = model.config
    made = plan(config.get_text_config(), model.specs, fusion=model.fusion)
    assert model.get_image_features(torch.rand(2, 3, 96, 96)).shape == (2, tokens, 32)
    assert {made.tokens, config.image_tokens, processor.num_image_tokens, len(config.places)} == {tokens}
    assert made.adapter_parameters == sum(p.numel() for p in model.adapters.parameters())
    for row in made.rows:
        assert row.tokens == sum(row.encoder in place.encoders for place in config.places)
    assert model(**ask(processor, 0)).logits.shape[1] == made.tokens + ask(processor, 0).input_ids.shape[1] - tokens


@torch.no_grad()
def test_saved_loaded_resized_and_asked(joined: Any, tmp_path: Path) -> None:
    model, processor, _ = joined
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert again.fusion == model.fusion and reader.num_image_tokens == processor.num_image_tokens
    assert again.config.places == AutoConfig.from_pretrained(tmp_path).places == model.config.places
    inputs = ask(reader, 0, 1)
    logits = model(**inputs).logits
    assert torch.equal(again(**inputs).logits, logits) and not torch.equal(logits[0], logits[1])
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    answers = again.generate(**inputs, **options)
    assert torch.equal(again.generate(**ask(reader, 1), **options)[0], answers[1])
    beams = again.generate(**inputs, **options, num_beams=2)
    assert torch.equal(again.generate(**ask(reader, 1), **options, num_beams=2)[0], beams[1])
    size = again.config.get_text_config().vocab_size
    again.resize_token_embeddings(size + 3)
    assert torch.equal(again(**inputs).logits[..., :size], logits)


def test_prompts_share_a_prefix_under_every_fusion(joined: Any, tmp_path: Path) -> None:
    """Diagnosis reads the picture once, with the same answers as whole prompts have."""
    model, processor, _ = joined
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    prompts = [Prompt(text, ("Yes", "No"), "short") for text in ("Is it red?", "Is the cat left of the dog?", "Why?")]
    asked = []
    for seed in (0, 1):
        file = io.BytesIO()
        picture(seed, 60, 90).save(file, "PNG")
        asked.append((file.getvalue(), prompts))
    fast, slow = (TransformersEngine(tmp_path, way=way) for way in ("auto", "plain"))
    one, other = fast.answer(asked), slow.answer(asked)
    assert fast.notes()["way"] == "shared prefix" and slow.notes()["way"] == "plain"
    for a, b in zip(chain(*one), chain(*other), strict=True):
        assert a.error is None and a.text == b.text and a.p_yes == pytest.approx(b.p_yes, abs=1e-4)


def test_sequence_leaves_no_trace_in_files(parts: Any, tmp_path: Path) -> None:
    """Files from before there were fusions, budgets and sizes are those that are written today."""
    build(parts, SequenceFusion())[0].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "fusion" not in config and "token_budget" not in config["encoders"][0]["spec"]
    build(parts, ChannelFusion(grid=5))[0].config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["fusion"] == {"kind": "channel", "grid": 5}


@torch.no_grad()
def test_the_marker_changes_the_tokens_over_it_most(joined: Any) -> None:
    """Of each encoder alone, the token that changes most has the marker in its cell; attention is off as in
    test_frame, so that a random encoder shows where a token looks."""
    model = joined[0]
    for name, parameter in model.encoders.named_parameters():
        if any(part in name for part in ("out_proj", "attention.output.dense", "attn.proj")):
            parameter.data.zero_()
    blank = model.encode(frames(marked(96, 96, None), 96))
    for x, y in [(0.27, 0.4), (0.73, 0.6), (0.56, 0.9)]:
        seen = model.encode(frames(marked(96, 96, (x, y)), 96))
        for name in model.encoders:
            others = {other: blank[other][0] for other in model.encoders if other != name}
            with model.knocked_out(others):
                change = (model.project(seen) - model.project(blank)).norm(dim=-1)[0]  # (N,)
            place = model.config.places[int(change.argmax())]
            x0, y0, x1, y1 = place.box
            assert name in place.encoders
            assert x0 - 0.02 <= x <= x1 + 0.02 and y0 - 0.02 <= y <= y1 + 0.02, name


class Through(nn.Module):
    """An adapter that changes nothing: the first channel of each place."""

    def __init__(self, takes_map: bool, width: int) -> None:
        super().__init__()
        self.takes_map, self.weight = takes_map, nn.Parameter(torch.ones(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return as_tokens(features) if self.takes_map else features


def spec_of(name: str, grid: int) -> EncoderSpec:
    return EncoderSpec(name, "x", "dinov2", grid * 2, 2, 1, -1, "none", (0, 0, 0), (1, 1, 1), "projector")


@given(
    st.lists(st.integers(2, 12), min_size=1, max_size=4),
    st.sampled_from(["sequence", "channel", "interleave-cell", "interleave-row"]),
    st.integers(2, 12),
    st.data(),
)
def test_every_token_holds_the_cell_that_is_said(grids: list[int], way: str, common: int, data: Any) -> None:
    """Something at one place of one encoder's grid is found, by the places of the visual tokens, where it was put."""
    specs = [spec_of(f"e{i}", g) for i, g in enumerate(grids)]
    fusion: Fusion = {
        "sequence": SequenceFusion(),
        "channel": ChannelFusion(common),
        "interleave-cell": InterleaveFusion(common),
        "interleave-row": InterleaveFusion(common, by="row"),
    }[way]
    one = data.draw(st.sampled_from(specs))
    row, column = data.draw(st.integers(0, one.grid - 1)), data.draw(st.integers(0, one.grid - 1))
    features = {spec.name: torch.zeros(1, spec.tokens, 1) for spec in specs}
    features[one.name][0, row * one.grid + column] = 1
    adapters = {name: Through(False, 1) for name in [spec.name for spec in specs] + ["channel"]}
    tokens = fusion.join(specs, adapters, features)[0]  # (N, 1), under channel (N, encoders)
    places = fusion.places(specs)
    assert len(tokens) == len(places) == fusion.tokens(specs)
    weights = tokens[:, specs.index(one)] if way == "channel" else tokens[:, 0]
    holding = [i for i, w in enumerate(weights.tolist()) if w > 0]
    assert holding and all(one.name in places[i].encoders for i in holding)  # a coarser grid loses nothing
    total = weights.sum()
    side = one.grid if way == "sequence" else common
    for axis, at in ((0, column), (1, row)):
        centres = torch.tensor([(p.box[axis] + p.box[axis + 2]) / 2 for p in places])
        found = float((weights * centres).sum() / total)
        # Within its own cell and one of the new grid: where a grid is refined, the picture's edge is stretched.
        assert abs(found - (at + 0.5) / one.grid) <= (0.0 if side == one.grid else 0.5 / one.grid + 0.5 / side) + 1e-5


@torch.no_grad()
def test_interleaved_tokens_are_those_of_the_sequence(parts: Any) -> None:
    model, _ = build(parts, SequenceFusion())
    frame = torch.rand(2, 3, 96, 96)
    features = model.encode(frame)
    plain, order = model.project(features), model.config.places
    for by, start in (("cell", ["clip", "siglip", "dinov2", "sam"]), ("row", ["clip"] * 6 + ["siglip"] * 6)):
        fusion = InterleaveFusion(by=by)
        places = fusion.places(model.specs)
        assert [p.encoders[0] for p in places[: len(start)]] == start
        tokens = fusion.join(model.specs, model.adapters, features)
        assert torch.equal(tokens, plain[:, [order.index(place) for place in places]])


@torch.no_grad()
def test_channel_joins_the_features_of_a_cell(parts: Any) -> None:
    llm, specs = parts
    model, _ = build((llm, specs[:2]), ChannelFusion())
    features = model.encode(torch.rand(1, 3, 96, 96))
    assert list(model.adapters) == ["channel"]
    whole = torch.cat([features["clip"], features["siglip"]], dim=-1)  # (1, 36, 32)
    torch.testing.assert_close(model.project(features), model.adapters["channel"](whole))


def test_tokens_of_the_papers_encoders() -> None:
    """Real shapes: the paper's 1,817 tokens, a token a cell of 24 x 24, and four tokens a cell."""
    tokens = {
        fusion.kind: plan(LLAMA_2_7B, PAPER, fusion=fusion).tokens
        for fusion in (SequenceFusion(), ChannelFusion(24), InterleaveFusion(24))
    }
    assert tokens == {"sequence": 1817, "channel": 576, "interleave": 2304}
    width, channels = 4096, 1024 + 1152 + 768 + 256
    made = plan(LLAMA_2_7B, PAPER, fusion=ChannelFusion(24))
    assert made.adapter_parameters == channels * width + 2 * width * width + 3 * width
    assert {(row.adapter, row.tokens) for row in made.rows} == {("shared", 576)}


def test_what_cannot_be_joined_is_said() -> None:
    for kind in (ChannelFusion, InterleaveFusion):
        with pytest.raises(VsreError, match=r"clip 24x24, siglip 27x27, dinov2 16x16, sam 16x16.*grid: 27"):
            plan(LLAMA_2_7B, PAPER, fusion=kind())
        with pytest.raises(VsreError, match="CLS tokens of clip, dinov2 have no cell"):
            plan(LLAMA_2_7B, [spec.with_cls() for spec in PAPER], fusion=kind(24))
        with pytest.raises(VsreError, match="grid is 0"):
            kind(0)
    with pytest.raises(VsreError, match="by is 'column', not cell or row"):
        InterleaveFusion(by="column")  # type: ignore[arg-type]
    with pytest.raises(VsreError, match=r"'chanel' \(did you mean 'channel'\?\)"):
        fusion_from("chanel")
    with pytest.raises(VsreError, match=r"channel: no option 'gird' \(did you mean 'grid'\?\)"):
        fusion_from({"kind": "channel", "gird": 4})
    with pytest.raises(VsreError, match="grids differ"):
        VsreConfig(encoders=[{"spec": spec.to_dict(), "config": {}} for spec in PAPER], fusion={"kind": "interleave"})


def test_a_fusion_is_data() -> None:
    for fusion, _ in WAYS.values():
        assert fusion_from(json.loads(json.dumps(fusion.to_dict()))) == fusion
        assert fusion_from(fusion) is fusion
    assert fusion_from(None) == fusion_from("sequence") == SequenceFusion()


def test_maps_and_tokens() -> None:
    tokens = torch.rand(2, 9, 5)
    assert torch.equal(as_tokens(as_map(tokens)), tokens)
    assert torch.equal(as_map(tokens)[1, :, 2, 0], tokens[1, 6])
