"""Options that the sub-verbs of repaint share, and the objects they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vsre.cli.output import errors
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.repaint.presets import DiffusionConfig
    from vsre.repaint.safety import SafetySpec
    from vsre.repaint.specs import Diffusion, Scenes, VerifierSpec

Triplets = Annotated[Path, typer.Argument(help="Triplets of a train split: a folder or a Parquet file.")]
Out = Annotated[Path, typer.Argument(help="Folder for the plan, the shards, the ledger and the repainted triplets.")]
Settings = Annotated[list[str] | None, typer.Option(help="t2i, i2i, inpaint; repeatable. Default: all.")]
PainterName = Annotated[str, typer.Option(help="scene, a diffusion preset (`vsre repaint presets`) or a YAML file.")]
PerTriplet = Annotated[int, typer.Option(help="Pictures per triplet and setting.")]
ScenesFile = Annotated[Path | None, typer.Option("--scenes", help="scenes.jsonl of the embedded world.")]
Limit = Annotated[int | None, typer.Option(help="Only this many triplets, spread evenly.")]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option(help="Triplets whose pictures and captions are never painted, besides test and dev next to TRIPLETS."),
]
Model = Annotated[str | None, typer.Option(help="Hub id or folder of other weights for the painter.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps of a diffusion painter.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale of a diffusion painter.")]
Strength = Annotated[float | None, typer.Option(help="For i2i and inpaint: steps x strength are run.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16.")]
Offload = Annotated[str | None, typer.Option(help="none, model or sequential: less GPU memory, more time.")]
BatchSize = Annotated[int | None, typer.Option(help="Pictures painted at once.")]
Offline = Annotated[bool, typer.Option(help="Never contact the hub: use cached files or a folder.")]
VerifierName = Annotated[
    str | None, typer.Option("--verifier", help="A verifier (`vsre verify presets`) or a YAML: keep what it confirms.")
]
Safety = Annotated[
    str | None, typer.Option(help="An image classifier, MODEL or MODEL=CLASS (default nsfw), that rejects pictures.")
]
Instances = Annotated[
    list[Path] | None, typer.Option(help="COCO instance files with the photos' licences; repeatable.")
]
ShardJobs = Annotated[int | None, typer.Option(help="Jobs painted before they are written, roughly. Default: 256.")]
Workers = Annotated[int | None, typer.Option(help="Processes; default: 2 for scenes, 1 for a model.")]
Captions = Annotated[int, typer.Option(help="Captions to keep per picture besides those asked for, at most.")]
Time = Annotated[int | None, typer.Option("--time", help="Time this many jobs here to estimate the cost.")]
Ray = Annotated[str | None, typer.Option(help="Paint on a Ray cluster: its address, or local.")]


def painter_of(
    painter: str, setting: list[str] | None, scenes: Path | None, numbers: dict[str, Any], options: dict[str, Any]
) -> tuple[Scenes | Diffusion, tuple[str, ...]]:
    """The painter that was named, and the settings it paints in."""
    from vsre.repaint.painter import SETTINGS
    from vsre.repaint.specs import Diffusion, Scenes

    settings = tuple(setting or ())
    if painter == "scene":
        only_for_models({**numbers, **options})
        return Scenes(scenes=scenes), settings or SETTINGS
    config = config_of(painter, options)
    config = config.only(settings or config.settings).with_numbers(**numbers)
    tell_strength(config)
    return Diffusion(config=config), config.settings


def verifier_of(name: str | None) -> VerifierSpec | None:
    from vsre.repaint.specs import VerifierSpec

    return None if name is None else VerifierSpec(verifier=name)


def safety_of(given: str | None) -> SafetySpec | None:
    from vsre.repaint.safety import SafetySpec

    if given is None:
        return None
    model, _, label = given.partition("=")
    return SafetySpec(model=model, label=label) if label else SafetySpec(model=model)


def loading_options(
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


def config_of(painter: str, options: dict[str, Any]) -> DiffusionConfig:
    from vsre.repaint.presets import load_config

    return load_config(painter).changed(**options)


def tell_strength(config: DiffusionConfig) -> None:
    """Print a note for each setting whose few steps run at a strength far from the one asked for."""
    for setting, numbers in config.far_from_asked().items():
        errors.print(
            f"[bold]note[/] {setting}: {numbers.steps} steps at strength {numbers.strength:g} are "
            f"{int(numbers.steps * numbers.strength)} whole steps, which begin at about {numbers.strength_run:.2g}: "
            "more of the photo stays than was asked for. More steps come closer.",
            highlight=False,
        )


def only_for_models(given: dict[str, Any]) -> None:
    if names := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise VsreError(
            f"{', '.join(names)}: the scene painter has no such numbers. Name a model's --painter, or leave them out."
        )
