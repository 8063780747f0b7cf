"""How the toy SDXL is made: its pictures and prompts, the computed encoder, training that can be stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason='needs diffusers: pip install "vsre[diffusion]"')

from vsre.errors import VsreError
from vsre.relations.things import Verdict
from vsre.repaint.presets import load_config
from vsre.repaint.verify import Verification
from vsre.repaint.weights import identity, located
from vsre.zoo import diffusion_train
from vsre.zoo.diffusion import DiffusionObjective
from vsre.zoo.diffusion_data import MIRRORED, Paintings, Themes, make_paintings, prompt_of
from vsre.zoo.diffusion_figures import reconstruction, shown, triplets_of
from vsre.zoo.diffusion_train import begin_vae, tokenizers, train_sdxl, train_unet
from vsre.zoo.train import load_settings

OWN = load_settings()["sdxl"]
UNET_POOL = OWN["pools"]["unet"]
THEMES = Themes(tuple(UNET_POOL["classes"]), tuple(UNET_POOL["relations"]))
SMALL: dict[str, Any] = {
    **OWN,
    "size": 32,
    "pools": {
        "vae": {"scenes": 8, "seed": 1, "third": 0.5},
        "unet": {**UNET_POOL, "scenes": 8, "seed": 2},
        "held_out": {**UNET_POOL, "scenes": 4, "seed": 3},
    },
    "vae": {**OWN["vae"], "crop": 16, "pictures": 8, "fit": {"steps": 2, "batch": 2, "lr": 1e-3, "save_every": 1}},
    "unet": {
        "tokenizer": OWN["unet"]["tokenizer"],
        "text": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        "unet": {**OWN["unet"]["unet"], "block_out_channels": [8, 8, 16], "attention_head_dim": [1, 1, 2]},
        "objective": {"average": 0.5, "drop": 0.5},
        "fit": {"steps": 4, "batch": 2, "lr": 1e-2, "optimizer": "muon", "save_every": 2},
    },
}
"""The real thing in a second."""


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Paintings:
    return make_paintings(tmp_path_factory.mktemp("pools"), THEMES, 24, seed=9, size=96)


def test_paintings_show_what_they_were_drawn_for(paintings: Paintings, tmp_path: Path) -> None:
    assert len(paintings) == 24 and paintings.images.shape == (24, 96, 96, 3)
    for i, (names, true) in enumerate(zip(paintings.names, paintings.true, strict=True)):
        subject, relation, thing = true[0]
        assert {subject, thing} == set(names) <= set(THEMES.classes)
        assert {r for _, r, _ in true} <= set(THEMES.relations) and relation in THEMES.relations
        assert set(np.unique(paintings.objects[i])) <= {0, 1, 2}
    again = make_paintings(tmp_path, THEMES, 24, seed=9, size=96)
    assert np.array_equal(again.images, paintings.images) and again.true == paintings.true


def test_left_of_is_left_in_the_picture_and_right_in_the_mirror(paintings: Paintings) -> None:
    """The boxes read off the masks, the statements and the mirrored prompts agree with one another."""
    seen = 0
    for i, true in enumerate(paintings.true):
        for said in true:
            if said[1] not in ("left of", "right of"):
                continue
            middle = {
                name: np.nonzero(paintings.objects[i] == k)[1].mean() for k, name in enumerate(paintings.names[i], 1)
            }
            assert (middle[said[0]] < middle[said[2]]) == (said[1] == "left of")
            prompts = {prompt_of([said], paintings.names[i], Random(n), mirrored=True) for n in range(40)}
            assert any(MIRRORED[said[1]] in prompt for prompt in prompts)
            assert not any(said[1] in prompt for prompt in prompts)
            seen += 1
    assert seen > 4


def test_every_prompt_fits_the_text_encoders(paintings: Paintings, tmp_path: Path) -> None:
    both = tokenizers(OWN["unet"]["tokenizer"], tmp_path)
    again = tokenizers(OWN["unet"]["tokenizer"], tmp_path)
    assert [t.get_vocab() for t in both] == [t.get_vocab() for t in again], "made once"
    for tokenizer in both:
        prompts = [prompt_of(t, n, Random(k)) for k, (t, n) in enumerate(zip(paintings.true, paintings.names))]  # noqa: B905
        ids = tokenizer(prompts).input_ids
        assert max(map(len, ids)) <= OWN["unet"]["tokenizer"]["length"] == tokenizer.model_max_length
        assert tokenizer.decode(tokenizer("a cat and a dog").input_ids, skip_special_tokens=True) == "a cat and a dog"
        assert len(tokenizer("a traffic light above a zebra").input_ids) == 8, "a word of the world is one token"


def test_the_encoder_is_the_projection_and_the_decoder_begins_with_its_colours(paintings: Paintings) -> None:
    torch.manual_seed(0)
    vae, projection = begin_vae(OWN["vae"], paintings)
    vae.eval()
    pixels = torch.from_numpy(paintings.images[:8].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        encoded, wanted = vae.encode(pixels).latent_dist, projection(pixels)
    assert encoded.mean.shape == (8, 4, 24, 24) and float(encoded.std.max()) < 0.01
    assert (encoded.mean - wanted).abs().mean() < 0.01 * wanted.abs().mean()
    assert 0.5 < wanted.std() < 1.5, "latents of about unit deviation, so scaling_factor is 1"
    begun = reconstruction(vae, paintings)["vae_psnr"]
    grey = float((-10 * (pixels / 2).square().mean((1, 2, 3)).log10()).mean())
    assert begun > 18 > grey


def paint_nothing(*_: Any, **__: Any) -> dict[str, float]:
    return {"vae_psnr": 1.0}


def test_a_stopped_training_ends_in_the_same_weights(tmp_path: Path, paintings: Paintings) -> None:
    _, projection = begin_vae(OWN["vae"], paintings)
    parts = SMALL["unet"]
    whole, result = train_unet(parts, paintings, projection, tmp_path / "whole")
    assert result.finished
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tmp_path / "whole" / name, tmp_path / "stopped" / name)
    stopped, first = train_unet(parts, paintings, projection, tmp_path / "stopped", seconds=0)
    assert not first.finished and first.steps < 4
    resumed, last = train_unet(parts, paintings, projection, tmp_path / "stopped")
    assert last.finished and last.steps == 4
    ends = resumed.state_dict()
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, ends[name]), name
    assert any(
        not torch.equal(a, b) for a, b in zip(stopped.averaged.parameters(), resumed.averaged.parameters(), strict=True)
    )


class Part(torch.nn.Linear):
    def set_attn_processor(self, processor: Any) -> None: ...

    def set_attn_implementation(self, name: str) -> None: ...


def test_the_average_follows_slowly() -> None:
    objective = DiffusionObjective(Part(2, 2), Part(2, 2), Part(2, 2), size=96, average=0.9, drop=0.0)
    before = objective.unet.weight.detach().clone()
    with torch.no_grad():
        objective.unet.weight.add_(1.0)
    objective.update_average(10_000)
    assert torch.allclose(objective.averaged["unet"].weight, before + 0.1)
    objective.update_average(0)
    assert torch.allclose(objective.averaged["unet"].weight, before + 0.91), "fast at the beginning"


def test_the_whole_of_it_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import AutoPipelineForText2Image

    monkeypatch.setattr(diffusion_train, "sdxl_figures", paint_nothing)
    settings = {"sdxl": SMALL}
    work, out = tmp_path / "work", tmp_path / "out"
    assert not train_sdxl(settings, work, out, seconds=0, say=lambda text: None), "stopped in the VAE"
    said: list[str] = []
    assert train_sdxl(settings, work, out, say=said.append)
    assert any("written" in text for text in said)
    card = json.loads((out / "sdxl" / "card.json").read_text())
    assert card["made"]["steps"] == 4 and card["made"]["samples seen"] == 8
    assert [p.name for p in out.iterdir()] == ["sdxl"], "nothing aside is left"
    pipe = AutoPipelineForText2Image.from_pretrained(out / "sdxl", dtype=torch.float32, local_files_only=True)
    assert type(pipe).__name__ == "StableDiffusionXLPipeline"
    trial = tmp_path / "trial"
    assert train_sdxl(settings, tmp_path / "two", trial, steps=2, say=lambda text: None)
    assert json.loads((trial / "sdxl" / "card.json").read_text())["made"]["steps"] == 2


def test_rows_for_the_verifier_carry_boxes_and_pictures(paintings: Paintings) -> None:
    for row in triplets_of(paintings, range(4)):
        assert row.image is not None and row.width == 96
        for box in (row.subject_box, row.object_box):
            assert box is None or (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)


def test_shares_of_what_a_verifier_sees(paintings: Paintings) -> None:
    class Sees:
        name = "sees"

        def verify(self, image: bytes, triplet: Any) -> Verification:
            whole = (0.0, 0.0, 1.0, 1.0)
            boxes = {triplet.subject: whole} | ({triplet.object: whole} if triplet.image_name != "0.png" else {})
            return Verification(Verdict.PASS if triplet.image_name == "1.png" else Verdict.FAIL, 0.5, boxes)

    assert shown(Sees(), triplets_of(paintings, range(4))) == {"both found": 0.75, "PASS": 0.25, "FAIL": 0.75}


def test_a_pipeline_that_the_zoo_lacks() -> None:
    with pytest.raises(VsreError, match=r"zoo:nothing: no such diffusion model"):
        located("zoo:nothing")
    with pytest.raises(VsreError, match=r"zoo:nothing"):
        identity(load_config("scenes").changed(model="zoo:nothing"))
    assert located("owner/name") == "owner/name"
