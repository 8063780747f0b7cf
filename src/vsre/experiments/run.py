"""Running an experiment: recipes of all variants and seeds, with as many models at once as there are GPUs or cores.

OUT/plan.json                   what is run: the experiment, its scale, recipes and seeds, and the command
OUT/VARIANT/seed-N/             a recipe's folder (recipes/run.py), report.html; `recipe.yaml` is for `vsre run`,
                                `log.txt` has its console output
OUT/results.parquet             one row per figure of a model (table.py)
OUT/report.md, OUT/*.png        tables, tests and plots (report.py)

There is no scheduler: a recipe's folder can be resumed at any time, so the work is a list of calls for a process pool,
in three rounds: data, then chains of models that start from one another, then each recipe's report.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vsre.errors import VsreError, kind_and_line
from vsre.experiments.files import ASKED, Plan, by_variant
from vsre.experiments.schema import Contrast, Experiment
from vsre.experiments.workers import default_jobs, workers
from vsre.files import write_aside
from vsre.recipes.files import RecipeFaults, as_yaml
from vsre.recipes.schema import STORED, Recipe
from vsre.recipes.steps import alone, folder_name, is_made

PLAN, LOG, RECIPE = "plan.json", "log.txt", "recipe.yaml"
COST_FOLDER = "cost"
"""The folder of a run's last step: its cost."""
KILLED = (
    "a worker was killed or crashed, most often for lack of memory: then use fewer --jobs. log.txt in the folders of "
    "variants and seeds says what each was doing. Finished work is kept: run the same command again."
)


def run_experiment(plan: Plan, out: Path, *, jobs: int | None = None, console: Console) -> None:
    """Carry out a plan in `out`; called again, it resumes where it stopped.

    `jobs`: how many models are trained at once, each on its share of the cores; by default one per GPU or core. Raises
    VsreError if `out` holds another plan's runs or another process is using it, if a recipe cannot be run, and, once
    all else is done, for what failed, with the log that says why.
    """
    from vsre.recipes.validate import check

    found: dict[str, list[str]] = {}
    folders = recipe_folders(plan, out)
    for name, recipe in plan.recipes.items():
        read = all(is_made(folders[name, seed][1] / "triplets") for seed in plan.seeds)
        for fault in check(recipe, online=True, gpus=1, paths=not read, to_run=True).faults:
            found.setdefault(fault, []).append(name)
    if found:
        raise RecipeFaults(plan.experiment.name, by_variant(found, len(plan.recipes)))
    with alone(out):
        _run(plan, out, jobs or default_jobs(), console)


def _run(plan: Plan, out: Path, jobs: int, console: Console) -> None:
    _claim(plan, out)
    folders = [*recipe_folders(plan, out).values()]
    failed: list[str] = []
    try:
        with workers(jobs) as pool:
            made = _all(pool, "data", [(_make_data, at) for at in folders], console, failed)
            chains = [
                (_make_chain, (recipe, chain, folder))
                for (recipe, folder), done in zip(folders, made, strict=True)
                for chain in (chains_of(recipe) if done else ())
            ]
            _all(pool, "models", chains, console, failed)
            if not failed:
                _all(pool, "reports", [(_report, (*at, plan.command)) for at in folders], console, failed)
    except BrokenExecutor as broken:
        raise VsreError(_unfinished(out, KILLED, failed)) from broken
    if failed:
        what = f"{len(failed)} parts failed, the others are done. Run the same command again once they are fixed."
        raise VsreError(_unfinished(out, what, failed))


def _unfinished(out: Path, what: str, failed: Sequence[str]) -> str:
    reasons = "".join(f"\n  - {why}" for why in failed)
    return f"{out}: {what} `vsre experiment report {out}` shows the seeds that are complete.{reasons}"


def recipe_folders(plan: Plan, out: Path) -> dict[tuple[str, int], tuple[Recipe, Path]]:
    """Return, by variant and seed, the recipe with that seed and its folder."""
    return {
        (name, seed): (recipe.model_copy(update={"seed": seed}), out / folder_name(name) / f"seed-{seed}")
        for name, recipe in plan.recipes.items()
        for seed in plan.seeds
    }


def chains_of(recipe: Recipe) -> list[tuple[str, ...]]:
    """Return the models of a recipe in groups independent of one another, each in order; the longest group first."""
    groups: dict[str, list[str]] = {}
    for model in recipe.models:
        groups.setdefault(recipe.root(model).name, []).append(model.name)
    return sorted(map(tuple, groups.values()), key=len, reverse=True)


def is_done(folder: Path, model: str) -> bool:
    """Whether a model of the recipe in this folder is trained, diagnosed and its cost measured."""
    return is_made(folder / "runs" / folder_name(model) / COST_FOLDER)


Call = tuple[Callable[..., None], tuple[Any, ...]]


