"""The zoo's objectives and their training loop: losses that fall, parts that equal the whole, runs that resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import set_seed

from vsre.errors import VsreError
from vsre.model.adapters import ADAPTERS
from vsre.zoo.base import imitate
from vsre.zoo.encoders import MAKERS
from vsre.zoo.evaluate import general_accuracy, mask_iou, nearest_neighbour, object_features, retrieval
from vsre.zoo.fit import FitConfig, fit
from vsre.zoo.language import make_llava, make_llm, make_tokenizer
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.text import Exchange
from vsre.zoo.train import ORDER, load_settings, train_zoo

NAMES = ("clip", "siglip", "dinov2", "sam")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return make_pool(tmp_path_factory.mktemp("pools"), 32, seed=5, size=96, workers=1)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(1536)


def test_a_pool_shows_its_facts(pool: Pool, tmp_path: Path) -> None:
    assert pool.images.shape == (32, 96, 96, 3) and pool.objects.shape == (32, 96, 96)
    for i, facts in enumerate(pool.facts):
        assert 2 <= len(facts) <= 5 and len({f.name for f in facts}) == len(facts)
        for k, fact in enumerate(facts, start=1):
            ys, xs = np.nonzero(pool.objects[i] == k)
            if len(xs):  # what one sees of an object lies in its box, but for a pixel of rounding
                x0, y0, x1, y1 = (96 * v for v in fact.box)
                assert x0 - 2 <= xs.min() and xs.max() <= x1 + 2 and y0 - 2 <= ys.min() and ys.max() <= y1 + 2
    again = make_pool(tmp_path, 32, seed=5, size=96, workers=1)
    assert np.array_equal(again.images, pool.images), "a pool follows from its seed"


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_on_one_batch(name: str, pool: Pool, tokenizer: Any) -> None:
    set_seed(0)
    objective, collate = MAKERS[name](load_settings()[name], pool, tokenizer)
    batch = collate(range(8))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = objective(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], losses


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_part_equals_the_trained_whole(name: str, pool: Pool, tokenizer: Any, tmp_path: Path) -> None:
    objective, _ = MAKERS[name](load_settings()[name], pool, tokenizer)
    objective.eval()
    part = objective.encoder().eval()
    part.save_pretrained(tmp_path)
    loaded = type(part).from_pretrained(tmp_path).eval()
    pixels = torch.rand(2, 3, 96, 96)
    whole = {
        "clip": lambda: objective.model.vision_model(pixels).last_hidden_state,
        "siglip": lambda: objective.model.vision_model(pixels).last_hidden_state,
        "dinov2": lambda: objective.teacher(pixels).last_hidden_state,
        "sam": lambda: objective.model.vision_encoder(pixels).last_hidden_state,
    }[name]
    with torch.no_grad():
        assert torch.equal(loaded(pixels).last_hidden_state, whole())


def test_only_the_teacher_follows_by_average(pool: Pool, tokenizer: Any) -> None:
    objective, _ = MAKERS["dinov2"](load_settings()["dinov2"], pool, tokenizer)
    before = [p.clone() for p in objective.teacher.parameters()]
    with torch.no_grad():
        for p in objective.student.parameters():
            p.add_(1.0)
    objective.update_teacher()
    for old, new in zip(before, objective.teacher.parameters(), strict=True):
        assert torch.allclose(new, old + (1 - objective.momentum), atol=1e-5)


def test_sam_looks_for_prompts_at_the_scale_of_objects(pool: Pool, tokenizer: Any) -> None:
    """Near places have near codes: transformers' own start, made for loading, has waves finer than a pixel."""
    objective, _ = MAKERS["sam"](load_settings()["sam"], pool, tokenizer)
    codes = objective.model.get_image_wide_positional_embeddings()[0]  # (channels, g, g)
    flat = torch.nn.functional.normalize(codes, dim=0)
    neighbours = (flat[:, :, 1:] * flat[:, :, :-1]).sum(0).mean()
    opposite = (flat[:, 0, 0] * flat[:, -1, -1]).sum()
    assert neighbours > 0.8 > opposite
    assert torch.equal(
        objective.model.shared_image_embedding.positional_embedding,
        objective.model.prompt_encoder.shared_embedding.positional_embedding,
    )


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.drop = torch.nn.Dropout(0.2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.layer(self.drop(x)) - y) ** 2).mean()}


def numbers(indices: Sequence[int]) -> dict[str, torch.Tensor]:
    x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(int(i))) for i in indices])
    return {"x": x, "y": x.sum(1, keepdim=True)}


