"""Probes read off what is in the features, and nothing that is not."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from tiny_models import CLASSES, tiny_vision_configs
from vsre.model.specs import spec_from_config
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.probes import Seen, grid_features, probe, untrained_twin


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
