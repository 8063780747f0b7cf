"""Probes read off what is in the features, and nothing that is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, CLIPConfig, CLIPModel, SamConfig, SamModel, SiglipConfig, SiglipModel

from tiny_models import CLASSES, tiny_vision_configs
from vsre.model.specs import spec_from_config
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.probes import Seen, cell_shares, grid_features, probe, probe_checkpoint, untrained_twin
from vsre.zoo.text import Fact


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pool, Pool]:
    folder = tmp_path_factory.mktemp("pools")
    return make_pool(folder, 300, seed=5, size=96, workers=2), make_pool(folder, 100, seed=6, size=96, workers=2)


class Oracle:
    """An encoder of which one knows what its features hold: `tell(pool, scene, row, column)` for every patch."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, pools: tuple[Pool, Pool], tell: Any) -> None:
        spec = spec_from_config(tiny_vision_configs()["siglip"], "oracle", "oracle")
        self.spec = dataclasses.replace(spec, hidden_size=len(tell(pools[0], 0, 0, 0)))
        self.features = {}
        for pool in pools:
            for i in range(len(pool)):
                grid = [[tell(pool, i, r, c) for c in range(6)] for r in range(6)]
                self.features[pool.images[i].tobytes()] = torch.tensor(np.array(grid), dtype=torch.float32)

    def __call__(self, pixel_values: torch.Tensor, **_: Any) -> Any:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std))
        images = ((pixel_values * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        found = [self.features[np.ascontiguousarray(image).tobytes()] for image in images]
        return SimpleNamespace(last_hidden_state=torch.stack(found).flatten(1, 2))


def names(pool: Pool, i: int, r: int, c: int) -> list[float]:
    """One-hot: the class that covers most of the patch."""
    cell = pool.objects[i][16 * r : 16 * r + 16, 16 * c : 16 * c + 16]
    known = sorted({f.name for facts in pool.facts for f in facts})
    seen, areas = np.unique(cell[cell > 0], return_counts=True)
    hot = [0.0] * 80
    if len(seen):
        hot[sum(map(ord, pool.facts[i][seen[areas.argmax()] - 1].name)) % 80] = 1.0
    assert known
    return hot


def places(pool: Pool, i: int, r: int, c: int) -> list[float]:
    return [r, c, r * c]


def test_each_probe_finds_its_own(pools: tuple[Pool, Pool]) -> None:
    found = {}
    for name, tell in (("names", names), ("places", places), ("nothing", lambda *_: [0.0, 1.0])):
        oracle = Oracle(pools, tell)
        found[name] = probe(oracle, oracle.spec, *pools)
    assert found["names"]["class_at_place"] > 0.4 > 0.15 > found["places"]["class_at_place"]
    assert found["places"]["position"] > 0.9 and found["places"]["relation"] > 0.95
    assert found["nothing"]["position"] < 0.05 and found["nothing"]["relation"] < 0.6
    assert found["names"]["relation"] < 0.75


@pytest.mark.parametrize("name", CLASSES)
def test_features_of_every_kind_of_encoder(name: str, pools: tuple[Pool, Pool]) -> None:
    config = tiny_vision_configs()[name]
    encoder = AutoModel.from_config(config).eval()
    spec = spec_from_config(encoder.config, name, name)
    features = grid_features(encoder, spec, torch.from_numpy(np.array(pools[1].images[:5])).permute(0, 3, 1, 2))
    assert features.shape == (5, 6, 6, spec.hidden_size) and torch.isfinite(features).all()
    twin = untrained_twin(encoder)
    assert type(twin) is type(encoder) and not twin.training
    assert not torch.equal(
        features, grid_features(twin, spec, torch.from_numpy(np.array(pools[1].images[:5])).permute(0, 3, 1, 2))
    )


@given(size=st.integers(1, 20), g=st.integers(1, 30), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_shares_of_cells_are_those_of_the_picture(size: int, g: int, seed: int) -> None:
    """Also where g does not divide the picture's size, or is larger: each pixel is cut into g x g first."""
    objects = np.random.default_rng(seed).integers(0, 3, (size, size), np.uint8)
    fine = np.kron(objects, np.ones((g, g), np.uint8)).reshape(g, size, g, size)
    for k in (1, 2):
        assert np.array_equal(cell_shares(objects, k, g), (fine == k).mean((1, 3)))


def test_shares_are_what_they_were_where_the_grid_divides(pools: tuple[Pool, Pool]) -> None:
    for g in (1, 4, 6, 24):
        cut = np.asarray(pools[0].objects[0]).reshape(g, 96 // g, g, 96 // g)
        assert np.array_equal(cell_shares(np.asarray(pools[0].objects[0]), 1, g), (cut == 1).mean((1, 3)))


@pytest.mark.parametrize(("g", "first"), [(27, 20), (6, 4), (192, 144)])
def test_cells_lie_where_they_are_on_the_picture(g: int, first: int) -> None:
    """Of 96 pixels in a grid of 27, cells of three pixels would end at the 81st."""
    objects = np.zeros((1, 96, 96), np.uint8)
    objects[..., 72:] = 1  # the last quarter
    pool = Pool(np.zeros((1, 96, 96, 3), np.uint8), objects, [[Fact("cat", (0.75, 0.0, 1.0, 1.0))]])
    columns = torch.arange(g, dtype=torch.float32).expand(1, g, g)[..., None]
    seen = Seen.of(columns, pool)
    assert sorted({*seen.patches.flatten()}) == [*range(first, g)]
    assert seen.objects.flatten() == pytest.approx(g * 0.875 - 0.5, abs=0.5)


def test_the_vision_part_of_a_full_checkpoint_is_probed(pools: tuple[Pool, Pool], tmp_path: Path) -> None:
    vision, body = tiny_vision_configs(), {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**body, "intermediate_size": 32, "vocab_size": 50}
    full = {
        "clip": CLIPModel(CLIPConfig(text_config=text, vision_config=vision["clip"], projection_dim=16)),
        "siglip": SiglipModel(SiglipConfig(text_config=text, vision_config=vision["siglip"])),
        "sam": SamModel(
            SamConfig(
                vision_config=vision["sam"],
                prompt_encoder_config={"hidden_size": 8, "image_size": 96, "patch_size": 4, "mask_input_channels": 4},
                mask_decoder_config={
                    "hidden_size": 8,
                    "mlp_dim": 8,
                    "num_attention_heads": 1,
                    "iou_head_hidden_dim": 8,
                },
            )
        ),
    }
    few = [Pool(p.images[:20], p.objects[:20], p.facts[:20]) for p in pools]
    for name, model in full.items():
        model.save_pretrained(tmp_path / name)
        found = probe_checkpoint(str(tmp_path / name), *few)
        assert set(found) == {"trained", "untrained"}
        assert found["trained"]["objects"] == found["untrained"]["objects"] > 0
        assert found["trained"] != found["untrained"]


def test_scenes_are_probed_in_parts(pools: tuple[Pool, Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pools[0]
    marks = torch.rand((20, 6, 6, 2), generator=torch.Generator().manual_seed(0))
    whole = Seen.of(marks, pool)
    parts = Seen.joined([Seen.of(marks[p.start : p.stop], pool, p.start) for p in (range(0, 7), range(7, 20))])
    for field in dataclasses.fields(Seen):
        assert np.array_equal(getattr(whole, field.name), getattr(parts, field.name)), field.name
    empty = Pool(pool.images[:1], np.zeros_like(pool.objects[:1]), pool.facts[:1])
    none = Seen.of(marks[:1], empty)
    assert none.patches.shape == none.objects.shape == (0, 2) and len(Seen.joined([none, whole]).scenes)


def test_patches_belong_to_what_covers_them(pools: tuple[Pool, Pool]) -> None:
    pool = pools[0]
    marks = torch.arange(36, dtype=torch.float32).view(1, 6, 6, 1).repeat(20, 1, 1, 1)
    seen = Seen.of(marks, pool)
    assert len(seen.patches) == len(seen.classes) and len(seen.objects) == len(seen.middles) == len(seen.scenes)
    a, b = seen.pairs()
    assert len(a) and (seen.scenes[a] == seen.scenes[b]).all() and (a != b).all()
    covered = sum(
        int(((pool.objects[i].reshape(6, 16, 6, 16) == k).mean((1, 3)) >= 0.5).sum())
        for i in range(20)
        for k in range(1, len(pool.facts[i]) + 1)
    )
    assert len(seen.patches) == covered