def test_a_stopped_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    config = FitConfig(steps=12, batch=4, lr=1e-2, save_every=5)
    set_seed(0)
    whole = Line()
    start = {k: v.clone() for k, v in whole.state_dict().items()}
    assert fit(whole, numbers, config, tmp_path / "whole").finished
    stopped = Line()
    stopped.load_state_dict(start)
    first = fit(stopped, numbers, config, tmp_path / "stopped", seconds=0)
    assert not first.finished and first.steps < 12
    (tmp_path / "stopped" / "checkpoint-11").mkdir()  # what a kill inside a save leaves
    (tmp_path / "stopped" / "checkpoint-11" / "model.safetensors").write_bytes(b"half")
    resumed = Line()
    assert fit(resumed, numbers, config, tmp_path / "stopped").finished
    with pytest.raises(VsreError, match=r"begun with other settings \(lr\)"):
        fit(resumed, numbers, replace(config, lr=2 * config.lr), tmp_path / "stopped")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_figures_of_untrained_encoders(pool: Pool, tokenizer: Any) -> None:
    """Each measurement runs and says about chance for weights that know nothing."""
    settings = load_settings()
    clip, _ = MAKERS["clip"](settings["clip"], pool, tokenizer)
    assert retrieval(clip.eval(), pool, tokenizer, candidates=32)["caption_recall_at_1"] < 0.3
    sam, _ = MAKERS["sam"](settings["sam"], pool, tokenizer)
    assert 0 <= mask_iou(sam.eval(), pool, scenes=32)["mask_iou_from_box"] < 0.3
    dino, _ = MAKERS["dinov2"](settings["dinov2"], pool, tokenizer)
    same = nearest_neighbour(dino.eval(), pool, pool)
    assert same["nearest_neighbour_accuracy"] == 1.0, "every object is its own nearest neighbour"
    features, names = object_features(dino.encoder(), pool, dino.mean, dino.std, 16)
    assert len(features) == len(names) and features.shape[1] == 128


def test_an_unknown_model_lists_the_zoo(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="clip, siglip"):
        train_zoo("llama", tmp_path)
    with pytest.raises(VsreError, match=r"base is made of clip, llm, and .* `vsre zoo train clip --out"):
        train_zoo("base", tmp_path / "work", tmp_path / "out")
    assert not (tmp_path / "work" / "pools").exists(), "told before any scene is drawn"


def test_language_model_and_llava_are_made(pool: Pool, tokenizer: Any, tmp_path: Path) -> None:
    settings = load_settings()
    llm, collate = make_llm(settings["llm"], tokenizer)
    batch = collate(range(4))
    learnt = batch["labels"] != -100
    assert learnt.any(1).all() and torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])
    assert (batch["input_ids"][learnt] == tokenizer.eos_token_id).sum() == 4, "the end of every answer is learnt"
    llm.save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    clip, _ = MAKERS["clip"](settings["clip"], pool, tokenizer)
    clip.encoder().save_pretrained(tmp_path / "clip")
    model, processor = make_llava(tmp_path / "clip", tmp_path / "llm", 96)
    for name, p in llm.model.named_parameters():
        assert torch.equal(p, model.model.language_model.get_parameter(name))
    figures = general_accuracy(model.eval(), processor, pool, [[Exchange("either", "A cat or a dog?", "cat")]] * 2)
    assert figures["questions"] == 2 and 0 <= figures["either"] <= 1


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_positions_are_drawn_to_be_seen(name: str, pool: Pool, tokenizer: Any) -> None:
    """Beside the patches, not a fiftieth of them."""
    objective, _ = MAKERS[name](load_settings()[name], pool, tokenizer)
    (drawn,) = (p for n, p in objective.named_parameters() if "position_embedding" in n and "text" not in n)
    assert 0.4 < float(drawn.std()) < 0.6


@pytest.mark.slow
def test_the_whole_zoo_from_nothing(tmp_path: Path) -> None:
    """Two steps of everything, in order, each on what came before it; a second call changes nothing but the time."""
    pytest.importorskip("diffusers")
    from transformers import AutoModelForImageTextToText

    for name in ORDER:
        assert train_zoo(name, tmp_path / "work", tmp_path / "out", steps=2, say=lambda text: None)
        assert (tmp_path / "out" / name / "card.json").is_file()
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "merged")
    assert merged.dtype == torch.float32 and merged.specs[0].checkpoint == "zoo:clip"
    before = {k: v.clone() for k, v in merged.state_dict().items()}
    train_zoo("merged", tmp_path / "work", tmp_path / "out", steps=2, say=lambda text: None)
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "merged").state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_an_adapter_takes_over_what_a_projector_does() -> None:
    set_seed(0)
    teacher = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 24))
    student = ADAPTERS["projector"](16, 24)
    features = torch.randn(200, 9, 16)
    with torch.no_grad():
        before = float(((student(features) - teacher(features)) ** 2).mean() / teacher(features).var())
    missed = imitate(student, teacher, features, steps=300)
    assert missed < 0.15 < 0.5 < before
