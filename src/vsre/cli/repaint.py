"""Verbs that paint: `vsre repaint TRIPLETS OUT` (plan, work and finish in one), and its sub-verbs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from vsre.cli.groups import running_group
from vsre.cli.output import JsonFile, errors, key_table, progress_bar, write_json
from vsre.cli.repaint_exchange import export, import_
from vsre.cli.repaint_options import (
    BatchSize,
    Captions,
    Device,
    Dtype,
    Guidance,
    HeldOut,
    Instances,
    Limit,
    Model,
    Offline,
    Offload,
    Out,
    PainterName,
    PerTriplet,
    Ray,
    Safety,
    ScenesFile,
    Settings,
    ShardJobs,
    Steps,
    Strength,
    Time,
    Triplets,
    VerifierName,
    Workers,
    loading_options,
    painter_of,
    safety_of,
    verifier_of,
)
from vsre.cli.repaint_pages import spot_check, statistics
from vsre.cli.repaint_try import masks, presets, sweep
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.repaint.cost import Cost
    from vsre.repaint.work import ShardPainter

Planned = Annotated[Path, typer.Argument(help="The folder of a plan.")]


def register(app: typer.Typer) -> None:
    group = running_group(_HELP)
    for verb in (run, plan, work, finish, statistics, spot_check, export, sweep, masks, presets):
        group.command()(verb)
    group.command("import")(import_)
    app.add_typer(group, name="repaint")


_HELP = (
    "Paint new pictures for triplets: `vsre repaint TRIPLETS OUT`, each with its caption, label and kind of negative."
)


def run(
    triplets: Triplets,
    out: Out,
    setting: Settings = None,
    painter: PainterName = "scene",
    per_triplet: PerTriplet = 1,
    scenes_file: ScenesFile = None,
    limit: Limit = None,
    held_out: HeldOut = None,
    model: Model = None,
    steps: Steps = None,
    guidance: Guidance = None,
    strength: Strength = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = None,
    batch_size: BatchSize = None,
    offline: Offline = False,
    verifier: VerifierName = None,
    safety: Safety = None,
    instances: Instances = None,
    captions: Captions = 8,
    shard_jobs: ShardJobs = None,
    seed: int = 0,
    workers: Workers = None,
    ray: Ray = None,
    time: Time = None,
    json_file: JsonFile = None,
) -> None:
    """Paint new pictures for triplets: plan, cost, work, finish. Run again to resume."""
    from vsre.repaint import repaint as paint

    options = loading_options(model, device, dtype, offload, batch_size, offline)
    numbers = {"steps": steps, "guidance": guidance, "strength": strength}
    spec, settings = painter_of(painter, setting, scenes_file, numbers, options)
    workers = workers or _workers(painter == "scene")
    with progress_bar("jobs") as tick:
        summary = paint(
            triplets,
            out,
            settings=settings,
            per_triplet=per_triplet,
            seed=seed,
            limit=limit,
            painter=spec,
            captions_per_image=captions,
            held_out=held_out or (),
            verifier=verifier_of(verifier),
            safety=safety_of(safety),
            instances=instances or (),
            shard_jobs=shard_jobs,
            workers=workers,
            ray=ray,
            planned=lambda shard_painter: _tell_cost(shard_painter, time, workers),
            progress=tick,
        )
    _tell_summary(summary, triplets, out)
    write_json(json_file, summary)


def plan(
    triplets: Triplets,
    out: Out,
    setting: Settings = None,
    painter: PainterName = "scene",
    per_triplet: PerTriplet = 1,
    scenes_file: ScenesFile = None,
    limit: Limit = None,
    held_out: HeldOut = None,
    model: Model = None,
    steps: Steps = None,
    guidance: Guidance = None,
    strength: Strength = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = None,
    batch_size: BatchSize = None,
    offline: Offline = False,
    verifier: VerifierName = None,
    safety: Safety = None,
    instances: Instances = None,
    shard_jobs: ShardJobs = None,
    seed: int = 0,
    workers: Workers = None,
    time: Time = None,
    json_file: JsonFile = None,
) -> None:
    """Fix what is to be painted, one row per job, and estimate the cost. Nothing is painted."""
    from vsre.repaint.planning import make_plan
    from vsre.repaint.run import shard_painter_of

    options = loading_options(model, device, dtype, offload, batch_size, offline)
    numbers = {"steps": steps, "guidance": guidance, "strength": strength}
    spec, settings = painter_of(painter, setting, scenes_file, numbers, options)
    made, _ = make_plan(
        triplets,
        out,
        spec,
        settings=settings,
        per_triplet=per_triplet,
        seed=seed,
        limit=limit,
        verifier=verifier_of(verifier),
        safety=safety_of(safety),
        held_out=held_out or (),
        instances=instances or (),
        shard_jobs=shard_jobs,
    )
    head = made.head
    shown: dict[str, Any] = {
        "plan": made.digest,
        "jobs": head.jobs,
        "shards": made.shards,
        "triplets": head.rows,
        "painter": head.painter,
        "verifier": head.verifier,
        "held out": [name for name, _ in head.held_out.folders],
    }
    key_table(f"plan in {out}", shown)
    _tell_held_out(shown["held out"], triplets)
    shown["cost"] = _tell_cost(shard_painter_of(out), time, workers or _workers(painter == "scene"))
    errors.print(f"vsre repaint work {escape(str(out))} paints it, on as many machines as you like", highlight=False)
    write_json(json_file, shown)


def work(
    out: Planned,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Every N-th shard, from the I-th on, as for a Slurm array of 1 to N.")
    ] = "1/1",
    workers: Annotated[int, typer.Option(help="Processes; each gets its own GPU if there are several.")] = 1,
    ray: Ray = None,
    triplets: Annotated[Path | None, typer.Option(help="Where the source triplets are now, if they moved.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Paint the unfinished shards of a plan. Any number of these may run at once, be killed and be restarted."""
    from vsre.repaint.run import shard_painter_of
    from vsre.repaint.work import work as paint

    index, _, of = shard.partition("/")
    if not (index.isdigit() and of.isdigit()):
        raise VsreError(f"--shard {shard}: give I/N, for example 3/8.")
    with progress_bar("jobs") as tick:
        summary = paint(
            shard_painter_of(out, triplets=triplets),
            part=(int(index), int(of)),
            workers=workers,
            ray=ray,
            progress=tick,
        )
    key_table(f"painted in {out}", summary)
    errors.print(f"vsre repaint finish {escape(str(out))} gathers the triplets, once all is painted", highlight=False)
    write_json(json_file, summary)


