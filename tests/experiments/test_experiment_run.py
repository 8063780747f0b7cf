"""Running an experiment: what goes side by side, what is refused, what is left of a kill, and once the whole of it."""

from __future__ import annotations

import io
import json
import os
import select
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from experiment_fakes import EXPERIMENT, fake_plan
from rich.console import Console

from vsre.errors import VsreError
from vsre.experiments.expected import clock, expected_seconds
from vsre.experiments.files import by_variant, load_experiment, plan_experiment
from vsre.experiments.report import write_report
from vsre.experiments.run import (
    _all,
    _claim,
    _end_with,
    _logged,
    _make_data,
    chains_of,
    read_plan,
    recipe_folders,
    run_experiment,
)
from vsre.experiments.run import workers as open_workers
from vsre.model import zoo_names
from vsre.recipes import load_recipe, run_recipe
from vsre.recipes.files import as_yaml
from vsre.recipes.steps import alone


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    for name in ("fake", "gain", "generalisation"):
        plan = fake_plan(tmp_path) if name == "fake" else plan_experiment(load_experiment(name), command="vsre x")
        _claim(plan, tmp_path / name)
        assert read_plan(tmp_path / name) == plan
        _claim(plan, tmp_path / name)
    with pytest.raises(VsreError, match="Run `vsre experiment run`"):
        read_plan(tmp_path)


