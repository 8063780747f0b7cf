"""The feature cache changes what is computed, and nothing of what comes out."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from rich.console import Console
from train_world import load, write_world

from tiny_models import tiny_llava, tiny_vsre
from vsre.train import features as module
from vsre.train import run_stages
from vsre.train.features import FeatureCache, use_features
from vsre.train.logs import read_log
from vsre.train.vision import frozen_vision

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["vsre.train", "transformers.models.llava", "transformers.models.llama"])


class World(NamedTuple):
    model: Path
    source: dict[str, Path]


@pytest.fixture(scope="module", params=[tiny_llava, tiny_vsre])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return World(request.param(folder), write_world(folder))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("llava")
    return World(tiny_llava(folder), write_world(folder))


def train(world: World, out: Path, kept: Path | bool, **changes: Any) -> tuple[list[float], str]:
    """The losses of a run of two stages, and what it said."""
    stages = [
        {"name": "align", "train": ["adapters"], "lr": 1e-2},
        {"name": "tune", "train": ["adapters", "llm"], "lr": 1e-3},
    ]
    common = {"data": [world.source], "batch_images": 4, "max_steps": 4, "questions_per_image": 4} | changes
    said = io.StringIO()
    model, processor = load(world.model)
    console = Console(file=said, width=400)
    run_stages(model, processor, [s | common for s in stages], out, seed=0, console=console, feature_cache=kept)
    return [line["loss"] for s in ("01-align", "02-tune") for line in read_log(out / s / "log.jsonl")], said.getvalue()


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the encoders took."""
    from vsre.train.vision import _Vision

    counts: list[int] = []
    features = _Vision.features

    def counted(self: Any, pixels: torch.Tensor) -> Any:
        counts.append(len(pixels))
        return features(self, pixels)

    monkeypatch.setattr(_Vision, "features", counted)
    return counts


