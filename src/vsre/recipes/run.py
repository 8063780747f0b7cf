"""Running a recipe: data, models, diagnosis, report; every step in its folder, every step resumed after a kill.

OUT/world/             the embedded world's files, in VSR's format (or your own VSR copy, read where it is)
OUT/triplets/SPLIT/    the source as triplets, after the protocol; with layouts also their pictures, in images/
OUT/data/NAME/         a question source: triplets (repainted ones have their own) and questions
OUT/pools/             scenes of general questions, for training and for measuring
OUT/features/          features of frozen encoders, shared by all models; may be deleted
OUT/models/NAME/       training: stages, checkpoints, logs, final weights
OUT/runs/NAME/         diagnosis: run.json, samples, metrics.json
OUT/report.html, OUT/results.json
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from vsre.diagnose import BlankPictures, Engine, TransformersEngine, diagnose
from vsre.diagnose.box_forest import box_forest
from vsre.diagnose.run_folder import versions
from vsre.errors import VsreError
from vsre.model import plan_checkpoints, resolve_checkpoint
from vsre.recipes.facts import data_rows, hardware, model_rows, source_rows, stage_rows
from vsre.recipes.general import general_ability, general_mix, general_paths, general_source
from vsre.recipes.schema import LayoutSource, ModelSpec, Recipe, SceneSource
from vsre.recipes.start import encoder_specs, open_model
from vsre.recipes.steps import Steps, folder_name
from vsre.repaint import repaint
from vsre.report import ReportMeta, ReportRun, as_json, write_report
from vsre.rewrite import rewrite
from vsre.sources.layouts import write_layouts
from vsre.sources.protocols import protocol_named
from vsre.sources.scenes import write_world
from vsre.sources.vsr import import_vsr
from vsre.train import DataSource, run_stages
from vsre.train.checkpoints import write_json


def run_recipe(recipe: Recipe, out: Path, *, console: Console, command: str = "") -> dict[str, Any]:
    """Carry out a recipe in `out`; called again it goes on where it was stopped.

    Returns {"recipe", "results": the result table, "report", "seconds"}, "runs" (as the report takes them) and
    "trained": for each model its checkpoint and its stages' figures. Raises VsreError for input that cannot be
    used and when `out` holds another recipe's work.
    """
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    steps = Steps(out, console)
    _check_models(recipe)
    source = _source(recipe, out, steps)
    data, data_summaries = _data(recipe, out, steps)
    runs: list[ReportRun] = []
    trained: dict[str, dict[str, Any]] = {}
    for model in recipe.models:
        checkpoint, logs, figures = _train(model, recipe, data, out, console, trained)
        trained[model.name] = {"model": checkpoint, **figures}
        steps.times[f"train {model.name}"] = figures.get("seconds", 0.0)
        runs.append(_diagnose(model, checkpoint, logs, recipe, out, steps))
    meta = ReportMeta(
        title=recipe.title,
        protocol=recipe.protocol,
        protocol_note=protocol_named(recipe.protocol).note,
        datasets=source_rows(source["import"]) + data_rows(data_summaries),
        set_aside=[{"reason": k, "rows": v} for k, v in source["import"]["set_aside"]["reasons"].items()],
        checks=source.get("world", {}).get("blind_floor", {}),
        painter=[s["repaint"] | {"data": n} for n, s in data_summaries.items() if "repaint" in s],
        models=model_rows(recipe, out),
        stages=stage_rows(recipe),
        seeds={"recipe": recipe.seed},
        versions=versions(),
        hardware=hardware(),
        times=dict(steps.times),
        notes=[recipe.about] if recipe.about else [],
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
    (out / "results.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    return result | {"runs": runs, "trained": trained}


def _check_models(recipe: Recipe) -> None:
    """Every checkpoint is there and every token budget holds before any work is done."""
    for model in recipe.models:
        if model.start.checkpoint is not None:
            resolve_checkpoint(model.start.checkpoint)
        elif model.start.llm is not None:
            plan_checkpoints(model.start.llm, encoder_specs(model.start.encoders))


def _source(recipe: Recipe, out: Path, steps: Steps) -> dict[str, Any]:
    """Draw or find the source, and read it to triplets under the protocol."""
    source, found = recipe.source, {}
    settings = {"source": source.model_dump(), "protocol": recipe.protocol, "seed": recipe.seed}
    if isinstance(source, LayoutSource):
        folder = out / "triplets"
        found["import"] = steps.once(
            folder, settings, lambda: _draw_layouts(source, folder, recipe), "draw the layouts"
        )
        found["world"] = {"blind_floor": {"test": {"random forest on boxes": found["import"]["box_forest"]}}}
        return found
    if isinstance(source, SceneSource):
        world = out / "world"
        units = {
            k: getattr(source, k) for k in ("train_units", "dev_units", "test_units", "size", "split", "test_style")
        }
        found["world"] = steps.once(
            world,
            settings,
            lambda: write_world(world, seed=recipe.seed, workers=2, **units),
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


def _data(recipe: Recipe, out: Path, steps: Steps) -> tuple[dict[str, DataSource], dict[str, Any]]:
    """The recipe's question sources: repainted where it says so, then rewritten through their packs."""
    sources: dict[str, DataSource] = {}
    summaries: dict[str, Any] = {}
    scenes = out / "world" / "scenes.jsonl"
    for name, spec in recipe.data.items():
        folder, triplets = out / "data" / name, out / "triplets" / "train"
        summaries[name] = {}
        if spec.general is not None:
            summaries[name]["rewrite"] = steps.once(
                folder,
                {"general": spec.general.model_dump(), "mix": general_mix(spec.general), "seed": recipe.seed},
                lambda spec=spec, folder=folder: general_source(spec.general, out / "pools", folder, recipe.seed),  # type: ignore[misc]
                f"general questions: {name}",
            )
            sources[name] = general_paths(folder)
            continue
        if spec.repaint is not None:
            painted, settings = folder / "triplets", spec.repaint.model_dump() | {"seed": recipe.seed}
            original = triplets
            summaries[name]["repaint"] = steps.once(
                painted,
                settings,
                lambda original=original, painted=painted, spec=spec: repaint(  # type: ignore[misc]
                    original,
                    painted,
                    settings=spec.repaint.settings,
                    per_triplet=spec.repaint.per_triplet,
                    limit=spec.repaint.limit,
                    seed=recipe.seed,
                    scenes=scenes if scenes.is_file() else None,
                    workers=2,
                ),
                f"repaint: {name}",
            )
            triplets = painted
        questions = folder / "questions"
        summaries[name]["rewrite"] = steps.once(
            questions,
            {"pack": spec.pack, "per_triplet": spec.per_triplet, "seed": recipe.seed},
            lambda triplets=triplets, questions=questions, spec=spec: rewrite(  # type: ignore[misc]
                triplets, questions, str(spec.pack), spec.per_triplet, recipe.seed
            ),
            f"rewrite: {name}",
        )
        sources[name] = DataSource(triplets=triplets, questions=questions)
    return sources, summaries


