"""Processes that share a run train like one, and a run goes on with another number of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from together import PACKS, together
from train_world import load, write_world

from tiny_models import tiny_llava, tiny_vsre
from vsre.train.data import PackSampler
from vsre.train.logs import read_log

World = tuple[Path, dict[str, Path], Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model, its data, and the run of one process."""
    folder = tmp_path_factory.mktemp("world")
    made = (tiny_llava(folder), write_world(folder / "world"), folder / "alone")
    assert together(1, *made) == [0]
    return made


def losses(out: Path) -> list[float]:
    logs = [read_log(out / stage / "log.jsonl") for stage in ("01-align", "02-tune")]
    assert [[line["step"] for line in log] for log in logs] == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7, 8]]
    return [line["loss"] for log in logs for line in log]


def test_two_processes_have_the_losses_of_one(world: World, tmp_path: Path) -> None:
    assert together(2, *world[:2], tmp_path) == [0, 0]
    assert losses(tmp_path) == pytest.approx(losses(world[2]), rel=1e-5)
    ours, theirs, before = (
        np.concatenate([p.detach().numpy().ravel() for p in load(folder)[0].parameters()])
        for folder in (tmp_path / "02-tune" / "model", world[2] / "02-tune" / "model", world[0])
    )
    moved = np.linalg.norm(theirs - before)
    assert moved > 0.01 and np.linalg.norm(ours - theirs) < 1e-3 * moved


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(world: World, tmp_path: Path, first: int, then: int) -> None:
    """Killed in its second epoch, after the checkpoint of step 6 of 8."""
    assert together(first, *world[:2], tmp_path, die_at=8) == [-signal.SIGKILL] * first
    assert [c.name for c in sorted((tmp_path / "02-tune").glob("checkpoint-*"))] == ["checkpoint-3", "checkpoint-6"]
    assert together(then, *world[:2], tmp_path) == [0] * then
    assert losses(tmp_path) == pytest.approx(losses(world[2]), rel=1e-5)
    assert all((tmp_path / stage / "done.json").is_file() for stage in ("01-align", "02-tune"))


@pytest.mark.slow
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("made", [tiny_vsre, tiny_llava])
def test_a_model_that_fsdp_cuts_up_has_the_losses_of_a_whole_one(made: Any, cache: bool, tmp_path: Path) -> None:
    """FSDP2 over gloo: a stage a call, killed in its second epoch, gone on with in one process."""
    world = (made(tmp_path), write_world(tmp_path / "world"))
    assert together(1, *world, tmp_path / "whole") == [0]
    out = tmp_path / "cut-up"
    assert together(2, *world, out, cache=cache, fsdp=True) == [0, 0]
    assert (out / "01-align" / "done.json").is_file() and not (out / "02-tune").exists()
    assert together(2, *world, out, die_at=8, cache=cache, fsdp=True) == [-signal.SIGKILL] * 2
    assert (out / "02-tune" / "checkpoint-6" / "pytorch_model_fsdp_0").is_dir()
    assert together(1, *world, out, cache=cache, fsdp=True) == [0]
    assert losses(out) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    ours, theirs = (dict(load(f / "02-tune" / "model")[0].named_parameters()) for f in (out, tmp_path / "whole"))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)


class Sizes:
    """As much of PackedQuestions as a sampler looks at: three images with five questions each."""

    image_of = np.repeat(np.arange(3), 5)
    lengths = np.arange(15) + 10

    def __len__(self) -> int:
        return 15


def test_an_epoch_is_filled_with_packs_of_which_nothing_is_learnt() -> None:
    alone, shared = (list(PackSampler(Sizes(), 2, 0, PACKS, whole)) for whole in (1, 4))  # type: ignore[arg-type]
    assert len(alone) == 9 and len(shared) == 12
    assert all(a.tolist() == b.tolist() for a, b in zip(alone, shared[:9], strict=True))
    assert sorted(row for pack in alone for row in pack) == list(range(15))
    assert all((pack < 0).all() for pack in shared[9:]) and all((pack >= 0).all() for pack in alone)
