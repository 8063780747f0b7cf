"""Running an experiment: what goes side by side, what is refused, what is left of a kill, and once the whole of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from experiment_fakes import EXPERIMENT, fake_plan, fake_runs
from rich.console import Console

from vsre.errors import VsreError
from vsre.experiments import run as run_module
from vsre.experiments.expected import clock, expected_seconds
from vsre.experiments.files import by_variant, load_experiment, plan_experiment
from vsre.experiments.report import write_report
from vsre.experiments.run import (
    _all,
    _claim,
    _logged,
    _make_data,
    chains_of,
    read_plan,
    recipe_folders,
    run_experiment,
)
from vsre.model import zoo_names
from vsre.recipes import load_recipe, run_recipe
from vsre.recipes.files import RecipeFaults, as_yaml
from vsre.recipes.steps import alone
from vsre.repaint.presets import load_config


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


def test_a_plan_is_read_though_its_painters_file_is_gone(tmp_path: Path) -> None:
    """As `report` is, from another folder: nothing is to be painted."""
    painter = tmp_path / "painter.yaml"
    painter.write_text(yaml.safe_dump(load_config("sdxl").model_dump(mode="json", exclude_none=True)))
    repaint = {"painted": {"repaint": {"painter": str(painter)}, "pack": "test-s"}}
    recipe = {"data": {**EXPERIMENT["recipe"]["data"], **repaint}, "models": EXPERIMENT["recipe"]["models"]}
    models = [{**recipe["models"][0], "stages": [{"use": "tune", "data": ["original", "painted"]}]}]
    plan = fake_plan(tmp_path, recipe=recipe | {"models": models}, compare=[], plots=[])
    _claim(plan, tmp_path / "out")
    painter.unlink()
    assert read_plan(tmp_path / "out") == plan


def test_the_source_is_not_asked_for_once_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked = fake_plan(tmp_path), []

    def check(recipe: Any, *, paths: bool, **_: Any) -> Any:
        asked.append(paths)
        return SimpleNamespace(faults=["no such file"])

    monkeypatch.setattr("vsre.recipes.validate.check", check)
    folders = recipe_folders(plan, tmp_path / "out")
    for seed in (0, 1):
        step = folders["clean", seed][1] / "triplets" / "step.json"
        step.parent.mkdir(parents=True)
        step.touch()
    with pytest.raises(RecipeFaults):
        run_experiment(plan, tmp_path / "out", jobs=1, console=quiet())
    assert asked == [False, True]


def test_seeds_join_and_another_plan_is_refused(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    _claim(plan, tmp_path / "out")
    _claim(replace(plan, seeds=(2, 1)), tmp_path / "out")
    assert read_plan(tmp_path / "out").seeds == (0, 1, 2)
    other = fake_plan(tmp_path, variants={"clean": {}, "paper": {"protocol": "clean-concepts"}})
    with pytest.raises(VsreError, match="another plan"):
        _claim(other, tmp_path / "out")
    assert read_plan(tmp_path / "out").recipes == plan.recipes


def test_all_commands_that_seeds_came_by_are_kept(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    for command in ("vsre x", "vsre x --seeds 2", "vsre x"):
        _claim(replace(plan, command=command), tmp_path)
    assert read_plan(tmp_path).command == "vsre x\nvsre x --seeds 2"


def stored(out: Path, **changes: Any) -> dict[str, Any]:
    """What a folder's plan.json says, after some of it is changed."""
    path = out / "plan.json"
    plan = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(plan))
    return dict(plan)


