"""Running an experiment: recipes of all variants and seeds, as many models at a time as there are cores or GPUs.

OUT/plan.json                   what is run: the experiment, its scale, recipes and seeds, and the command
OUT/VARIANT/seed-N/             a recipe's folder (recipes/run.py), report.html; `recipe.yaml` is for `vsre run`,
                                `log.txt` has its console
OUT/results.parquet             one row a figure of a model (table.py)
OUT/report.md, OUT/*.png        tables, tests and plots (report.py)

There is no scheduler: a recipe's folder can be gone on with at any time, so what is to be done is a list of calls for a
process pool, in three rounds: data, then chains of models that start from one another, then each recipe's report.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vsre.errors import VsreError
from vsre.experiments.files import ASKED, Plan, by_variant
from vsre.experiments.schema import Experiment
from vsre.recipes.files import RecipeFaults, as_yaml
from vsre.recipes.schema import Recipe
from vsre.recipes.steps import alone, folder_name

PLAN, LOG, RECIPE = "plan.json", "log.txt", "recipe.yaml"
KILLED = (
    "A worker was killed from outside, most likely for want of memory. What is done is kept: run the same command "
    "again, with fewer --jobs if it happens again."
)


def run_experiment(plan: Plan, out: Path, *, jobs: int | None = None, console: Console) -> None:
    """Carry out a plan in `out`; called again it goes on where it was stopped.

    `jobs`: how many models are trained at a time, each on its share of the cores; a GPU or a core each by default.
    Raises VsreError where `out` holds another plan's runs or another process is at it, where a recipe cannot be run,
    and, once all else is done, for what failed, with the log that tells why.
    """
    from vsre.recipes.validate import check

    found: dict[str, list[str]] = {}
    for name, recipe in plan.recipes.items():
        for fault in check(recipe, online=True, gpus=1, paths=True, to_run=True).faults:
            found.setdefault(fault, []).append(name)
    if found:
        raise RecipeFaults(plan.experiment.name, by_variant(found, len(plan.recipes)))
    with alone(out):
        _run(plan, out, jobs or default_jobs(), console)


def _run(plan: Plan, out: Path, jobs: int, console: Console) -> None:
    _claim(plan, out)
    folders = [*recipe_folders(plan, out).values()]
    failed: list[str] = []
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
    if failed:
        raise VsreError(
            f"{out}: {len(failed)} parts failed, the others are done. Run the same command again once they are mended."
            + "".join(f"\n  - {why}" for why in failed)
        )


def recipe_folders(plan: Plan, out: Path) -> dict[tuple[str, int], tuple[Recipe, Path]]:
    """By variant and seed the recipe with that seed, and its folder."""
    return {
        (name, seed): (recipe.model_copy(update={"seed": seed}), out / folder_name(name) / f"seed-{seed}")
        for name, recipe in plan.recipes.items()
        for seed in plan.seeds
    }


def chains_of(recipe: Recipe) -> list[tuple[str, ...]]:
    """The models of a recipe in groups that need nothing of one another, each in order; the longest first."""
    groups: dict[str, list[str]] = {}
    for model in recipe.models:
        groups.setdefault(recipe.root(model).name, []).append(model.name)
    return sorted(map(tuple, groups.values()), key=len, reverse=True)


def default_jobs() -> int:
    """A job a GPU, or a job a core where there is none."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each with its share of the cores or a GPU of its own."""
    import torch

    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(jobs):
        numbers.put(number)
    gpus: list[str] = []
    if count := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",")[:count] if visible else [str(number) for number in range(count)]
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_begin, initargs=(numbers, gpus, threads, os.getpid())
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(numbers: Any, gpus: Sequence[str], threads: int, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    number = numbers.get()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    import torch

    torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    """End this process once its parent is gone: a run that is started again must not find an old worker at its work."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


Call = tuple[Callable[..., None], tuple[Any, ...]]


def _all(
    pool: ProcessPoolExecutor, what: str, calls: Sequence[Call], console: Console, failed: list[str]
) -> list[bool]:
    """Make all calls, whatever becomes of some; what failed is added with its reason. Which went well, in order."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        futures: list[Future[None]] = [pool.submit(function, *given) for function, given in calls]
    except BrokenExecutor as broken:
        raise VsreError(KILLED) from broken
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task(what, total=len(calls))
        for _ in as_completed(futures):
            progress.advance(task)
    for future in futures:
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            raise VsreError(KILLED) from error
        if error is not None:
            failed.append(f"{what}: {error}")
    return [future.exception() is None for future in futures]


@contextlib.contextmanager
def _logged(folder: Path) -> Iterator[Console]:
    """A console that writes to the folder's log; so do the libraries, and an error says where that is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOG
    with (
        path.open("a", encoding="utf-8") as log,
        contextlib.redirect_stderr(log),
        contextlib.redirect_stdout(log),
    ):
        try:
            yield Console(file=log, width=120)
        except VsreError as error:
            raise VsreError(f"{error} (log: {path})") from error
        except Exception as error:
            Console(file=log, width=120).print_exception()
            raise VsreError(f"{type(error).__name__}: {error} (log: {path})") from error


def _make_data(recipe: Recipe, folder: Path) -> None:
    from vsre.recipes.run import make_data
    from vsre.recipes.steps import Steps

    with _logged(folder) as console:
        (folder / RECIPE).write_text(as_yaml(recipe), encoding="utf-8")
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
                measure_cost(model, trained, folder / "triplets" / "test", run.folder / "cost", steps)


def _report(recipe: Recipe, folder: Path, command: str) -> None:
    from vsre.recipes.run import run_recipe

    with _logged(folder) as console:
        run_recipe(recipe, folder, console=console, command=command)


def _claim(plan: Plan, out: Path) -> None:
    """Write the plan, or see that it is the one that is there; more seeds may join."""
    path, seeds, experiment = out / PLAN, plan.seeds, plan.experiment.model_dump(mode="json")
    first: Mapping[str, Any] = {name: experiment[name] for name in ASKED}
    if path.is_file():
        there = read_plan(out)
        if there.recipes != plan.recipes:
            raise VsreError(f"{out}: holds the runs of another plan. Choose another --out, or delete the folder.")
        seeds = tuple(dict.fromkeys((*there.seeds, *seeds)))
        if any(out.glob("*/seed-*/runs/*/metrics.json")):
            first = there.first  # what is changed once results are there is changed knowing them
    out.mkdir(parents=True, exist_ok=True)
    made = {
        "experiment": experiment,
        "first": dict(first),
        "scale": plan.scale,
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in plan.recipes.items()},
        "seeds": seeds,
        "command": plan.command,
    }
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_plan(out: Path) -> Plan:
    """The plan that a folder holds the runs of. Raises VsreError where it holds none."""
    path = out / PLAN
    if not path.is_file():
        raise VsreError(f"{path}: no such file. Run `vsre experiment run` with this folder as --out first.")
    there = json.loads(path.read_text(encoding="utf-8"))
    recipes = {name: Recipe.model_validate(recipe) for name, recipe in there["recipes"].items()}
    experiment = Experiment.model_validate(there["experiment"])
    now = experiment.model_dump(mode="json")
    return Plan(
        experiment,
        there["scale"],
        recipes,
        tuple(there["seeds"]),
        there.get("command", ""),
        there.get("first") or {name: now[name] for name in ASKED},
    )
