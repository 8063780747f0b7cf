"""Verbs that paint: `vsre repaint TRIPLETS OUT`, and under it sweep, masks and presets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from vsre.cli.output import JsonFile, console, errors, key_table, progress_bar, write_json
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.repaint.presets import DiffusionConfig

Triplets = Annotated[Path, typer.Argument(help="Triplets of a train split: a folder or a Parquet file.")]
Scenes = Annotated[Path | None, typer.Option("--scenes", help="scenes.jsonl of the embedded world.")]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option(help="Triplets whose pictures and captions are never painted, beside test and dev next to TRIPLETS."),
]
Model = Annotated[str | None, typer.Option(help="Hub id or folder of other weights for the painter.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16.")]
Offload = Annotated[str | None, typer.Option(help="none, model or sequential: less GPU memory, more time.")]
BatchSize = Annotated[int | None, typer.Option(help="Pictures painted at once.")]
Offline = Annotated[bool, typer.Option(help="Never ask the hub: what is there already, or a folder.")]


class _RunsByDefault(TyperGroup):
    """`vsre repaint TRIPLETS OUT` is `vsre repaint run TRIPLETS OUT`; a folder called "sweep" is said "./sweep"."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=_RunsByDefault, no_args_is_help=True, help=_HELP, rich_markup_mode="markdown")
    for verb in (run, sweep, masks, presets):
        group.command()(verb)
    app.add_typer(group, name="repaint")


_HELP = (
    "Paint new pictures for triplets: `vsre repaint TRIPLETS OUT`, each with its caption, label and kind of negative."
)