def test_seeds_join_and_another_plan_is_refused(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    _claim(plan, tmp_path / "out")
    _claim(replace(plan, seeds=(2, 1)), tmp_path / "out")
    assert read_plan(tmp_path / "out").seeds == (0, 1, 2)
    other = fake_plan(tmp_path, variants={"clean": {}, "paper": {"protocol": "clean-concepts"}})
    with pytest.raises(VsreError, match="another plan"):
        _claim(other, tmp_path / "out")
    assert read_plan(tmp_path / "out").recipes == plan.recipes


def test_each_variant_and_seed_has_a_folder(tmp_path: Path) -> None:
    folders = recipe_folders(fake_plan(tmp_path), Path("out"))
    assert {key: str(folder) for key, (_, folder) in folders.items()} == {
        (variant, seed): f"out/{variant}/seed-{seed}" for variant in ("clean", "paper") for seed in (0, 1)
    }
    assert all(recipe.seed == seed for (_, seed), (recipe, _) in folders.items())


def test_models_that_start_from_one_another_are_one_chain(tmp_path: Path) -> None:
    models = [
        {"name": name, "start": start, "stages": EXPERIMENT["recipe"]["models"][0]["stages"]}
        for name, start in (("a", {"use": "merged"}), ("b", {"use": "merged"}), ("c", {"model": "b"}))
    ]
    recipe = {**EXPERIMENT["recipe"], "models": models}
    plan = fake_plan(tmp_path, recipe=recipe, compare=[], plots=[], variants={"main": {}})
    assert chains_of(plan.recipes["main"]) == [("b", "c"), ("a",)]


def test_the_time_told_falls_with_jobs_and_rises_with_seeds(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    one = expected_seconds(plan, 1)
    assert expected_seconds(plan, 2) == pytest.approx(one / 2)
    assert expected_seconds(plan, 99) == pytest.approx(one / 8), "no more than there are chains"
    assert expected_seconds(replace(plan, seeds=(0, 1, 2)), 1) == pytest.approx(1.5 * one)
    assert [clock(s) for s in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def fine() -> None:
    return None


def wrong() -> None:
    raise VsreError("no such encoder (log: here)")


def test_what_fails_leaves_the_others_alone() -> None:
    failed: list[str] = []
    with ProcessPoolExecutor(1) as pool:
        done = _all(pool, "models", [(fine, ()), (wrong, ()), (fine, ())], quiet(), failed)
    assert done == [True, False, True] and failed == ["models: no such encoder (log: here)"]


def test_a_worker_killed_for_memory_is_said_once() -> None:
    with ProcessPoolExecutor(1) as pool:
        for _ in range(2):  # the pool is broken then: neither what waits nor what comes can be made
            with pytest.raises(VsreError, match="want of memory"):
                _all(pool, "models", [(os._exit, (9,)), (fine, ())], quiet(), [])


def test_an_error_says_where_the_log_is(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"ZeroDivisionError: .*log\.txt"), _logged(tmp_path / "a") as console:
        console.print("began")
        print("a library speaks")
        _ = 1 // 0
    log = (tmp_path / "a" / "log.txt").read_text()
    assert "began" in log and "a library speaks" in log and "Traceback" in log


def test_workers_take_the_gpus_they_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for visible, taken in (("3,5", ["3", "5"]), (None, ["0", "1"])):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with open_workers(2) as pool:
            assert pool._initargs[1] == taken  # type: ignore[attr-defined]


def forked(function: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def test_a_worker_ends_with_the_run_that_started_it() -> None:
    """A run, killed, leaves its worker; the end of a pipe that only the worker holds tells when it is gone."""
    from_worker, held = os.pipe()

    def run() -> None:
        me = os.getpid()
        forked(lambda: _end_with(me))
        os.close(held)
        signal.pause()

    parent = forked(run)
    os.close(held)
    try:
        assert not select.select([from_worker], [], [], 1.5)[0], "it works as long as the run is there"
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    ready, _, _ = select.select([from_worker], [], [], 30)
    assert ready and os.read(from_worker, 1) == b""
    os.close(from_worker)


def files(out: Path) -> dict[str, int]:
    """When the weights, answers and measurements of all runs were written."""
    made = (path for pattern in ("*.safetensors", "step.json", "part-*.parquet") for path in out.rglob(pattern))
    return {str(path): path.stat().st_mtime_ns for path in made}


@pytest.mark.slow
@pytest.mark.skipif("base" not in zoo_names(), reason="the shipped models are not built: vsre zoo train all")
def test_the_whole_of_it_and_again(tmp_path: Path) -> None:
    scale = {
        "source": {"kind": "scenes", "train_units": 4, "test_units": 2},
        "starts": {"merged": {"checkpoint": "zoo:base"}},
        "stages": {"align": None, "tune": {"train": ["adapters"], "batch_images": 2, "max_steps": 1}},
        "diagnose": {"limit": 12, "packs": ["test-s", "pool"], "templates": 2},
    }
    recipe = {**EXPERIMENT["recipe"], "models": EXPERIMENT["recipe"]["models"][1:]}
    (tmp_path / "tiny.yaml").write_text(json.dumps(scale))
    file = tmp_path / "mine.yaml"
    compare = [{"before": "clean: tuned", "after": "paper: tuned"}]
    file.write_text(json.dumps(EXPERIMENT | {"recipe": recipe, "compare": compare}))
    plan = plan_experiment(load_experiment(str(file)), scale=str(tmp_path / "tiny.yaml"), command="vsre experiment run")
    out = tmp_path / "out"
    run_experiment(plan, out, jobs=1, console=quiet())
    first = files(out)
    assert sum(name.endswith(".safetensors") for name in first) >= 4
    for variant in ("clean", "paper"):
        for seed in (0, 1):
            assert (out / variant / f"seed-{seed}" / "report.html").is_file()
    run_experiment(plan, out, jobs=1, console=quiet())
    assert files(out) == first, "nothing is made again"
    found = write_report(read_plan(out), out)
    assert found["seeds"] == [0, 1] and [row["arm"] for row in found["arms"]] == ["clean: tuned", "paper: tuned"]
    assert found["arms"][0]["cost.steps"]["value"] == 1 and found["arms"][0]["cost.visual_tokens"]["value"] == 36
    # Drawn scenes do not leak, so both protocols train the same.
    assert all(row["value"] == 0 for row in found["contrasts"]) and len(found["contrasts"]) == 2
    assert len(pq.read_table(out / "results.parquet")) > 100
    assert "## Differences" in (out / "report.md").read_text()


def test_a_folder_holds_its_recipe_for_vsre_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.recipes.run.make_data", lambda *_: None)
    recipe = plan_experiment(load_experiment("leaks")).recipes["paper"].model_copy(update={"seed": 7})
    _make_data(recipe, tmp_path)
    assert as_yaml(load_recipe(str(tmp_path / "recipe.yaml"))) == as_yaml(recipe)


def test_a_folder_that_another_process_works_on_is_left_alone(tmp_path: Path) -> None:
    """Two would take each other's half-made folders for leftovers and delete them."""
    plan = plan_experiment(load_experiment("sensitivity"))
    with alone(tmp_path):
        with pytest.raises(VsreError, match="another process is running here"):
            run_experiment(plan, tmp_path, jobs=1, console=quiet())
        with pytest.raises(VsreError, match="another process is running here"):
            run_recipe(plan.recipes["main"], tmp_path, console=quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


def test_a_fault_of_all_variants_is_said_once() -> None:
    assert by_variant({"lacking": ["a", "b"], "wrong": ["b"]}, 2) == ["lacking", "b: wrong"]
