"""Verbs of experiments: vsre experiment ls | show | run | report | query."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, errors, write_json
from vsre.cli.recipes import seed_list
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.experiments.files import Plan

experiment = typer.Typer(
    help="What made the difference: questions run as recipes, with seeds, tests and plots.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment, or your own YAML file.")]
Scale = Annotated[
    str, typer.Option(help="embedded (this package alone), layouts (VSR's labels), full (photos, 7B), or a YAML file.")
]
Seeds = Annotated[str | None, typer.Option(help="Seeds instead of the experiment's, such as 0,1,2.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a recipe's KEY=VALUE, such as source.train_units=300; repeatable."),
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Models at once.", show_default="one per GPU, or one per core without")
]
_ALL = 1_000_000
"""Rows and characters to show of an answer, so that nothing is cut: it may be piped."""
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder of `vsre experiment run`.")]


def register(app: typer.Typer) -> None:
    app.add_typer(experiment, name="experiment")


@experiment.command("ls")
def experiment_ls(scale: Scale = "embedded", json_file: JsonFile = None) -> None:
    """List the shipped experiments, and about how long each takes here."""
    from vsre.experiments.expected import clock, expected_seconds
    from vsre.experiments.files import experiment_names, load_experiment, plan_experiment

    table = Table("experiment", "question", "runs", "about")
    rows = []
    for name in experiment_names():
        plan = plan_experiment(load_experiment(name), scale=scale)
        seconds = expected_seconds(plan)
        rows.append({"experiment": name, "question": plan.experiment.question, "runs": plan.runs, "seconds": seconds})
        table.add_row(name, escape(plan.experiment.question), str(plan.runs), clock(seconds))
    console.print(table)
    write_json(json_file, rows)


@experiment.command("show")
def experiment_show(
    name: Name,
    scale: Scale = "embedded",
    text: Annotated[bool, typer.Option("--text", help="Print its YAML file, to copy and change.")] = False,
    recipe: Annotated[str | None, typer.Option(help="Print this variant's plain recipe.", metavar="VARIANT")] = None,
    changes: Changes = None,
) -> None:
    """Show what an experiment asks, its arms, and how it will be read."""
    from vsre.experiments.files import experiment_text, load_experiment, plan_experiment
    from vsre.recipes.files import as_yaml
    from vsre.recipes.near import nearest

    if text:
        return console.out(experiment_text(name)[0], end="", highlight=False)
    plan = plan_experiment(load_experiment(name), scale=scale, changes=changes or [])
    if recipe is not None:
        if recipe not in plan.recipes:
            raise VsreError(f"{name}: has no variant {recipe!r}. {nearest(recipe, plan.recipes)}")
        return console.out(as_yaml(plan.recipes[recipe]), end="", highlight=False)
    asked = plan.experiment
    console.print(f"[bold]{escape(asked.title)}[/]\n{escape(asked.question)}\n", highlight=False)
    for part in (asked.about, asked.reading and f"How it is read: {asked.reading}", *asked.notes):
        if part:
            console.print(escape(part) + "\n", highlight=False)
    table = Table("variant", "arm", "starts from", "stages", "factors")
    for variant, found in plan.recipes.items():
        for model in found.models:
            start = model.start
            begins = start.checkpoint or start.model or start.llm or start.vlm or ""
            kept = ", ".join(choice.id for choice in start.encoders)
            stages = "; ".join(
                f"{parsed.name} ({parsed.max_steps or f'{parsed.epochs:g} epochs'}): {', '.join(stage['data'])}"
                for parsed, stage in zip(model.parsed_stages(), model.stages, strict=True)
            )
            factors = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in model.factors.items())
            table.add_row(*map(escape, (variant, model.name, f"{begins} {kept}".strip(), stages, factors)))
    console.print(table)
    _say_expected(plan)
    return None


@experiment.command("run")
def experiment_run(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all its runs; run again to resume.")],
    scale: Scale = "embedded",
    seeds: Seeds = None,
    changes: Changes = None,
    jobs: Jobs = None,
    json_file: JsonFile = None,
) -> None:
    """Run an experiment, as many models at once as there are cores or GPUs, and report it."""
    from vsre.experiments.files import load_experiment, plan_experiment
    from vsre.experiments.run import run_experiment

    said = ["vsre", "experiment", "run", Path(name).name]  # file names, not where they are on this machine
    said += ["--scale", Path(scale).name] if scale != "embedded" else []
    said += ["--seeds", seeds] if seeds else []
    said += [part for change in changes or [] for part in ("--set", change)]
    plan = plan_experiment(
        load_experiment(name),
        scale=scale,
        seeds=None if seeds is None else seed_list(seeds),
        changes=changes or [],
        command=shlex.join(said),
    )
    errors.print(escape(plan.experiment.question), highlight=False)
    _say_expected(plan, jobs, out)
    run_experiment(plan, out, jobs=jobs, console=errors)
    _report(out, json_file)


@experiment.command("report")
def experiment_report(
    out: Folder,
    only: Annotated[
        str, typer.Option(metavar="PATTERN", help="Only matching arms (* and ?); written to a folder only-... in OUT.")
    ] = "",
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Only arms that are done, while others run; written to OUT/so-far.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Report an experiment's runs: results.parquet, report.md and its plots."""
    _report(out, json_file, only, so_far)


