"""Verbs that train: train, zoo."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, errors, key_table, write_json
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.model import Plan
    from vsre.train import Stage

zoo = typer.Typer(help="The shipped tiny models: list them, or train one from scratch.", no_args_is_help=True)


PAPER = "clip,siglip,dinov2,sam"
"""The paper's encoders."""


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.add_typer(zoo, name="zoo")


def train(
    stages: Annotated[Path, typer.Argument(help="YAML file: the ordered list of stages with their data.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; run again to resume.")],
    checkpoint: Annotated[str | None, typer.Option(help="Tune this model: a hub id, a folder, or zoo:base.")] = None,
    llm: Annotated[str | None, typer.Option(help="Build VSRE on this language model ...")] = None,
    encoders: Annotated[
        str | None,
        typer.Option(
            help="... and these encoders, by comma; default: clip,siglip,dinov2,sam. NAME=ID names one. With a VSRE "
            "--checkpoint keep only these; default: all."
        ),
    ] = None,
    keep_cls: Annotated[bool, typer.Option(help="Keep the CLS tokens of CLIP and DINOv2.")] = False,
    image_size: Annotated[
        list[str] | None, typer.Option(metavar="ENCODER=PIXELS", help="Another input size for an encoder; repeatable.")
    ] = None,
    tokens: Annotated[
        list[str] | None, typer.Option(metavar="ENCODER=NUMBER", help="Max. visual tokens of an encoder; repeatable.")
    ] = None,
    fusion: Annotated[
        str, typer.Option(help="How encoders are joined: sequence (the paper's), channel or interleave.")
    ] = "sequence",
    grid: Annotated[
        int | None, typer.Option(help="Cells along a side of the grid that channel and interleave resample to.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="What interleave alternates: cell or row.")] = None,
    feature_cache: Annotated[
        Path | None, typer.Option(help="Where to cache features of frozen encoders; default: OUT/cache/features.")
    ] = None,
    no_feature_cache: Annotated[bool, typer.Option("--no-feature-cache", help="Encode pictures each time.")] = False,
    report_to: Annotated[
        str, typer.Option(help="Trackers that also get the log, comma-separated: tensorboard, wandb, trackio, ...")
    ] = "",
    accelerate: Annotated[
        str | None,
        typer.Option(help="Share the work between GPUs: single, ddp-8, fsdp2-4x8, ..., or accelerate's own YAML file."),
    ] = None,
    seed: int = 0,
    plan_only: Annotated[bool, typer.Option("--plan", help="Check grids and token budget; load nothing.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Train through stages: adapters, then adapters and language model, or any other list.

    Encoders are clip, siglip, dinov2, sam (the paper's checkpoints), zoo:NAME, a hub id or a folder; NAME=ID gives one
    another name in the model. Options for a single encoder take this name, or else its id.
    """
    from vsre.model import fusion_from, plan_checkpoints
    from vsre.recipes.schema import EncoderChoice
    from vsre.recipes.start import encoder_specs, open_model
    from vsre.train import load_stages, run_stages
    from vsre.train.fingerprint import note_start
    from vsre.train.processes import processes
    from vsre.train.run import check_stages

    if (checkpoint is None) == (llm is None):
        raise VsreError("Give --checkpoint to tune a model, or --llm (with --encoders) to build VSRE on one.")
    if plan_only and llm is None:
        raise VsreError("--plan shows a model that is yet to be built: it goes with --llm, not with --checkpoint.")
    todo = load_stages(stages)
    trackers = [t.strip() for t in report_to.split(",") if t.strip()]
    check_stages(todo, trackers)
    if accelerate is not None and not plan_only:
        raise typer.Exit(_in_processes(accelerate, todo, out))
    listed = encoders if encoders is not None else "" if llm is None else PAPER
    names = [e.strip() for e in listed.split(",") if e.strip()]
    named = [_named(entry) for entry in names]
    called = [name or at for name, at in named]
    sizes, budgets = (_of_encoders(*given, called) for given in (("image-size", image_size), ("tokens", tokens)))
    chosen = [
        EncoderChoice(id=at, name=name, image_size=sizes.get(name or at), tokens=budgets.get(name or at))
        for name, at in named
    ]
    joined = fusion_from({"kind": fusion} | {k: v for k, v in (("grid", grid), ("by", by)) if v is not None})
    speaks = plan_only or processes().is_main_process
    if llm is not None:
        made = plan_checkpoints(llm, encoder_specs(chosen), fusion=joined, keep_cls=keep_cls)
        if speaks:
            _show_plan(made)
        if plan_only:
            return write_json(json_file, {"tokens": made.tokens, "positions": made.positions})
    model, processor = open_model(checkpoint, llm, chosen, fusion=joined, seed=seed, keep_cls=keep_cls)
    kept = False if no_feature_cache else feature_cache or True
    summary = run_stages(model, processor, todo, out, seed=seed, feature_cache=kept, report_to=trackers)
    if not speaks:
        return None
    begun = {"checkpoint": checkpoint} if llm is None else {"llm": llm}
    note_start(out, begun | ({"encoders": names} if names else {}))
    shown = {f"{i:02d}": {k: v for k, v in s.items() if k != "config"} for i, s in enumerate(summary["stages"], 1)}
    key_table(f"trained: {summary['model']}", shown)
    write_json(json_file, summary)
    return None


def _show_plan(made: Plan) -> None:
    table = Table("encoder", "input", "grid", "visual tokens", "adapter", "adapter parameters")
    for r in made.rows:
        table.add_row(r.encoder, str(r.image_size), r.grid, str(r.tokens), r.adapter, f"{r.adapter_parameters:,}")
    errors.print(table)
    errors.print(f"fusion: {made.fusion}, adapters of {made.adapter_parameters:,} parameters")
    errors.print(f"{made.tokens:,} visual tokens of {made.positions:,} positions; {made.text_room:,} left for text")


def _named(entry: str) -> tuple[str | None, str]:
    """NAME=ID of --encoders as (name, id), or (None, id) without a name, even for a folder with = in its path."""
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9_-]*)=(.+)", entry)
    return (found[1], found[2]) if found else (None, entry)


def _of_encoders(option: str, given: list[str] | None, encoders: list[str]) -> dict[str, int]:
    """The ENCODER=NUMBER entries of an option, by encoder."""
    found = {}
    for entry in given or ():
        name, _, number = entry.rpartition("=")
        if name not in encoders or not number.isdigit() or int(number) == 0:
            raise VsreError(f"--{option} {entry}: give ENCODER=NUMBER; the encoders are {', '.join(encoders)}.")
        found[name] = int(number)
    return found


def _in_processes(configuration: str, stages: Sequence[Stage], out: Path) -> int:
    """Run this command in the processes of an accelerate configuration; returns its exit code."""
    import sys

    from vsre.train.launch import config_file, launch, launch_command, without_option
    from vsre.train.run import DONE, stage_folders

    command = launch_command(config_file(configuration), without_option(sys.argv[1:], "--accelerate"))
    folders = stage_folders(stages, out)
    return launch(command, lambda: sum((folder / DONE).is_file() for folder in folders), len(folders))


@zoo.command("ls")
def zoo_ls(json_file: JsonFile = None) -> None:
    """List the shipped models, their sizes and what they know."""
    import json

    from vsre.zoo.train import ORDER, WEIGHTS

    table, rows = Table("model", "MB", "trained by", "figures"), []
    for name in ORDER:
        card = WEIGHTS / name / "card.json"
        if not card.is_file():
            table.add_row(name, "–", f"not here; vsre zoo train {name}", "")
            continue
        record = json.loads(card.read_text())
        size = sum(f.stat().st_size for f in card.parent.rglob("*") if f.is_file()) / 1e6
        rows.append({"name": name, "megabytes": round(size, 2), "figures": record["figures"]})
        shown = ", ".join(f"{k} {v}" for k, v in record["figures"].items())
        table.add_row(f"zoo:{name}", f"{size:.1f}", escape(record["settings"]["objective"]), escape(shown))
    console.print(table)
    write_json(json_file, rows)


@zoo.command("probe")
def zoo_probe(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Vision encoders: zoo:NAME, a folder, a hub id; default: the zoo's four.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Where the scenes are drawn.")] = Path("zoo-work"),
    scenes: Annotated[int, typer.Option(help="Scenes to fit on; a third as many for measuring.")] = 1500,
    json_file: JsonFile = None,
) -> None:
    """Measure what frozen features know about space: linear probes of class at a place, position and relation."""
    from vsre.zoo.pool import make_pool
    from vsre.zoo.probes import probe_checkpoint
    from vsre.zoo.train import load_settings

    settings = load_settings()
    train, test = (
        make_pool(work / "pools", n, settings[which]["seed"], settings["size"])
        for which, n in (("pool", scenes), ("held_out_scenes", max(1, scenes // 3)))
    )
    table = Table("encoder", "weights", "class at a place", "position (R2)", "relation")
    found = {}
    for name in checkpoints or [f"zoo:{n}" for n in ("clip", "siglip", "dinov2", "sam")]:
        found[name] = probe_checkpoint(name, train, test)
        for weights, figures in found[name].items():
            shown = (figures[k] for k in ("class_at_place", "position", "relation"))
            table.add_row(escape(name), weights, *(f"{value:.3f}" for value in shown))
    console.print(table)
    write_json(json_file, found)


@zoo.command("train")
def zoo_train(
    name: Annotated[str, typer.Argument(help="A model of `vsre zoo ls`, or all.")],
    work: Annotated[Path, typer.Option(help="Scenes, logs and checkpoints; run again to resume.")] = Path("zoo-work"),
    out: Annotated[Path | None, typer.Option(help="Where to write; default: into the package.")] = None,
    steps: Annotated[int | None, typer.Option(help="Fewer steps, for a trial.")] = None,
) -> None:
    """Train a shipped model from scratch."""
    from vsre.zoo.train import ORDER, WEIGHTS, train_zoo

    for each in ORDER if name == "all" else (name,):
        train_zoo(
            each,
            work,
            out or WEIGHTS,
            steps=steps,
            say=lambda text: console.print(escape(text), highlight=False),
        )