def _train(
    model: ModelSpec,
    recipe: Recipe,
    data: dict[str, DataSource],
    out: Path,
    console: Console,
    trained: dict[str, dict[str, Any]],
) -> tuple[str, list[Path], dict[str, Any]]:
    """The checkpoint to diagnose, the training logs, and the figures of the training.

    `trained` has, of the models before it, checkpoint ("model") and figures.
    """
    start = model.start
    checkpoint = start.checkpoint if start.model is None else trained[start.model]["model"]
    if not model.stages:
        if checkpoint is None:
            raise VsreError(f"{model.name}: fresh adapters are never diagnosed untrained. Give it stages.")
        return resolve_checkpoint(checkpoint), [], {}
    console.print(f"[bold]train: {model.name}[/]", highlight=False)
    net, processor = open_model(checkpoint, start.llm, start.encoders, seed=recipe.seed)
    folder = out / "models" / folder_name(model.name)
    kept: Path | bool = out / "features" if recipe.feature_cache else False
    figures = run_stages(
        net, processor, model.stages_on(data), folder, seed=recipe.seed, console=console, feature_cache=kept
    )
    return figures["model"], sorted(folder.glob("*/log.jsonl")), figures


def _diagnose(
    model: ModelSpec, checkpoint: str, logs: list[Path], recipe: Recipe, out: Path, steps: Steps
) -> ReportRun:
    folder = out / "runs" / folder_name(model.name)
    steps.console.print(f"[bold]diagnose: {model.name}[/]", highlight=False)
    began = time.perf_counter()
    engine = TransformersEngine(checkpoint)
    spec = recipe.diagnose

    def run(asked: Engine, packs: list[str], target: Path) -> dict[str, Any]:
        return diagnose(
            asked,
            out / "triplets" / "test",
            packs,
            target,
            limit=spec.limit,
            seed=recipe.seed,
            protocol=recipe.protocol,
            train_path=out / "triplets" / "train",
        )

    metrics = run(engine, spec.packs, folder)
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
    if more:
        write_json(folder / "metrics.json", metrics | more)
    steps.times[f"diagnose {model.name}"] = round(time.perf_counter() - began, 1)
    row = ReportRun(name=model.name, folder=folder, role=model.role, logs=tuple(logs), note=model.note)
    return row.model_copy(update={"against": tuple(model.against)})
