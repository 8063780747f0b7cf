"""Verbs that run whole recipes: run, demo, recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, errors, write_json

recipes = typer.Typer(help="Whole experiments as YAML files: list them, show one.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(run)
    app.add_typer(recipes, name="recipes")


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the experiment; a second call goes on from here.")
    ] = Path("vsre-demo"),
    json_file: JsonFile = None,
) -> None:
    """The whole story on this machine: a baseline, its data and encoders expanded, the expert, and a report."""
    _run("demo", out, json_file, command="vsre demo")


def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, or a YAML file of yours.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the experiment; a second call goes on from here.")
    ],
    seeds: Annotated[
        str | None, typer.Option(help="Run it with each of these seeds, as in 0,1,2, and report them together.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Run a recipe from data to report."""
    if seeds is None:
        _run(recipe, out, json_file, command=f"vsre run {Path(recipe).name}")
    else:
        _run_seeds(recipe, out, seeds, json_file)


def _run(name: str, out: Path, json_file: Path | None, command: str) -> None:
    from vsre.recipes import load_recipe, run_recipe
    from vsre.report import result_table

    recipe = load_recipe(name)
    errors.print(f"{escape(recipe.title)} [dim](recipe {recipe.name}, protocol {recipe.protocol})[/]", highlight=False)
    result = run_recipe(recipe, out, console=errors, command=command)
    runs = result.pop("runs")
    console.print(result_table(runs))
    console.print(f"{result['seconds']:.0f} s. Report: {result['report']}", highlight=False, soft_wrap=True)
    write_json(json_file, result)


def _run_seeds(name: str, out: Path, listed: str, json_file: Path | None) -> None:
    from vsre.errors import VsreError
    from vsre.recipes import load_recipe, run_recipe
    from vsre.report import seeds_table, write_seeds

    try:
        seeds = [int(part) for part in listed.split(",")]
    except ValueError:
        raise VsreError(f"--seeds {listed}: give whole numbers with commas between, such as 0,1,2.") from None
    if len(set(seeds)) < len(seeds) or len(seeds) < 2 or min(seeds) < 0:
        raise VsreError(f"--seeds {listed}: give two or more different seeds, none below 0.")
    recipe, runs = load_recipe(name), {}
    for seed in seeds:
        errors.print(f"{escape(recipe.title)} [dim](recipe {recipe.name}, seed {seed})[/]", highlight=False)
        command = f"vsre run {Path(name).name} --seeds {listed}"
        seeded = recipe.model_copy(update={"seed": seed})
        runs[seed] = run_recipe(seeded, out / f"seed-{seed}", console=errors, command=command)["runs"]
    result = write_seeds(out, runs)
    console.print(seeds_table(result))
    console.print(f"{out / 'seeds.md'} has the steps, each tested; every seed has its report.html", highlight=False)
    write_json(json_file, result)


@recipes.command("ls")
def recipes_ls(json_file: JsonFile = None) -> None:
    """The shipped recipes."""
    from vsre.recipes import load_recipe, recipe_names

    found = [load_recipe(name) for name in recipe_names()]
    table = Table("recipe", "models", "about")
    for r in found:
        table.add_row(r.name, ", ".join(m.name for m in r.models), escape(r.about or r.title))
    console.print(table)
    write_json(json_file, [r.model_dump(mode="json") for r in found])


@recipes.command("show")
def recipes_show(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, or a YAML file of yours.")],
) -> None:
    """Print a recipe's YAML, for copying and changing."""
    from vsre.recipes import recipe_text

    console.out(recipe_text(recipe)[0], end="", highlight=False)
