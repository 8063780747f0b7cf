"""Running a recipe: data, models, diagnosis, report; every step in its own folder and resumable after a kill.

OUT/world/             the embedded world's files, in VSR's format (or your own VSR copy, read where it is)
OUT/triplets/SPLIT/    the source as triplets, after the protocol; with layouts also their pictures, in images/
OUT/data/NAME/         a question source: triplets of its own, if any, and questions (vsre.recipes.data_sets)
OUT/pools/             scenes of general questions, for training and for measuring
OUT/features/          features of frozen encoders, shared by all models; may be deleted
OUT/models/NAME/       training: stages, checkpoints, logs, final weights
OUT/recipe.yaml        if several processes trained: the recipe as they read it
OUT/runs/NAME/         diagnosis: run.json, samples, metrics.json
OUT/also/              further test sets, and OUT/runs/NAME/also/ their diagnosis (`vsre.recipes.also`)
OUT/report.html, OUT/results.json
OUT/locks/             empty files that processes hold: who runs here, who makes a step
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from vsre.diagnose import BlankPictures, Engine, TransformersEngine, diagnose
from vsre.diagnose.box_forest import box_forest
from vsre.diagnose.run_folder import versions
from vsre.files import write_aside
from vsre.recipes.also import diagnose_also
from vsre.recipes.data_sets import question_sources
from vsre.recipes.estimate import Machine, estimate
from vsre.recipes.facts import data_rows, hardware, model_rows, source_rows, stage_rows
from vsre.recipes.files import RecipeFaults
from vsre.recipes.general import described, general_ability
from vsre.recipes.schema import LayoutSource, ModelSpec, Recipe, SceneSource
from vsre.recipes.steps import Steps, alone, digests, folder_name, is_made
from vsre.recipes.training import ends_with, model_folder, processes_of, train_here, train_in_processes
from vsre.recipes.validate import check
from vsre.report import ReportMeta, ReportRun, as_json, write_report
from vsre.rewrite import TemplatePack
from vsre.sources.layouts import write_layouts
from vsre.sources.protocols import protocol_named
from vsre.sources.scenes import write_world
from vsre.sources.vsr import import_vsr


def run_recipe(
    recipe: Recipe, out: Path, *, console: Console, command: str = "", accelerate: str | None = None
) -> dict[str, Any]:
    """Carry out a recipe in `out`; called again, it resumes where it stopped.

    `accelerate`: the configuration of the processes that share the training (see `vsre.train.launch`).

    Returns {"recipe", "results": the result table, "report", "seconds"}, "runs" (as the report takes them) and
    "trained": for each model its checkpoint and its stages' figures. Raises VsreError for input that cannot be
    used, and if `out` holds another recipe's work or another process is using it.
    """
    with alone(out):
        return _run(recipe, out, console, command, accelerate)


def _run(recipe: Recipe, out: Path, console: Console, command: str, accelerate: str | None) -> dict[str, Any]:
    began = time.perf_counter()
    steps = Steps(out, console)
    _check(recipe, out, console, processes_of(accelerate, recipe) if accelerate else 1)
    source, data_summaries = make_data(recipe, out, steps)
    runs: list[ReportRun] = []
    trained: dict[str, dict[str, Any]] = {}
    for model in recipe.models:
        trained[model.name], diagnosed = make_model(recipe, model, out, steps, accelerate)
        runs.append(diagnosed)
    meta = ReportMeta(
        title=recipe.title,
        protocol=recipe.protocol,
        protocol_note=protocol_named(recipe.protocol).note,
        datasets=source_rows(source["import"]) + data_rows(data_summaries),
        set_aside=[{"reason": k, "rows": v} for k, v in source["import"]["set_aside"]["reasons"].items()],
        checks=source.get("world", {}).get("blind_floor", {}),
        painter=[s["repaint"] | {"data": n} for n, s in data_summaries.items() if "repaint" in s],
        shown=[s["shown"] | {"data": n} for n, s in data_summaries.items() if "shown" in s],
        models=model_rows(recipe, out),
        stages=stage_rows(recipe),
        seeds={"recipe": recipe.seed},
        versions=versions(),
        hardware=hardware(),
        times=dict(steps.times),
        notes=[*filter(None, [recipe.about]), *recipe.notes, *recipe.sources],
        command=command or f"vsre run {recipe.name} --out {out.name}",
        triplets=out / "triplets" / "test",
        seed=recipe.seed,
    )
    report = write_report(out / "report.html", runs, meta)
    result = {
        "recipe": recipe.name,
        "protocol": recipe.protocol,
        "results": as_json(runs),
        "report": str(report),
        "seconds": round(time.perf_counter() - began, 1),
        "times": steps.times,
    }
    write_aside(out / "results.json", json.dumps(result, indent=1, default=str) + "\n")
    return result | {"runs": runs, "trained": trained}


def make_data(recipe: Recipe, out: Path, steps: Steps) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make or find the recipe's source and data sets in `out`; return summaries of the source and of each data set."""
    return _source(recipe, out, steps), question_sources(recipe, out, steps)