def _all(pool: Executor, what: str, calls: Sequence[Call], console: Console, failed: list[str]) -> list[bool]:
    """Make all calls, even if some fail, and add reasons to `failed`; return which succeeded, in order.

    Raises BrokenExecutor if a worker died, which ends the others too; failures up to then are added first.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    futures: list[Future[None]] = []
    broken: BaseException | None = None
    try:
        for function, given in calls:
            futures.append(pool.submit(function, *given))
    except BrokenExecutor as error:
        broken = error
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task(what, total=len(calls))
        for _ in as_completed(futures):
            progress.advance(task)
    raised = [future.exception() for future in futures]
    for why in raised:
        if isinstance(why, BrokenExecutor):
            broken = why
        elif why is not None:
            failed.append(f"{what}: {why}")
    if broken is not None:
        raise broken
    return [why is None for why in raised]


@contextlib.contextmanager
def _logged(folder: Path) -> Iterator[Console]:
    """Open a console that writes to the folder's log, as libraries do meanwhile; an error names the log."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOG
    raised: Exception | None = None
    try:
        with (
            path.open("a", encoding="utf-8") as log,
            contextlib.redirect_stderr(log),
            contextlib.redirect_stdout(log),
        ):
            try:
                yield Console(file=log, width=120)
            except Exception as error:
                raised = error
                if not isinstance(error, VsreError):
                    Console(file=log, width=120).print_exception()
    except OSError as full:  # the log itself: an earlier error matters more
        raised = raised or VsreError(f"the log cannot be written: {full}")
    if raised is not None:
        said = str(raised) if isinstance(raised, VsreError) else f"{type(raised).__name__}: {raised}"
        raise VsreError(f"{said} (log: {path})") from raised


def _make_data(recipe: Recipe, folder: Path) -> None:
    from vsre.recipes.run import make_data
    from vsre.recipes.steps import Steps

    with _logged(folder) as console:
        write_aside(folder / RECIPE, as_yaml(recipe))
        make_data(recipe, folder, Steps(folder, console))


def _make_chain(recipe: Recipe, names: Sequence[str], folder: Path) -> None:
    from vsre.experiments.cost import measure_cost
    from vsre.recipes.run import make_model
    from vsre.recipes.steps import Steps

    with _logged(folder) as console:
        steps = Steps(folder, console)
        for model in recipe.models:
            if model.name in names:
                trained, run = make_model(recipe, model, folder, steps)
                measure_cost(model, trained, folder / "triplets" / "test", run.folder / COST_FOLDER, steps)


def _report(recipe: Recipe, folder: Path, command: str) -> None:
    from vsre.recipes.run import run_recipe

    with _logged(folder) as console:
        run_recipe(recipe, folder, console=console, command=command)


def _claim(plan: Plan, out: Path) -> None:
    """Write the plan, or check that it is the one already there; seeds may be added."""
    path, seeds, experiment = out / PLAN, plan.seeds, plan.experiment.model_dump(mode="json")
    first: Mapping[str, Any] = {name: experiment[name] for name in ASKED}
    commands = [plan.command]
    if path.is_file():
        there = read_plan(out)
        if there.recipes != plan.recipes:
            raise VsreError(f"{out}: holds the runs of another plan. Choose another --out, or delete the folder.")
        seeds = tuple(dict.fromkeys((*there.seeds, *seeds)))
        commands = [*there.command.splitlines(), plan.command]
        if any(out.glob("*/seed-*/runs/*/metrics.json")):
            first = there.first  # later changes are made knowing results
    out.mkdir(parents=True, exist_ok=True)
    made = {
        "experiment": experiment,
        "first": dict(first),
        "scale": plan.scale,
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in plan.recipes.items()},
        "seeds": seeds,
        "command": "\n".join(dict.fromkeys(filter(None, commands))),
    }
    write_aside(path, json.dumps(made, indent=1) + "\n")


def read_plan(out: Path) -> Plan:
    """Return the plan whose runs a folder holds. Raises VsreError if it has none, or one that cannot be read."""
    path = out / PLAN
    if not path.is_file():
        raise VsreError(f"{path}: no such file. Run `vsre experiment run` with this folder as --out first.")
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VsreError(
            f"{path}: damaged ({kind_and_line(error)}). Delete this file and run the same `vsre experiment run` again: "
            "finished work in the folder is kept."
        ) from error
    try:
        experiment = Experiment.model_validate(there["experiment"])
        now = experiment.model_dump(mode="json")
        return Plan(
            experiment,
            there["scale"],
            {name: Recipe.model_validate(recipe, context=STORED) for name, recipe in there["recipes"].items()},
            tuple(there["seeds"]),
            there.get("command", ""),
            _first(there.get("first") or {name: now[name] for name in ASKED}),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise VsreError(
            f"{path}: written by another version of vsre, or changed by hand ({_said(error)}). Read it with that "
            "version, or choose another --out."
        ) from error


def _first(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was set before the first run, as this version writes it, so that new options count as no change."""
    return {name: [*map(_today, said)] if name == "compare" else said for name, said in told.items()}


def _today(contrast: dict[str, Any]) -> dict[str, Any]:
    try:
        return Contrast.model_validate(contrast).model_dump(mode="json")
    except ValidationError:  # no longer valid, so it has changed since
        return contrast


def _said(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return kind_and_line(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
