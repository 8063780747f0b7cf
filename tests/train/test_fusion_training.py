"""Training under every fusion: the feature cache changes nothing, and what is saved is what was trained."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from train_world import load, write_world
from transformers import AutoModel, ConvNextV2Config

from tiny_models import tiny_encoders, tiny_llm
from vsre.model import ChannelFusion, EncoderSpec, Fusion, InterleaveFusion, build_vsre, spec_from_checkpoint
from vsre.train import run_stages
from vsre.train.logs import read_log
from vsre.train.vision import frozen_vision


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[EncoderSpec]:
    """The four encoders, one within a budget and one larger than its checkpoint, and a fifth."""
    folder = tmp_path_factory.mktemp("encoders")
    made = {name: spec_from_checkpoint(path) for name, path in tiny_encoders(folder).items()}
    torch.manual_seed(0)
    fifth = AutoModel.from_config(ConvNextV2Config(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=96))
    fifth.save_pretrained(folder / "convnext")
    made |= {"sam": made["sam"].at(tokens=16), "clip": made["clip"].at(image_size=128)}
    return [*made.values(), spec_from_checkpoint(folder / "convnext")]


@pytest.mark.parametrize("fusion", [ChannelFusion(grid=5), InterleaveFusion(grid=4, by="row")])
def test_the_same_losses_with_and_without_kept_features(
    fusion: Fusion, specs: list[EncoderSpec], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model, processor = build_vsre(tiny_llm(tmp_path / "llm"), specs, fusion=fusion)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    source = write_world(tmp_path)
    stage = {
        "name": "tune",
        "train": ["adapters", "llm"],
        "data": [source],
        "lr": 1e-2,
        "batch_images": 3,
        "max_steps": 3,
        "questions_per_image": 3,
    }
    losses, ended = {}, {}
    for kept in (False, True):
        model, processor = load(tmp_path / "model")
        out, said = tmp_path / f"kept-{kept}", io.StringIO()
        done = run_stages(
            model, processor, [stage], out, seed=0, console=Console(file=said, width=300), feature_cache=kept
        )
        assert ("of them encoded" in said.getvalue()) == kept
        losses[kept] = [line["loss"] for line in read_log(out / "01-tune" / "log.jsonl")]
        ended[kept], _ = load(Path(done["model"]))
        assert ended[kept].fusion == fusion
        before, _ = load(tmp_path / "model")
        assert all(
            not torch.equal(a, b)
            for a, b in zip(ended[kept].adapters.parameters(), before.adapters.parameters(), strict=True)
        )
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    assert len(set(losses[True])) == 3 and losses[True][-1] < losses[True][0]
    for a, b in zip(ended[True].parameters(), ended[False].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_features_are_kept_once_for_all_fusions_and_anew_for_a_budget(specs: list[EncoderSpec], tmp_path: Path) -> None:
    llm = tiny_llm(tmp_path)

    def revisions(fusion: Fusion, encoders: list[EncoderSpec]) -> dict[str, str]:
        model, processor = build_vsre(llm, encoders, fusion=fusion)
        vision = frozen_vision(model, processor, bf16=False)
        assert vision is not None
        return vision.revisions

    first = revisions(ChannelFusion(grid=5), specs)
    assert revisions(InterleaveFusion(grid=3), specs) == first
    smaller = [spec.at(tokens=9) if spec.name == "sam" else spec for spec in specs]
    changed = revisions(ChannelFusion(grid=5), smaller)
    assert [name for name in first if changed[name] != first[name]] == ["sam"]
