"""kill -9 at any moment, then the same command again: the weights are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import killable
import pytest
from safetensors.torch import load_file
from train_world import PROCESSES, write_world

from tiny_models import tiny_llava, tiny_vsre
from vsre.train.checkpoints import complete_checkpoints
from vsre.train.logs import read_log

World = tuple[Path, dict[str, Path], Path, bool]


def start(world: World, out: Path, moment: str | None = None) -> int:
    process = PROCESSES.Process(target=killable.train, args=(world[0], world[1], out, world[3], moment))
    process.start()
    process.join()
    code = process.exitcode
    assert code is not None
    return code


@pytest.fixture(scope="module", params=["vsre", "llava", "vsre-lora"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model, its data, the run that nobody disturbed, and whether its second stage trains by LoRA."""
    folder = tmp_path_factory.mktemp("world")
    model = tiny_llava(folder) if request.param == "llava" else tiny_vsre(folder, ("clip", "sam"))
    lora = request.param == "vsre-lora"
    if lora:
        pytest.importorskip("peft")
    made = (model, write_world(folder), folder / "undisturbed", lora)
    assert start(made, made[2]) == 0
    return made


def shown(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if not k.endswith(("_per_s", "seconds"))}


def assert_same(out: Path, undisturbed: Path) -> None:
    for stage in ("01-align", "02-tune"):
        ours, theirs = (load_file(f / stage / "model" / "model.safetensors") for f in (out, undisturbed))
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in ours)
        logs = [[shown(line) for line in read_log(f / stage / "log.jsonl")] for f in (out, undisturbed)]
        assert logs[0] == logs[1]


def test_killed_again_and_again(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    moments = [
        "in a checkpoint, after the weights",
        "in the middle of accumulation",
        "in the second stage",
        "in a checkpoint, before its marker",
        "while the final weights are written",
    ]
    if world[3]:
        moments = ["in a checkpoint of the second stage, after the weights", "in the second stage's last step"]
    for moment in moments[: 3 if world[0].name == "llava" else 5]:
        assert start(world, out, moment) == -signal.SIGKILL, moment
    assert start(world, out) == 0
    assert_same(out, world[2])
    assert not list(out.rglob("*.part*"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", killable.MOMENTS)
def test_killed_at_one_moment(world: World, moment: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert start(world, out, moment) == -signal.SIGKILL
    assert not (out / "02-tune" / "done.json").exists()
    assert start(world, out) == 0
    assert_same(out, world[2])
    assert not list(out.rglob("*.part*"))


def test_the_undisturbed_run_trained_and_kept_two_checkpoints(world: World) -> None:
    first, second = (world[2] / s for s in ("01-align", "02-tune"))
    assert [c.name for c in complete_checkpoints(second)] == ["checkpoint-6", "checkpoint-7"]
    log = read_log(first / "log.jsonl")
    assert [line["step"] for line in log] == list(range(1, json.loads((first / "done.json").read_text())["steps"] + 1))
    before, after = (load_file(f / "model" / "model.safetensors") for f in (first, second))
    assert any(not before[name].equal(after[name]) for name in before)
    assert {p.suffix for p in (second / "model").iterdir()} <= {".safetensors", ".json", ".jinja"}
    assert not any("lora" in name for name in after)
    held = load_file(second / "checkpoint-7" / "trained.safetensors")
    assert {name.split(".")[0] for name in held} <= {"adapters", "language_model", "model", "lm_head"}
    assert not any("encoders" in name or "vision_tower" in name for name in held)
    assert any("lora_A" in name for name in held) == world[3] and not any("base_layer" in name for name in held)
    assert (second / "loss.png").stat().st_size > 1000


@pytest.mark.slow
def test_killed_at_random_from_outside(world: World, tmp_path: Path) -> None:
    out, chance = tmp_path / "run", random.Random(0)
    command = [sys.executable, killable.__file__, str(world[0]), str(world[1]["triplets"].parent), str(out)]
    command += ["lora"] * world[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for attempt in range(30):
        process: Any = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"begin\n"
        try:
            process.wait(chance.uniform(0.1, 0.5 + attempt))
        except subprocess.TimeoutExpired:
            process.kill()
        if process.wait() == 0:
            break
    assert attempt > 0
    assert_same(out, world[2])
