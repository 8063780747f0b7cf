"""The verb that looks inside a model: features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, errors, write_json
from vsre.errors import VsreError


def register(app: typer.Typer) -> None:
    app.command()(features)


def features(
    model: Annotated[str, typer.Argument(help="A VSRE model: zoo:vsre, a folder or a hub id.")],
    out: Annotated[Path, typer.Argument(help="Folder for features.json and relations.svg.")],
    triplets: Annotated[
        Path | None,
        typer.Option("--triplets", "-t", help="Triplets with pictures and boxes, for distances and silencing."),
    ] = None,
    scenes: Annotated[int, typer.Option(help="Drawn scenes to fit probes on; a third as many to measure on.")] = 900,
    limit: Annotated[int, typer.Option(help="Triplets to ask about with encoders silenced; 0: none.")] = 240,
    pack: Annotated[str, typer.Option(help="The template pack to ask them with.")] = "test-s",
    device: str = "auto",
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure what each encoder knows about space, before and after projection and merging, and what it is used for."""
    from vsre.diagnose import TransformersEngine
    from vsre.features import complement, inside
    from vsre.features.plots import write_scatter
    from vsre.model import VsreConfig
    from vsre.zoo.pool import make_pool

    engine = TransformersEngine(model, device=device)
    if not isinstance(engine.model.config, VsreConfig):
        raise VsreError(
            f"{model}: no VSRE model, so there are no encoders to look into. `vsre convert from-llava` converts a "
            "LLaVA; `vsre zoo probe` measures an encoder alone."
        )
    size = engine.model.config.frame_size
    train, test = (
        make_pool(out / "scenes", max(2, n), at, size)
        for n, at in ((scenes, 7_001 + seed), (scenes // 3, 8_001 + seed))
    )
    errors.print(f"{escape(model)}: probes on {len(train)} scenes, measured on {len(test)}", highlight=False)
    found = inside(engine.model, engine.processor, train, test, triplets=triplets, seed=seed)
    figures: dict[str, Any] = {"model": model, **found.figures}
    if found.relations:
        write_scatter(out / "relations.svg", found)
    if triplets is not None and limit:
        figures["complement"] = complement(engine, triplets, pack=pack, limit=limit).figures
    write_json(out / "features.json", figures)
    _print(figures)
    console.print(f"all of it: {out / 'features.json'}", highlight=False)
    write_json(json_file, figures)


def _print(figures: dict[str, Any]) -> None:
    from vsre.rates import share_text

    names = ("class_at_place", "position", "relation", "depth")
    table = Table("features", "class at a place", "position (R2)", "left/above", "nearer", "norm", "rank", "of")
    for stage, probes in figures["probes"].items():
        tokens = figures["tokens"][stage]
        table.add_row(
            stage, *(f"{probes[n]:.3f}" for n in names), *(f"{tokens[n]:g}" for n in ("norm", "rank", "width"))
        )
    console.print(table)
    console.print(f"word embeddings have norm {figures['tokens']['words']['norm']:g}", highlight=False)
    for stage, pairs in figures["alignment"].items():
        if pairs:
            told = ", ".join(f"{pair} {value:.2f}" for pair, value in pairs.items())
            console.print(f"CKA, {stage}: {told}", highlight=False)
    for stage, found in figures.get("relations", {}).items():
        told = f"within {found['mean_within']:.3f}, between {found['between']:.3f}, ratio {found['ratio']:.3f}"
        console.print(f"distances of relations, {stage}: {told}", highlight=False)
    if asked := figures.get("complement"):
        table = Table("encoders", "right", title=f"{asked['questions']} questions, pack {asked['pack']}")
        for arm, rate in asked["accuracy"].items():
            table.add_row(arm, share_text(rate))
        if "union" in asked:
            chance = f"; {asked['union_by_chance']:.0%} if errors had nothing in common"
            table.add_row("any one alone (oracle)", share_text(asked["union"]) + chance)
        console.print(table)
        for name, part in asked.get("attention", {}).get("of_visual", {}).items():
            console.print(f"{name}: {part['attention']:.1%} of the attention, {part['tokens']:.1%} of the tokens")
