"""Sub-verbs of repaint for use before painting in earnest: sweep, masks, presets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.groups import PresetName, show_presets
from vsre.cli.output import JsonFile, console, key_table, progress_bar, write_json
from vsre.cli.repaint_options import (
    BatchSize,
    Device,
    Dtype,
    HeldOut,
    Model,
    Offline,
    Offload,
    ScenesFile,
    Triplets,
    VerifierName,
    config_of,
    loading_options,
    only_for_models,
    tell_strength,
    verifier_of,
)
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.repaint.presets import DiffusionConfig


def sweep(
    triplets: Triplets,
    out: Annotated[Path, typer.Argument(help="Folder for sweep.html, sweep.png, sweep.json and pictures/.")],
    setting: Annotated[str, typer.Option(help="t2i, i2i or inpaint.")] = "t2i",
    painter: Annotated[
        list[str] | None, typer.Option(help="scene, a diffusion preset or a YAML file; repeatable. Default: sdxl.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Triplets, spread evenly over the set.")] = 8,
    guidance: Annotated[list[float] | None, typer.Option(help="Guidance scales to try; repeatable.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Steps to try; repeatable.")] = None,
    strength: Annotated[list[float] | None, typer.Option(help="Strengths to try; repeatable.")] = None,
    dilation: Annotated[
        list[float] | None, typer.Option(help="Mask dilations to try, as a fraction of the box's sides; repeatable.")
    ] = None,
    scenes_file: ScenesFile = None,
    held_out: HeldOut = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = None,
    batch_size: BatchSize = None,
    offline: Offline = False,
    verifier: VerifierName = None,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Try models and numbers on a few rows: a contact sheet, and the pass rate of each if a verifier can tell.

    The scene painter is judged by the scenes it drew, unless another verifier is named.
    """
    from functools import partial

    from vsre.repaint import SETTINGS, ScenePainter
    from vsre.repaint.sweep import Variant, grid
    from vsre.repaint.sweep import sweep as try_out

    chosen = next((s for s in SETTINGS if s == setting), None)
    if chosen is None:
        raise VsreError(f"--setting {setting!r} is none of {', '.join(SETTINGS)}.")
    names = painter or ["sdxl"]
    options = loading_options(model, device, dtype, offload, batch_size, offline)
    axes: dict[str, Any] = {"steps": steps, "guidance": guidance, "strength": strength, "dilation": dilation}
    drawn = "scene" in names
    if drawn and len(names) > 1:
        raise VsreError("The scene painter has none of a model's numbers: sweep them one at a time.")
    looks = verifier_of(verifier or ("scene-truth" if drawn else None))
    if drawn:
        only_for_models({**axes, **options})
        variants = [Variant("scene", {"model": "scene"}, partial(ScenePainter, scenes=scenes_file))]
    else:
        configs = {name: config_of(name, options) for name in names}
        variants = grid(configs, chosen, **{name: values or () for name, values in axes.items()})
        for name in names:
            for number in steps or (None,):
                for asked in strength or (None,):
                    tell_strength(configs[name].only([chosen]).with_numbers(steps=number, strength=asked))
    with progress_bar("pictures") as tick:
        summary = try_out(
            triplets,
            out,
            variants,
            setting=setting,
            rows=rows,
            seed=seed,
            verifier=looks() if looks is not None else None,
            held_out=held_out or (),
            progress=tick,
        )
    _sweep_table(summary)
    console.print(f"contact sheet: {out / 'sweep.html'}, {out / 'sweep.png'}", highlight=False)
    write_json(json_file, summary)


def masks(
    triplets: Annotated[Path, typer.Argument(help="Triplets with boxes: a folder or a Parquet file.")],
    dilation: Annotated[float | None, typer.Option(help="Mask dilation, as a fraction of the box's sides.")] = None,
    surrounded: Annotated[
        str | None, typer.Option(help="paint or refuse, if the object's box holds over half of the subject's.")
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


def presets(name: PresetName = None, json_file: JsonFile = None) -> None:
    """List the diffusion presets, or show one with the source of each default."""
    from vsre.repaint.presets import PRESETS

    show_presets(
        PRESETS,
        name,
        json_file,
        head=("preset", "size", "t2i", "i2i", "inpaint", "licence"),
        cells=lambda config: (
            f"{config.size[0]} x {config.size[1]}",
            *(_numbers(config, setting) for setting in ("t2i", "i2i", "inpaint")),
            config.licence,
        ),
        notes=(
            "steps, guidance, strength (and in brackets the strength that so few steps amount to)",
            "`vsre repaint presets NAME` shows the source of each default",
        ),
    )


def _numbers(config: DiffusionConfig, setting: Any) -> str:
    if setting not in config.settings:
        return "–"
    numbers = config.numbers(setting)
    shown = ", ".join(f"{value:g}" for value in numbers.model_dump().values())
    return f"{shown} ({numbers.strength_run:.2g})" if setting in config.far_from_asked() else shown  # type: ignore[attr-defined]


def _sweep_table(summary: dict[str, Any]) -> None:
    from vsre.repaint.sweep import shown_label

    table = Table("variant", "painted", "refused", "pass", "95 % interval")
    table.title = f"{summary['setting']}, {summary['rows']} rows"
    reasons: dict[str, int] = {}
    for figure in summary["variants"]:
        rate = figure.get("pass_rate")
        shown = ["–", "–"] if rate is None else [f"{rate['value']:.1%}", f"{rate['low']:.1%} to {rate['high']:.1%}"]
        refused = sum(figure["refused"].values())
        table.add_row(escape(shown_label(figure)), str(figure["pictures"]), str(refused), *shown)
        for reason, n in figure["refused"].items():
            reasons[reason] = reasons.get(reason, 0) + n
    console.print(table)
    for reason, n in reasons.items():
        console.print(f"refused {n} times: {reason}", highlight=False)
    if summary["verifier"] is None:
        console.print("no verifier: nothing is known of what the pictures show")