def test_the_same_losses_with_and_without(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_encoded(monkeypatch)
    without, said = train(world, tmp_path / "off", False)
    assert sum(counts) >= 2 * 4 * 3 and "not kept, as asked" in said
    counts.clear()
    kept, said = train(world, tmp_path / "on", True)
    assert kept == pytest.approx(without, rel=1e-5)
    assert len(set(kept)) == len(kept)
    # One picture to know the size, then each of the six once; the second stage finds them all.
    assert sum(counts) == 7 and "6 of 6 pictures" in said and "6 of them encoded" in said
    counts.clear()
    again, _ = train(world, tmp_path / "again", tmp_path / "on" / "cache" / "features")
    assert again == kept and not counts


def test_pixels_are_let_go_once_their_features_are_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def watched(trainer: Any, *args: Any, **kwargs: Any) -> str:
        said = use_features(trainer, *args, **kwargs)
        seen.append((trainer.data_collator.features is None, len(trainer.data_collator._cache)))
        return said

    monkeypatch.setattr("vsre.train.run.use_features", watched)
    train(world, tmp_path, True, max_steps=1)
    assert seen == [(False, 0)] * 2


def test_damage_is_passed_over_and_said(world: World, tmp_path: Path) -> None:
    expected, _ = train(world, tmp_path / "whole", True)
    kept = tmp_path / "whole" / "cache" / "features"
    file = next(kept.rglob("shard-*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 0x40
    file.write_bytes(data)
    model, processor = load(world.model)
    vision = frozen_vision(model, processor, bf16=False)
    assert vision is not None
    cache = FeatureCache(kept, vision)
    ids = list(cache._at[next(iter(cache._at))])
    assert len(ids) == 6
    read = [cache.read(i) is not None for i in ids]
    assert not all(read) and cache.damaged == 1
    assert len(cache.missing(ids)) == 6 and not file.exists()  # removed with all it held
    file.write_bytes(data)
    # Found while training: pictures are encoded again, the stage's record says so, the next stage makes the file anew.
    losses, _ = train(world, tmp_path / "flipped", kept)
    assert losses == pytest.approx(expected, rel=1e-5)
    done = [json.loads((tmp_path / "flipped" / s / "done.json").read_text()) for s in ("01-align", "02-tune")]
    assert [d["damaged_features"] for d in done] == [1, 0]
    assert len(FeatureCache(kept, vision).missing(ids)) == 0
    file = next(kept.rglob("shard-*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    losses, said = train(world, tmp_path / "cut", kept)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert "1 damaged file(s) passed over" in said and "6 of them encoded" in said


def test_off_where_it_does_not_fit_or_encoders_train(
    llava: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = train(llava, tmp_path / "on", True)
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr("vsre.train.run.check_disk", lambda *_: None)
    losses, said = train(llava, tmp_path / "full", True)
    assert "more than half of the 0.000 GB that stay free" in said
    assert losses == pytest.approx(expected, rel=1e-5)
    # What the run itself will write is not free: here three checkpoints and the weights of two stages.
    usage = usage._replace(free=1_000_000)
    assert "more than half of the 0.000 GB that stay free" in train(llava, tmp_path / "reserved", True)[1]
    monkeypatch.undo()
    _, said = train(llava, tmp_path / "tuned", True, train=["encoders", "adapters", "llm"])
    assert "not kept: the encoders train" in said


def test_a_revision_is_the_weights_and_what_is_taken(world: World) -> None:
    model, processor = load(world.model)

    def revisions(bf16: bool = False) -> dict[str, str]:
        vision = frozen_vision(model, processor, bf16=bf16)
        assert vision is not None
        return vision.revisions

    first = revisions()
    assert revisions() == first
    assert not set(revisions(bf16=True).values()) & set(first.values())
    encoders = getattr(model, "encoders", None) or model.model.vision_tower
    weight = next(p for p in encoders.parameters())
    with torch.no_grad():
        weight.view(-1)[weight.numel() // 2] += 1e-3
    changed = revisions()
    assert sum(changed[name] != first[name] for name in first) == 1
    config = model.encoders["clip"].config if hasattr(model, "encoders") else model.model.vision_tower.config
    config.hidden_act = "relu"  # in no weight
    assert sum(a != b for a, b in zip(revisions().values(), changed.values(), strict=True)) == 1
    config.hidden_act, config._name_or_path = "quick_gelu", "elsewhere"
    assert revisions() == changed


def picture(image: str) -> torch.Tensor:
    return torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(int(image[-4:])))


def fill(model_folder: Path, folder: Path, ids: list[str], die_after: int | None, told: Any) -> None:
    torch.set_num_threads(1)
    module.SHARD = 8
    model, processor = load(model_folder)
    vision = frozen_vision(model, processor, bf16=False)
    assert vision is not None
    asked = 0

    def pixels(image: str) -> torch.Tensor:
        nonlocal asked
        asked += 1
        if asked == die_after:
            os._exit(9)
        return picture(image)

    told.put(FeatureCache(folder, vision).fill(ids, pixels))


class Stub:
    """Encoders that make numbers of pixels."""

    def __init__(self, names: str) -> None:
        self.revisions = dict.fromkeys(names, "0")

    def features(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: (pixels[:, :1, :4, :4] * ord(name)).bfloat16() for name in self.revisions}


def fill_stub(names: str, folder: Path, ids: list[str], told: Any) -> None:
    module.SHARD, module.AT_ONCE = 4, 2
    save = module.save_file

    def slowly(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        time.sleep(0.1)  # while the file waits to be renamed

    module.save_file = slowly  # type: ignore[attr-defined]
    try:
        told.put(FeatureCache(folder, Stub(names)).fill(ids, picture))
    except BaseException as error:
        told.put(repr(error))


@pytest.mark.slow
def test_runs_that_share_some_encoders_wait_for_each_other(tmp_path: Path) -> None:
    ids = [f"sha256:{i:04d}" for i in range(20)]
    told = PROCESSES.Queue()
    processes = []
    for names in ("abc", "bc", "cd"):
        process = PROCESSES.Process(target=fill_stub, args=(names, tmp_path, ids, told))
        process.start()
        processes.append(process)
        while not list(tmp_path.rglob("*.safetensors")) and process.is_alive():
            time.sleep(0.01)  # the next one comes while this one is at work
    counts = [told.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert all(isinstance(count, int) for count in counts), counts
    for names in ("abc", "bc", "cd"):
        cache = FeatureCache(tmp_path, Stub(names))
        assert cache.missing(ids) == [] and cache.damaged == 0
        found = cache.read(ids[7])
        assert found is not None
        torch.testing.assert_close(found, {n: t[0] for n, t in Stub(names).features(picture(ids[7])[None]).items()})


def test_two_processes_fill_one_folder_and_a_killed_one_leaves_no_harm(llava: World, tmp_path: Path) -> None:
    ids = [f"sha256:{i:04d}" for i in range(40)]
    told = PROCESSES.Queue()

    def start(die_after: int | None = None) -> Any:
        process = PROCESSES.Process(target=fill, args=(llava.model, tmp_path, ids, die_after, told))
        process.start()
        return process

    killed = start(die_after=21)
    killed.join()
    assert killed.exitcode == 9
    both = [start(), start()]
    counts = sorted(told.get(timeout=120) for _ in both)
    for process in both:
        process.join()
    assert counts == [0, 24]  # the killed one left two whole shards of eight
    model, processor = load(llava.model)
    vision = frozen_vision(model, processor, bf16=False)
    assert vision is not None
    cache = FeatureCache(tmp_path, vision)
    assert cache.missing(ids) == []
    for image in ids[::13]:
        found, expected = cache.read(image), vision.features(picture(image)[None])
        assert found is not None and found.keys() == expected.keys()
        for name, value in found.items():
            assert value.dtype == torch.bfloat16
            torch.testing.assert_close(value, expected[name][0], rtol=1e-2, atol=1e-2)
    assert cache.damaged == 0 and not list(tmp_path.rglob("*.part"))