def run(
    triplets: Triplets,
    out: Annotated[Path, typer.Argument(help="Folder for the repainted triplets.")],
    setting: Annotated[list[str] | None, typer.Option(help="t2i, i2i, inpaint; may be repeated. Default: all.")] = None,
    painter: Annotated[
        str, typer.Option(help="scene, a diffusion preset (`vsre repaint presets`) or a YAML.")
    ] = "scene",
    per_triplet: Annotated[int, typer.Option(help="Pictures a triplet and setting.")] = 1,
    scenes_file: Scenes = None,
    limit: Annotated[int | None, typer.Option(help="Only so many triplets, spread evenly.")] = None,
    held_out: HeldOut = None,
    model: Model = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, of a diffusion painter.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, of a diffusion painter.")] = None,
    strength: Annotated[float | None, typer.Option(help="Of i2i and inpaint: steps x strength are run.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = None,
    batch_size: BatchSize = None,
    offline: Offline = False,
    seed: int = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; default: 2 for scenes, 1 for a model.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Paint new pictures for triplets, each with its caption, label and kind of negative."""
    from functools import partial

    from vsre.repaint import SETTINGS, DiffusionPainter
    from vsre.repaint import repaint as paint

    numbers = {"steps": steps, "guidance": guidance, "strength": strength}
    options = _options(model, device, dtype, offload, batch_size, offline)
    settings: tuple[str, ...] = tuple(setting or ())
    make = None
    if painter == "scene":
        _only_for_models({**numbers, **options})
        settings = settings or SETTINGS
    else:
        config = _config(painter, options)
        config = config.only(settings or config.settings).with_numbers(**numbers)
        settings = config.settings
        make = partial(DiffusionPainter, config=config)
    with progress_bar("pictures") as tick:
        summary = paint(
            triplets,
            out,
            settings=settings,
            per_triplet=per_triplet,
            seed=seed,
            limit=limit,
            painter=make,
            scenes=scenes_file,
            held_out=held_out or (),
            workers=workers or (2 if make is None else 1),
            progress=tick,
        )
    shown = {k: v for k, v in summary.items() if k != "painter"} | {"painter": summary["painter"]["name"]}
    key_table(f"repainted triplets in {out}", shown)
    if not summary["held_out"]["from"]:
        errors.print(
            f"[bold]note[/] no test or dev split stands beside {escape(str(triplets))}: nothing was held out. Name one "
            "by --held-out if there is one."
        )
    if intended := summary["by_truth"].get("intended"):
        errors.print(
            f"[bold]note[/] {intended:,} pictures show what the model was asked for only if it obeyed. Verify them "
            "before anything is trained on them."
        )
    write_json(json_file, summary)


def sweep(
    triplets: Triplets,
    out: Annotated[Path, typer.Argument(help="Folder for sweep.html, sweep.png, sweep.json and pictures/.")],
    setting: Annotated[str, typer.Option(help="t2i, i2i or inpaint.")] = "t2i",
    painter: Annotated[
        list[str] | None, typer.Option(help="scene, a diffusion preset or a YAML; may be repeated. Default: sdxl.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Triplets, spread evenly over the set.")] = 8,
    guidance: Annotated[list[float] | None, typer.Option(help="Guidance scales to try; may be repeated.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Steps to try; may be repeated.")] = None,
    strength: Annotated[list[float] | None, typer.Option(help="Strengths to try; may be repeated.")] = None,
    dilation: Annotated[
        list[float] | None, typer.Option(help="Of the mask, a fraction of the box's sides, to try; may be repeated.")
    ] = None,
    scenes_file: Scenes = None,
    held_out: HeldOut = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = None,
    batch_size: BatchSize = None,
    offline: Offline = False,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Try models and numbers on a few rows: a contact sheet, and the pass rate of each where a verifier can tell.

    The scene painter is judged by the scenes that it drew. No verifier for photographs is named here yet.
    """
    from functools import partial

    from vsre.repaint import SETTINGS, ScenePainter
    from vsre.repaint.sweep import Variant, grid
    from vsre.repaint.sweep import sweep as try_out
    from vsre.repaint.verify import SceneTruth

    chosen = next((s for s in SETTINGS if s == setting), None)
    if chosen is None:
        raise VsreError(f"--setting {setting!r} is none of {', '.join(SETTINGS)}.")
    names = painter or ["sdxl"]
    options = _options(model, device, dtype, offload, batch_size, offline)
    axes: dict[str, Any] = {"steps": steps, "guidance": guidance, "strength": strength, "dilation": dilation}
    drawn = "scene" in names
    if drawn and len(names) > 1:
        raise VsreError("The scene painter is judged by its scenes, a model cannot be: sweep them one at a time.")
    if drawn:
        _only_for_models({**axes, **options})
        variants = [Variant("scene", {"model": "scene"}, partial(ScenePainter, scenes=scenes_file))]
    else:
        configs = {name: _config(name, options) for name in names}
        variants = grid(configs, chosen, **{name: values or () for name, values in axes.items()})
    with progress_bar("pictures") as tick:
        summary = try_out(
            triplets,
            out,
            variants,
            setting=setting,
            rows=rows,
            seed=seed,
            verifier=SceneTruth() if drawn else None,
            held_out=held_out or (),
            progress=tick,
        )
    _sweep_table(summary)
    console.print(f"contact sheet: {out / 'sweep.html'}, {out / 'sweep.png'}", highlight=False)
    write_json(json_file, summary)


def masks(
    triplets: Annotated[Path, typer.Argument(help="Triplets with boxes: a folder or a Parquet file.")],
    dilation: Annotated[float | None, typer.Option(help="A fraction of the box's sides.")] = None,
    surrounded: Annotated[
        str | None, typer.Option(help="paint or refuse, where the object's box holds over half of the subject's.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Count the rows that can be inpainted, by how their mask is made, and the others by why they are set aside."""
    from pydantic import ValidationError

    from vsre.repaint.masks import MaskSpec, count_masks
    from vsre.triplets import read_triplets

    given = {"dilation": dilation, "surrounded": surrounded}
    try:
        spec = MaskSpec.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        raise VsreError(f"--{problem['loc'][0]} {problem['input']!r}: {problem['msg']}.") from error
    counts = count_masks(read_triplets(triplets, images=False), spec)
    usable, aside = (sum(counts[part].values()) for part in ("usable", "set_aside"))
    total = usable + aside
    summary = {"rows": total, "with_a_mask": usable, "share": round(usable / total, 4) if total else None, **counts}
    key_table(f"masks for {triplets}", summary)
    write_json(json_file, summary)


def presets(
    name: Annotated[str | None, typer.Argument(help="A preset or YAML file: show all of it, with sources.")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the diffusion presets, or show one with where each of its defaults is from."""
    from vsre.repaint.presets import load_config, preset_names

    if name is not None:
        shown = load_config(name).model_dump(mode="json", exclude_none=True)
        key_table(name, shown)
        return write_json(json_file, shown)
    configs = {preset: load_config(preset) for preset in preset_names()}
    table = Table("preset", "size", "t2i", "i2i", "inpaint", "licence")
    for preset, config in configs.items():
        numbers = [_numbers(config, s) for s in ("t2i", "i2i", "inpaint")]
        size = f"{config.size[0]} x {config.size[1]}"
        table.add_row(*(escape(text) for text in (preset, size, *numbers, config.licence)))
    console.print(table)
    console.print("steps, guidance, strength; `vsre repaint presets NAME` shows where each default is from")
    write_json(
        json_file, {preset: config.model_dump(mode="json", exclude_none=True) for preset, config in configs.items()}
    )
    return None


def _numbers(config: DiffusionConfig, setting: Any) -> str:
    if setting not in config.settings:
        return "–"
    return ", ".join(f"{value:g}" for value in config.numbers(setting).model_dump().values())


def _options(
    model: str | None, device: str | None, dtype: str | None, offload: str | None, batch_size: int | None, offline: bool
) -> dict[str, Any]:
    return {
        "model": model,
        "device": device,
        "dtype": dtype,
        "offload": offload,
        "batch_size": batch_size,
        "offline": True if offline else None,
    }


def _config(painter: str, options: dict[str, Any]) -> DiffusionConfig:
    from vsre.repaint.presets import load_config

    return load_config(painter).changed(**options)


def _only_for_models(given: dict[str, Any]) -> None:
    if names := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise VsreError(
            f"{', '.join(names)}: the scene painter has no such numbers. Name a model's --painter, or leave out."
        )


def _sweep_table(summary: dict[str, Any]) -> None:
    table = Table("variant", "painted", "refused", "pass", "95 % interval")
    table.title = f"{summary['setting']}, {summary['rows']} rows"
    reasons: dict[str, int] = {}
    for figure in summary["variants"]:
        rate = figure.get("pass_rate")
        shown = ["–", "–"] if rate is None else [f"{rate['value']:.1%}", f"{rate['low']:.1%} to {rate['high']:.1%}"]
        refused = sum(figure["refused"].values())
        table.add_row(escape(figure["label"]), str(figure["pictures"]), str(refused), *shown)
        for reason, n in figure["refused"].items():
            reasons[reason] = reasons.get(reason, 0) + n
    console.print(table)
    for reason, n in reasons.items():
        console.print(f"refused {n} times: {reason}", highlight=False)
    if summary["verifier"] is None:
        console.print("no verifier: nothing is known of what the pictures show")
