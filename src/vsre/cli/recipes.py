"""Verbs that run whole recipes: run, demo, recipes."""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, errors, write_json
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.recipes import Recipe

recipes = typer.Typer(
    help="Whole experiments as YAML files: list them, show one, check one, run one.", no_args_is_help=True
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe, or your own YAML file.")]
Rows = Annotated[list[str] | None, typer.Option("--row", help="Only this model, by number or name; repeatable.")]
ProtocolName = Annotated[
    str | None, typer.Option("--protocol", help="paper (as published, it leaks), clean or clean-concepts.")
]


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(run)
    recipes.command("run")(run)
    app.add_typer(recipes, name="recipes")


class DemoPainter(StrEnum):
    """What repaints the demo's pictures: the embedded world, or the shipped toy SDXL."""

    SCENE = "scene"
    DIFFUSION = "diffusion"


def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the experiment; run again to resume.", show_default="vsre-demo"),
    ] = None,
    painter: Annotated[
        DemoPainter, typer.Option(help="scene draws what it says; diffusion paints, and a verifier checks.")
    ] = DemoPainter.SCENE,
    json_file: JsonFile = None,
) -> None:
    """Run the whole story on this machine: a baseline, its data and encoders expanded, the expert, and a report."""
    recipe, chosen = {
        DemoPainter.SCENE: ("demo", ""),
        DemoPainter.DIFFUSION: ("demo-diffusion", " --painter diffusion"),
    }[painter]
    _run(_load(recipe, None, None), out or Path(f"vsre-{recipe}"), json_file, command=f"vsre demo{chosen}")


