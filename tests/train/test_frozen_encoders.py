"""Frozen encoders: where they run, how many pictures at once, and what is said where memory runs out."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from train_world import load

from tiny_models import tiny_llava, tiny_vsre
from vsre.errors import VsreError
from vsre.train.features import FeatureCache, use_features
from vsre.train.vision import frozen_vision


@pytest.fixture(params=[tiny_llava, tiny_vsre])
def vision(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return frozen_vision(*load(request.param(tmp_path / "model")), bf16=False)


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def test_pictures_are_encoded_a_few_at_once_and_fewer_where_memory_runs_out(
    vision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pictures(6)
    encode, sizes, most = type(vision)._encode, [], [99]

    def bounded(self: Any, some: torch.Tensor) -> Any:
        sizes.append(len(some))
        if len(some) > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return encode(self, some)

    expected = {name: value.bfloat16() for name, value in encode(vision, pixels).items()}
    monkeypatch.setattr(type(vision), "_encode", bounded)
    monkeypatch.setattr(vision, "at_once", 4)
    for limit, tried in ((99, [4, 2]), (2, [4, 2, 2, 2]), (1, [2, 1, 1, 1, 1, 1, 1])):
        most[0] = limit
        sizes.clear()
        found = vision.features(pixels)
        assert sizes == tried and found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-2)
    most[0] = 0
    with pytest.raises(torch.OutOfMemoryError):
        vision.features(pixels)


def test_features_come_from_where_the_encoders_are(vision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the model need not be there."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # unknown to the device that holds nothing
    for encoder, _ in vision._encoders().values():
        encoder.to("meta")
    for value in vision.features(pictures(2)).values():
        assert value.device.type == "meta" and len(value) == 2


class Trainer:
    """As much of a VsreTrainer as the cache is filled by, on a device that is not the model's."""

    class args:
        device = torch.device("cuda")

    def __init__(self, vision: Any) -> None:
        self.vision = vision
        self.train_dataset = self.data_collator = self
        self.n_images = 3

    def image_id(self, image: int) -> str:
        return f"sha256:{image:04d}"

    def pixels(self, image: int) -> torch.Tensor:
        return pictures(self.n_images)[image]

    def read_from(self, features: FeatureCache) -> None:
        self.features = features


def test_the_cache_is_filled_on_the_device_that_trains(
    vision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[str] = []
    for encoder, _ in vision._encoders().values():
        monkeypatch.setattr(encoder, "to", lambda device: places.append(device.type))
    encode = type(vision)._encode
    monkeypatch.setattr(type(vision), "_encode", lambda self, some: (places.append("-"), encode(self, some))[1])
    said = use_features(Trainer(vision), tmp_path, Console(file=io.StringIO()))
    assert "3 of them encoded" in said
    each = len(vision.revisions)
    assert places == ["cuda"] * each + ["-", "-"] + ["cpu"] * each

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(type(vision), "_encode", full)
    with pytest.raises(VsreError, match=r"out of memory: cuda has no room for one picture in"):
        use_features(Trainer(vision), tmp_path / "full", Console(file=io.StringIO()))
    assert places[-each:] == ["cpu"] * each