def make_model(
    recipe: Recipe, model: ModelSpec, out: Path, steps: Steps, accelerate: str | None = None
) -> tuple[dict[str, Any], ReportRun]:
    """Train and diagnose a model of the recipe; its data, and the model it starts from, must be made.

    Returns its checkpoint with the stages' figures, and its run as the report takes it.
    """
    figures: dict[str, Any] = {}
    if model.stages:
        steps.console.print(f"[bold]train: {escape(model.name)}[/]", highlight=False)
        if accelerate is None:
            figures = train_here(recipe, model, out, steps.console)
        else:
            figures = train_in_processes(recipe, model, out, accelerate)
    trained = {"model": ends_with(recipe, model, out), **figures}
    steps.times[f"train {model.name}"] = figures.get("seconds", 0.0)
    return trained, _diagnose(model, trained["model"], recipe, out, steps)


def _check(recipe: Recipe, out: Path, console: Console, gpus: int) -> None:
    """Check what can be known before any work is done: faults stop the run, what may not fit is printed."""
    found = check(recipe, online=True, gpus=gpus, paths=not is_made(out / "triplets"), to_run=True)
    if found.faults:
        raise RecipeFaults(recipe.name, found.faults)
    if torch.cuda.is_available():
        here = Machine(gpus=gpus, room=float(torch.cuda.get_device_properties(0).total_memory))
        for row in estimate(recipe, found, here):
            if not row.fits:
                console.print(f"may not fit: {row.model}, stage {row.stage}: {row.advice}", highlight=False)


def _source(recipe: Recipe, out: Path, steps: Steps) -> dict[str, Any]:
    """Draw or find the source, and read it into triplets under the protocol."""
    source, found = recipe.source, {}
    settings = {"source": source.model_dump(exclude_none=True), "protocol": recipe.protocol, "seed": recipe.seed}
    if isinstance(source, LayoutSource):
        folder = out / "triplets"
        found["import"] = steps.once(
            folder,
            settings,
            lambda: _draw_layouts(source, folder, recipe),
            "draw the layouts",
            reads=digests(*sorted(source.annotations.glob("*/*.jsonl"))),
        )
        found["world"] = {"blind_floor": {"test": {"random forest on boxes": found["import"]["box_forest"]}}}
        return found
    if isinstance(source, SceneSource):
        world = out / "world"
        units = {
            k: getattr(source, k) for k in ("train_units", "dev_units", "test_units", "size", "split", "test_style")
        }
        objects = source.objects.by_split() if source.objects else {}
        found["world"] = steps.once(
            world,
            settings,
            lambda: write_world(world, seed=recipe.seed, workers=2, objects=objects, **units),
            "draw the scenes",
        )
        annotations: Any = world / "annotations" / source.split
        images, instances, origin = [world / "images"], [world / "instances.json"], "scenes"
    else:
        annotations = {"train": source.train, "test": source.test}
        images, instances, origin = source.images, source.instances, "vsr"
    folder = out / "triplets"
    found["import"] = steps.once(
        folder,
        settings,
        lambda: import_vsr(
            annotations, folder, images=images, instances=instances, protocol=recipe.protocol, origin=origin
        ),
        "read the triplets",
        of=out / "world",
        reads={} if isinstance(source, SceneSource) else digests(*source.train, *source.test),
    )
    return found


def _draw_layouts(source: LayoutSource, folder: Path, recipe: Recipe) -> dict[str, Any]:
    summary = write_layouts(
        source.annotations,
        folder,
        instances=source.instances,
        split=source.split,
        protocol=recipe.protocol,
        which=source.objects,
        size=source.size,
    )
    return summary | {"box_forest": box_forest(folder / "train", folder / "test", seed=recipe.seed)}


def _diagnose(model: ModelSpec, checkpoint: str, recipe: Recipe, out: Path, steps: Steps) -> ReportRun:
    logs = sorted(model_folder(model, out).glob("*/log.jsonl"))
    folder = out / "runs" / folder_name(model.name)
    steps.console.print(f"[bold]diagnose: {escape(model.name)}[/]", highlight=False)
    began = time.perf_counter()
    engine = TransformersEngine(checkpoint)
    spec = recipe.diagnose

    def run(asked: Engine, packs: Sequence[str | TemplatePack], target: Path, **further: Any) -> dict[str, Any]:
        return diagnose(
            asked,
            out / "triplets" / "test",
            packs,
            target,
            limit=spec.limit,
            per_image=spec.per_image,
            seed=recipe.seed,
            protocol=recipe.protocol,
            train_path=out / "triplets" / "train",
            **further,
        )

    more: dict[str, Any] = {}
    if spec.blank:
        more["blank"] = run(BlankPictures(engine), ["test-s"], folder / "blank")["test_s"]
    if spec.general is not None:
        pictures = spec.general
        more["general"] = steps.once(
            folder / "general",
            {"weights": engine.settings()["weights"], "pictures": pictures, "seed": recipe.seed},
            lambda: general_ability(engine.model, engine.processor, out / "pools", pictures, recipe.seed),
            f"non-spatial questions: {model.name}",
        )
        more["general"] |= steps.once(  # a separate step, so that runs from before this was measured continue
            folder / "described",
            {"weights": engine.settings()["weights"], "pictures": pictures, "seed": recipe.seed},
            lambda: described(engine.model, engine.processor, out / "pools", pictures, recipe.seed),
            f"names and captions: {model.name}",
        )
    run(engine, spec.asked(), folder, probes=spec.probes, more=more)  # last: a finished run always has the others
    also = diagnose_also(engine, model, recipe, out, steps)
    steps.times[f"diagnose {model.name}"] = round(time.perf_counter() - began, 1)
    row = ReportRun(name=model.name, folder=folder, role=model.role, logs=tuple(logs), note=model.note, also=also)
    return row.model_copy(update={"against": tuple(model.against)})