def run(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the experiment; run again to resume.")],
    rows: Rows = None,
    protocol: ProtocolName = None,
    seeds: Annotated[
        str | None, typer.Option(help="Run it with each of these seeds, such as 0,1,2, and report them together.")
    ] = None,
    accelerate: Annotated[
        str | None,
        typer.Option(help="Share the training between GPUs: ddp-8, fsdp2-8, ..., or accelerate's own YAML file."),
    ] = None,
    train_only: Annotated[str | None, typer.Option(hidden=True, help="One process's share of a training run.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Run a recipe from data to report."""
    chosen = _load(recipe, rows, protocol)
    if train_only is not None:
        return _train_only(chosen, train_only, out)
    options = "".join(f" --row {row!r}" for row in rows or []) + (f" --protocol {protocol}" if protocol else "")
    command = f"vsre run {Path(recipe).name}{options}"
    command += f" --accelerate {accelerate}" if accelerate else ""
    if seeds is None:
        _run(chosen, out, json_file, command, accelerate)
    else:
        _run_seeds(chosen, out, seeds, json_file, command, accelerate)
    return None


def _train_only(recipe: Recipe, name: str, out: Path) -> None:
    from vsre.recipes.training import alone_at_training, train_here

    with alone_at_training(out):
        train_here(recipe, next(model for model in recipe.models if model.name == name), out, errors)


def _load(name: str, rows: list[str] | None, protocol: str | None) -> Recipe:
    from vsre.recipes import load_recipe

    recipe = load_recipe(name, protocol=protocol)
    return recipe.rows(rows) if rows else recipe


def _run(recipe: Recipe, out: Path, json_file: Path | None, command: str, accelerate: str | None = None) -> None:
    from vsre.recipes import run_recipe
    from vsre.report import result_table

    errors.print(f"{escape(recipe.title)} [dim](recipe {recipe.name}, protocol {recipe.protocol})[/]", highlight=False)
    result = run_recipe(recipe, out, console=errors, command=command, accelerate=accelerate)
    runs = result.pop("runs")
    console.print(result_table(runs))
    console.print(f"{result['seconds']:.0f} s. Report: {result['report']}", highlight=False, soft_wrap=True)
    write_json(json_file, result)


def seed_list(listed: str) -> list[int]:
    """The numbers of --seeds."""
    try:
        return [int(part) for part in listed.split(",")]
    except ValueError:
        raise VsreError(f"--seeds {listed}: give whole numbers separated by commas, such as 0,1,2.") from None


def _run_seeds(
    recipe: Recipe, out: Path, listed: str, json_file: Path | None, command: str, accelerate: str | None
) -> None:
    from vsre.recipes import run_recipe
    from vsre.report import seeds_table, write_seeds

    seeds = seed_list(listed)
    if len(set(seeds)) < len(seeds) or len(seeds) < 2 or min(seeds) < 0:
        raise VsreError(f"--seeds {listed}: give two or more different seeds, none below 0.")
    runs = {}
    for seed in seeds:
        errors.print(f"{escape(recipe.title)} [dim](recipe {recipe.name}, seed {seed})[/]", highlight=False)
        seeded = recipe.model_copy(update={"seed": seed})
        said = f"{command} --seeds {listed}"
        folder = out / f"seed-{seed}"
        runs[seed] = run_recipe(seeded, folder, console=errors, command=said, accelerate=accelerate)["runs"]
    result = write_seeds(out, runs)
    console.print(seeds_table(result))
    console.print(f"{out / 'seeds.md'} has the steps, each tested; every seed has its own report.html", highlight=False)
    write_json(json_file, result)


@recipes.command("ls")
def recipes_ls(
    recipe: Annotated[str | None, typer.Argument(help="List the rows of this recipe.", metavar="[RECIPE]")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the shipped recipes, or the rows of one, with the paper's figures where there are any."""
    from vsre.recipes import load_recipe, recipe_names
    from vsre.recipes.published import published_figures

    if recipe is None:
        found = [load_recipe(name) for name in recipe_names()]
        table = Table("recipe", "rows", "about")
        for r in found:
            table.add_row(r.name, str(len(r.models)), escape(r.about or r.title))
        console.print(table)
        return write_json(json_file, [r.model_dump(mode="json") for r in found])
    whole = load_recipe(recipe)
    table = Table(
        "row", "model", "starts from", "Test-G", "Test-S", title=f"{escape(whole.title)} Published figures, in %"
    )
    rows = []
    for number, model in enumerate(whole.models, 1):
        figures = published_figures(model.paper)
        start = model.start
        begins = [name for name in (start.checkpoint, start.model, start.llm, start.vlm) if name]
        stages = [f"{stage['name']}: {', '.join(stage['data'])}" for stage in model.stages]
        shown = ("–" if figures.get(key) is None else f"{figures[key]}" for key in ("test_g", "test_s"))
        table.add_row(str(number), escape(model.name), escape(begins[0]), *shown)
        rows.append({"row": number, "model": model.name, "stages": stages, "published": figures})
    console.print(table)
    return write_json(json_file, rows)


@recipes.command("show")
def recipes_show(recipe: RecipeName, rows: Rows = None, protocol: ProtocolName = None) -> None:
    """Print a recipe's YAML, to copy and change; with --row or --protocol, the plain recipe it expands to."""
    from vsre.recipes import recipe_text
    from vsre.recipes.files import as_yaml

    text = as_yaml(_load(recipe, rows, protocol)) if rows or protocol else recipe_text(recipe)[0]
    console.out(text, end="", highlight=False)


@recipes.command("validate")
def recipes_validate(
    recipe: RecipeName,
    rows: Rows = None,
    protocol: ProtocolName = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share a step.")] = 8,
    gpu: Annotated[
        str, typer.Option(help="Type of GPU, to estimate the hours: a100, h100, h200, b200, l40s, rtx4090.")
    ] = "h100",
    gpu_memory: Annotated[float, typer.Option(min=1, help="Memory of each GPU, in GB.")] = 80,
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="Assumed share of their peak throughput.")] = 0.4,
    sharding: Annotated[
        str, typer.Option(help="none, full (FSDP2, ZeRO-3), or auto: the lightest that fits.")
    ] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the hub.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Check ids, data, packs, token budget, memory and hours before anything is loaded; names every fault."""
    from vsre.recipes import RecipeFaults
    from vsre.recipes.estimate import Machine, estimate
    from vsre.recipes.files import read_recipe
    from vsre.recipes.validate import check

    machine = Machine.of(gpus=gpus, gpu=gpu, memory=gpu_memory, utilisation=mfu, sharding=sharding)
    whole, faults = read_recipe(recipe, protocol=protocol)
    if whole is None:
        raise RecipeFaults(recipe, faults)
    chosen = whole.rows(rows) if rows and not faults else whole
    found = check(chosen, online=not offline, gpus=gpus)
    found.faults[:0] = faults
    estimates = [e.as_dict() for e in estimate(chosen, found, machine)]
    if estimates:
        _print_estimates(estimates)
        console.print(machine.assumptions(), highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    write_json(json_file, {"recipe": chosen.name, "faults": found.faults, "notes": found.notes, "stages": estimates})
    if found.faults:
        raise RecipeFaults(recipe, found.faults)
    console.print(f"{chosen.name}: sound, {len(chosen.models)} models", highlight=False)


def _print_estimates(estimates: list[dict[str, Any]]) -> None:
    """Print a table per model, a row per stage, in GB per GPU."""
    parts = {
        "weights": "weights_gb",
        "grads": "gradients_gb",
        "optim.": "optimizer_gb",
        "copies": "copies_gb",
        "activ.": "activations_gb",
        "in all": "total_gb",
    }
    for model, rows in groupby(estimates, key=lambda e: e["model"]):
        console.print(f"[bold]{escape(model)}[/]", highlight=False)
        table = Table("stage", "tokens", "micro", "spread", *parts, "hours", box=None, padding=(0, 1, 0, 0))
        for e in rows:
            figures = (f"{e[key]:.1f}" for key in parts.values())
            hours = "–" if e["hours"] is None else f"{e['hours']:.1f}"
            spread = "no" if e["sharding"] == "none" else "FSDP"
            style = None if e["fits"] else "red"
            table.add_row(e["stage"], f"{e['tokens']:,}", str(e["micro_batch"]), spread, *figures, hours, style=style)
        console.print(table)