def test_half_a_plan_and_one_of_another_version_say_so(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    _claim(plan, tmp_path)
    whole = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(whole[: len(whole) // 2])
    for reads in (read_plan, lambda out: _claim(plan, out)):
        with pytest.raises(VsreError, match=r"plan\.json: damaged .*Delete this file and run the same") as caught:
            reads(tmp_path)
    assert "Traceback" not in str(caught.value) and len(str(caught.value).splitlines()) == 1
    made = json.loads(whole)
    others: list[Any] = [
        {**made, "experiment": made["experiment"] | {"answer": 42}},
        {**made, "recipes": {"clean": made["recipes"]["clean"] | {"source": {"kind": "dreams"}}}},
        {k: v for k, v in made.items() if k != "scale"},
        {**made, "recipes": []},
        [],
    ]
    for other in others:
        (tmp_path / "plan.json").write_text(json.dumps(other))
        with pytest.raises(VsreError, match=r"plan\.json: written by another version of vsre.*another --out\.$"):
            read_plan(tmp_path)


def test_an_option_that_is_new_since_the_first_run_is_no_change(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    _claim(plan, tmp_path)
    now = plan.experiment.model_dump(mode="json")
    compare = [{k: v for k, v in contrast.items() if k not in ("secondary", "together")} for contrast in now["compare"]]
    stored(tmp_path, first={"reading": "As it was.", "primary": now["primary"], "compare": compare})
    assert read_plan(tmp_path).first == {name: now[name] for name in ("primary", "compare")} | {"reading": "As it was."}
    odd = [*compare[:1], {"before": "a", "after": "a"}]  # refused today, so it cannot have stayed as it was
    stored(tmp_path, first={"compare": odd})
    assert read_plan(tmp_path).first == {"compare": [now["compare"][0], odd[1]]}


def test_a_disk_that_is_full_leaves_the_plan_and_the_recipe_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsre.recipes.run.make_data", lambda *_: None)
    plan = fake_plan(tmp_path)
    _claim(plan, tmp_path / "out")
    _make_data(plan.recipes["clean"], tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("plan.json", "recipe.yaml")}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vsre.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        _claim(replace(plan, seeds=(7,)), tmp_path / "out")
    with pytest.raises(VsreError, match="No space"):
        _make_data(plan.recipes["paper"], tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*before, "log.txt"}, "and nothing beside"


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


def test_the_time_told_falls_with_jobs_and_rises_with_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.experiments.expected.default_jobs", lambda: 16)
    plan = fake_plan(tmp_path)
    one = expected_seconds(plan, 1)
    assert expected_seconds(plan, 2) == pytest.approx(one / 2)
    assert expected_seconds(plan, 99) == pytest.approx(one / 8), "no more than there are chains"
    assert expected_seconds(replace(plan, seeds=(0, 1, 2)), 1) == pytest.approx(1.5 * one)
    monkeypatch.setattr("vsre.experiments.expected.default_jobs", lambda: 2)
    assert expected_seconds(plan, 8) == expected_seconds(plan, 2), "nor more than there are cores"
    assert [clock(s) for s in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def test_the_time_told_is_of_what_is_left(tmp_path: Path) -> None:
    plan, out = fake_plan(tmp_path), tmp_path / "out"
    assert expected_seconds(plan, 1, out) == expected_seconds(plan, 1)
    fake_runs(plan, out, statements=30, without=[("clean", 0, "plain")])
    assert 0 < expected_seconds(plan, 1, out) < 0.8 * expected_seconds(plan, 1)


def fine() -> None:
    return None


def wrong() -> None:
    raise VsreError("no such encoder (log: here)")


def test_what_fails_leaves_the_others_alone() -> None:
    failed: list[str] = []
    with ProcessPoolExecutor(1) as pool:
        done = _all(pool, "models", [(fine, ()), (wrong, ()), (fine, ())], quiet(), failed)
    assert done == [True, False, True] and failed == ["models: no such encoder (log: here)"]


def test_a_worker_that_dies_takes_no_reason_with_it() -> None:
    failed: list[str] = []
    with ProcessPoolExecutor(1) as pool:
        for _ in range(2):  # the pool is broken then: neither what waits nor what comes can be made
            with pytest.raises(BrokenExecutor):
                _all(pool, "models", [(wrong, ()), (os._exit, (9,)), (fine, ())], quiet(), failed)
    assert failed == ["models: no such encoder (log: here)"]


class Here(Executor):
    """A pool of no processes: calls are made in this one as they come, so that they may be replaced."""

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


Called = list[tuple[str, ...]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """Runs here without any work: which of its parts was called for which folder."""
    made: Called = []

    @contextlib.contextmanager
    def here(jobs: int) -> Iterator[Executor]:
        yield Here()

    def at(folder: Path) -> str:
        return f"{folder.parent.name} {folder.name[-1]}"

    monkeypatch.setattr(run_module, "workers", here)
    monkeypatch.setattr(run_module, "_make_data", lambda recipe, folder: made.append(("data", at(folder))))
    monkeypatch.setattr(
        run_module, "_make_chain", lambda recipe, chain, folder: made.append(("model", at(folder), *chain))
    )
    monkeypatch.setattr(run_module, "_report", lambda recipe, folder, command: made.append(("report", at(folder))))
    return made


def failing(monkeypatch: pytest.MonkeyPatch, part: str, where: str, error: Exception) -> None:
    """Let a part of a run fail in the folders of a variant."""
    works = getattr(run_module, part)

    def fails(recipe: Any, *given: Any) -> None:
        if any(isinstance(value, Path) and value.parent.name == where for value in given):
            raise error
        works(recipe, *given)

    monkeypatch.setattr(run_module, part, fails)


def run_here(plan: Any, out: Path) -> str:
    """The error of a run that fails."""
    with pytest.raises(VsreError) as caught:
        run_module._run(plan, out, 1, quiet())
    assert f"`vsre experiment report {out}` shows the seeds that are complete." in str(caught.value)
    return str(caught.value)


def test_a_run_is_data_then_models_then_reports(tmp_path: Path, called: Called) -> None:
    run_module._run(fake_plan(tmp_path, seeds=[0]), tmp_path / "out", 1, quiet())
    folders = ("clean 0", "paper 0")
    models = [("model", folder, name) for folder in folders for name in ("plain", "tuned")]
    assert called == [*(("data", at) for at in folders), *models, *(("report", at) for at in folders)]


def test_without_data_there_are_no_models_of_it_and_no_reports(
    tmp_path: Path, called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "_make_data", "clean", VsreError("no such pictures"))
    said = run_here(fake_plan(tmp_path), tmp_path / "out")
    assert "2 parts failed, the others are done" in said and said.count("\n  - data: no such pictures") == 2
    assert {place for _, place, *_ in called} == {"paper 0", "paper 1"}
    assert {part for part, *_ in called} == {"data", "model"}


def test_without_a_model_there_are_no_reports(tmp_path: Path, called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "_make_chain", "paper", VsreError("no such encoder"))
    assert run_here(fake_plan(tmp_path), tmp_path / "out").count("\n  - models: no such encoder") == 4
    assert sum(part == "model" for part, *_ in called) == 4 and not any(part == "report" for part, *_ in called)


def test_a_worker_that_dies_is_said_once_with_what_failed_before(
    tmp_path: Path, called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "_make_data", "clean", VsreError("no such pictures"))
    failing(monkeypatch, "_make_chain", "paper", BrokenExecutor("abrupt"))
    said = run_here(fake_plan(tmp_path), tmp_path / "out")
    assert said.count("killed or crashed") == 1 and "lack of memory" in said and "log.txt" in said
    assert said.count("\n  - ") == said.count("\n  - data: no such pictures") == 2


def test_an_error_says_where_the_log_is(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"ZeroDivisionError: .*log\.txt"), _logged(tmp_path / "a") as console:
        console.print("began")
        print("a library speaks")
        _ = 1 // 0
    log = (tmp_path / "a" / "log.txt").read_text()
    assert "began" in log and "a library speaks" in log and "Traceback" in log


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_log_on_a_full_disk_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with pytest.raises(VsreError, match=r"ZeroDivisionError: .*log\.txt"), _logged(tmp_path):
        _ = 1 // 0
    with pytest.raises(VsreError, match=r"no such encoder \(log: "), _logged(tmp_path):
        print("a library speaks")
        raise VsreError("no such encoder")
    with pytest.raises(VsreError, match=r"the log cannot be written: .*No space left"), _logged(tmp_path):
        print("a library speaks")


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
