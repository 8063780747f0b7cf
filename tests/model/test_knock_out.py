"""Knocking an encoder out: its tokens tell nothing of the picture, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_pictures import picture
from transformers import AutoModelForImageTextToText, AutoProcessor

from tiny_models import tiny_encoders, tiny_llm
from vsre.diagnose import TransformersEngine
from vsre.errors import VsreError
from vsre.model import (
    ChannelFusion,
    InterleaveFusion,
    SequenceFusion,
    build_vsre,
    resolve_checkpoint,
    spec_from_checkpoint,
)


@pytest.fixture(scope="module", params=[SequenceFusion(), ChannelFusion(grid=5), InterleaveFusion(by="row")])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model of each fusion, and two rows that differ by their pictures only."""
    folder = tmp_path_factory.mktemp("parts")
    specs = [spec_from_checkpoint(path) for path in tiny_encoders(folder).values()]
    torch.manual_seed(5)
    model, processor = build_vsre(tiny_llm(folder / "llm"), specs, fusion=request.param)
    texts = ["USER: <image>\nIs the cat left of the dog? ASSISTANT:"] * 2
    return model, processor(images=[[picture(0)], [picture(1)]], text=texts, return_tensors="pt")


@torch.no_grad()
def test_without_eyes_pictures_are_alike(asked: Any) -> None:
    model, inputs = asked
    features = model.encode(inputs.pixel_values)
    text = {key: value for key, value in inputs.items() if key != "pixel_values"}
    seeing = model(**inputs).logits
    assert not torch.allclose(seeing[0], seeing[1])
    with model.knocked_out(model.encoders):
        for ways in ({"pixel_values": inputs.pixel_values}, {"encoder_features": features}):
            blind = model(**text, **ways).logits
            assert torch.equal(blind[0], blind[1])
        answers = model.generate(**inputs, max_new_tokens=5, do_sample=False, eos_token_id=None)
        assert torch.equal(answers[0], answers[1])
    assert torch.equal(model(**inputs).logits, seeing)


@torch.no_grad()
def test_only_its_own_tokens_change(asked: Any) -> None:
    model, inputs = asked
    features = model.encode(inputs.pixel_values)
    whole = model.project(features)
    shuffled = features | {"sam": features["sam"].flip(0)}
    assert not torch.equal(model.project(shuffled), whole)
    with model.knocked_out(["sam"]):
        without = model.project(features)
        assert torch.equal(model.project(shuffled), without)
    for i, place in enumerate(model.config.places):
        changed = not torch.equal(without[:, i], whole[:, i])
        assert changed == ("sam" in place.encoders)


@torch.no_grad()
def test_given_features_take_the_place(asked: Any) -> None:
    model, inputs = asked
    features = model.encode(inputs.pixel_values)
    mean = features["dinov2"].mean(0)
    with model.knocked_out({"dinov2": mean}):
        found = model.project(features)
    assert torch.equal(found, model.project(features | {"dinov2": mean.expand_as(features["dinov2"])}))
    with model.knocked_out({"dinov2": features["dinov2"][0]}):
        assert torch.equal(model.project(features)[0], model.project({k: v[:1] for k, v in features.items()})[0])


@torch.no_grad()
def test_it_ends_with_its_block(asked: Any) -> None:
    model, inputs = asked
    features = model.encode(inputs.pixel_values)
    whole = model.project(features)
    with model.knocked_out(["clip"]):
        one = model.project(features)
        with model.knocked_out(["sam"]):
            both = model.project(features)
        assert torch.equal(model.project(features), one)
    with model.knocked_out(["sam", "clip"]):
        assert torch.equal(model.project(features), both) and not torch.equal(both, one)
    with pytest.raises(RuntimeError, match="stop"), model.knocked_out(["clip"]):
        raise RuntimeError("stop")
    assert torch.equal(model.project(features), whole)
    with pytest.raises(VsreError, match=r"Encoders clap: this model has none of that name. It has clip, siglip"):
        model.knocked_out(["clap"]).__enter__()


@torch.no_grad()
def test_each_encoder_of_the_shipped_expert_counts() -> None:
    folder = Path(resolve_checkpoint("zoo:vsre"))
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(images=[picture(0)], text=["USER: <image>\nIs it? ASSISTANT:"], return_tensors="pt")
    logits = [model(**inputs).logits]
    for name in model.encoders:
        with model.knocked_out([name]):
            logits.append(model(**inputs).logits)
    assert len(logits) == 5 and all(not torch.equal(a, b) for i, a in enumerate(logits) for b in logits[:i])


def test_a_diagnosis_knows_who_was_knocked_out() -> None:
    engine = TransformersEngine("zoo:vsre", device="cpu")
    whole = engine.settings()
    with engine.model.knocked_out(["sam"]):
        assert engine.settings()["vision"]["knocked_out"] == {"sam": "zeros"}
        assert engine.settings() != whole
    assert engine.settings() == whole
    assert whole["vision"]["fusion"]["kind"] == "sequence" and "checkpoint" not in str(whole["vision"])