def finish(out: Planned, captions: Captions = 8, json_file: JsonFile = None) -> None:
    """Gather painted shards into triplets: in the plan's order, each picture once, captions balanced."""
    from vsre.repaint.finish import finish as gather
    from vsre.repaint.plan_files import read_plan

    made = read_plan(out)
    with progress_bar("jobs") as tick:
        summary = gather(made, captions_per_image=captions, progress=tick)
    _tell_summary(summary, made.head.made_with.triplets, out)
    write_json(json_file, summary)


def _workers(scenes: bool) -> int:
    return 2 if scenes else 1


_SAMPLE = 16
"""Scene jobs that are timed if --time is not given."""


def _tell_cost(shard_painter: ShardPainter, time: int | None, workers: int) -> dict[str, Any] | None:
    """Print how much is left to paint and what it will cost, if that is known or can be timed."""
    from vsre.repaint.cost import jobs_left, published, timed
    from vsre.repaint.diffusion import DiffusionPainter

    painter, left = shard_painter.painter, jobs_left(shard_painter.plan)
    cost: Cost | None
    if time is not None:
        cost = timed(shard_painter, time, workers=workers)
    elif isinstance(painter, DiffusionPainter):
        cost = published(shard_painter.plan, painter, workers=workers)
    else:
        # A small set is painted sooner than timed.
        cost = timed(shard_painter, _SAMPLE, workers=workers) if left > 10 * _SAMPLE else None
    if cost is None:
        errors.print(f"{left:,} jobs are left to paint; --time N times N of them here for an estimate", highlight=False)
        return None
    key_table("cost", cost.row())
    return cost.row()


def _tell_held_out(folders: Sequence[str], triplets: Path) -> None:
    if not folders:
        errors.print(
            f"[bold]note[/] no test or dev split next to {escape(str(triplets))}: nothing is held out. Name one "
            "with --held-out if there is one."
        )


def _tell_summary(summary: dict[str, Any], triplets: Path, out: Path) -> None:
    shown = {k: v for k, v in summary.items() if k != "painter"} | {"painter": summary["painter"]["name"]}
    key_table(f"repainted triplets in {out}", shown)
    _tell_held_out(summary["held_out"]["from"], triplets)
    if intended := summary["by_truth"].get("intended"):
        errors.print(
            f"[bold]note[/] {intended:,} pictures show what was asked for only if the model obeyed. Verify them "
            "before anything is trained on them."
        )