@experiment.command("query")
def experiment_query(
    out: Folder,
    sql: Annotated[str, typer.Argument(help="SQL over the table `results`; needs vsre[query] (DuckDB).")],
    json_file: JsonFile = None,
) -> None:
    """Query the table of all results; docs/experiments.md lists its columns."""
    from vsre.experiments.table import RESULTS

    try:
        import duckdb
    except ImportError:
        raise VsreError(
            "vsre experiment query needs DuckDB. Install vsre[query], or read the file with polars."
        ) from None
    path = out / RESULTS
    if not path.is_file():
        raise VsreError(f"{path}: no such file. Run `vsre experiment report {out}` first.")
    with duckdb.connect() as connection:
        results = connection.read_parquet(str(path))
        try:
            if (answer := results.query("results", sql)) is None:  # a statement without a result, such as SET
                return
            answer.show(max_rows=_ALL, max_width=_ALL, max_col_width=_ALL)
            rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()]
        except duckdb.Error as error:
            raise VsreError(f"DuckDB: {error}") from None
    write_json(json_file, rows)


def _report(out: Path, json_file: Path | None, only: str = "", so_far: bool = False) -> None:
    from vsre.experiments.report import write_report
    from vsre.experiments.run import read_plan
    from vsre.experiments.table import RESULTS

    plan = read_plan(out)
    found = write_report(plan, out, only, so_far=so_far)
    table = Table("arm", "Test-S", "Test-G", "Unseen", title=escape(plan.experiment.title), title_justify="left")
    for row in found["arms"]:
        figures = (row.get(title) for title in ("Test-S", "Test-G", "Unseen"))
        table.add_row(escape(row["arm"]), *("–" if f is None else _cell(f) for f in figures))
    console.print(table)
    file = Path(found["file"])
    console.print(f"{file} has all tables and tests, {file.with_name(RESULTS)} every figure", highlight=False)
    write_json(json_file, found)


def _cell(figure: dict[str, Any]) -> str:
    low, high = (figure["low"], figure["high"]) if figure["low"] is not None else figure["pictures"]
    return f"{100 * figure['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _say_expected(plan: Plan, jobs: int | None = None, out: Path | None = None) -> None:
    from vsre.experiments.expected import clock, expected_seconds
    from vsre.experiments.run import is_done, recipe_folders

    seeds = len(plan.seeds)
    folders = [] if out is None else [*recipe_folders(plan, out).values()]
    done = sum(is_done(folder, model.name) for recipe, folder in folders for model in recipe.models)
    there = f"{done} done, the others " if done else ""
    said = (
        f"{plan.runs} runs ({seeds} seed{'s' * (seeds != 1)}), {there}about {clock(expected_seconds(plan, jobs, out))}"
    )
    errors.print(f"{said} on this machine", highlight=False)
