"""A diagnosis from triplets to figures, which can be killed at any moment and resumed from its run folder.

run.json                    what was asked of whom: settings, versions, times
samples/part-NNNNN.parquet  one row per question (samples.SCHEMA); each file is complete once it exists
probes/part-NNNNN.parquet   the same columns for the probes, if asked: `pack` is the probe, `key` the original triplet
metrics.json                the figures (metrics.summarise), the blind floor, what was skipped, picture reliance
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from vsre.diagnose.answering import Answering
from vsre.diagnose.blind import blind_floor, read_statements
from vsre.diagnose.engines import Engine, blind_engine
from vsre.diagnose.metrics import summarise
from vsre.diagnose.plan import askable, by_image, plan_run
from vsre.diagnose.probes import ProbePlan, plan_probes
from vsre.diagnose.reliance import picture_reliance
from vsre.diagnose.replies import Interrupted
from vsre.diagnose.run_folder import RunRecord, write_json
from vsre.diagnose.run_warnings import answer_warnings
from vsre.diagnose.samples import IDENTITY, SCHEMA, Asked, read_samples, sample_files
from vsre.diagnose.seen import by_training
from vsre.errors import VsreError
from vsre.rewrite import TemplatePack, ask
from vsre.triplets import read_triplets


@dataclass(frozen=True)
class DiagnosisRun:
    """A run folder read back."""

    run: dict[str, Any]
    metrics: dict[str, Any]
    samples: pa.Table


def diagnose(
    engine: Engine,
    triplets_path: str | Path,
    packs: Sequence[str | Path | TemplatePack],
    out_dir: str | Path,
    *,
    limit: int | None = None,
    sample: int | None = None,
    per_image: int | None = None,
    probes: int | None = None,
    seed: int = 0,
    protocol: str | None = None,
    train_path: str | Path | None = None,
    progress: bool = True,
    resume: bool = True,
    retry_errors: bool = False,
    flush_seconds: float = 30.0,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Ask `engine` every template of `packs` about every triplet; returns the content of metrics.json, with `more`.

    `limit` stops after the image that reaches this number of triplets; `sample` draws images by `seed` instead;
    `per_image` asks about at most this many triplets of each image, the same ones for images with the same captions.
    `probes` triplets are asked again with their picture or their words changed (`vsre.diagnose.probes`). `train_path`
    holds the triplets on which the blind floor is fitted, `protocol` names how training and test rows were kept apart;
    `seed` also seeds the bootstrap; `more` is added to the figures in metrics.json. Templates with boxes skip triplets
    without them (counted in `skipped`). A resumed run asks no question again, except with `retry_errors` those that
    ended in an error (a server or disk that failed for a while); `resume=False` replaces the folder's earlier run.
    Raises VsreError if there is nothing to ask or the folder holds a run made under other settings.
    """
    out = Path(out_dir)
    plan = plan_run(triplets_path, packs, limit=limit, sample=sample, per_image=per_image, seed=seed)
    probing = None
    if probes is not None:  # of what is asked, so a run of ten triplets has probes of ten
        asked_of = {statement.image_id for statement in plan.statements}
        probing = plan_probes(triplets_path, triplets=probes, seed=seed, per_image=per_image, among=asked_of)
    settings = {
        "engine": engine.settings(),
        "packs": plan.packs,
        "triplets": plan.fingerprint,
        "limit": limit,
        "seed": seed,
        "protocol": protocol,
    }
    settings |= {
        name: n for name, n in (("sample", sample), ("per_image", per_image), ("probes", probes)) if n is not None
    }
    record = RunRecord(
        out,
        engine,
        settings,
        {
            "protocol": protocol,
            "seed": seed,
            "data": {"triplets": str(triplets_path), "train": None if train_path is None else str(train_path)},
            "counts": {"triplets": len(plan.statements), "questions": plan.questions, "skipped": plan.skipped},
        },
        resume=resume,
    )
    if retry_errors:
        record.ask_again()
    groups = (
        (ts[0].image, [Asked(t, template, ask(template, t)) for t in ts for template in askable(t, plan.templates)])
        for ts in by_image(plan.chosen(read_triplets(triplets_path)), limit, per_image=per_image)
    )
    answering = Answering(
        out / "samples",
        SCHEMA,
        IDENTITY,
        plan.questions,
        started=record.answered,
        progress=progress,
        flush=flush_seconds,
    )
    try:
        asked, seconds = answering.run(engine, groups)
        if probing is not None:
            further, longer = _probe(engine, probing, out, record, progress, flush_seconds)
            asked, seconds = asked + further, seconds + longer
    except Interrupted:
        record.stopped()
        raise
    record.finish(asked, seconds)

    samples = read_samples(out / "samples")
    probed = None if probing is None else read_samples(out / "probes")
    train = None if train_path is None else read_statements(train_path)
    metrics = {
        "model": engine.name,
        "protocol": protocol,
        **summarise(samples, seed=seed),
        "blind_floor": blind_floor(train, plan.statements, seed=seed),
        "skipped": plan.skipped,
    }
    if train is not None:
        metrics["by_training"] = by_training(samples, train, seed=seed)
    if probed is not None:
        metrics["picture_reliance"] = picture_reliance(probed, seed=seed)
    metrics["warnings"] = [*metrics["warnings"], *answer_warnings(samples, probed), *record.warnings()]
    metrics |= more or {}
    write_json(out / "metrics.json", metrics)
    record.write()
    return metrics


def _probe(
    engine: Engine, probing: ProbePlan, out: Path, record: RunRecord, progress: bool, flush_seconds: float
) -> tuple[int, float]:
    """Ask the probes, last without any picture if the engine can; returns the number of questions and the seconds."""
    answering = Answering(
        out / "probes",
        SCHEMA,
        IDENTITY,
        probing.questions,
        title="Probes",
        started=record.answered,
        progress=progress,
        flush=flush_seconds,
    )
    asked, seconds = answering.run(engine, probing.groups())
    try:
        blind = blind_engine(engine)
    except VsreError as error:
        record.content["without_picture"] = str(error)
        return asked, seconds
    groups = probing.without_pictures()
    last = replace(answering, total=answering.total + sum(len(questions) for _, questions in groups))
    more, longer = last.run(blind, groups)
    return asked + more, seconds + longer


def load_run(folder: str | Path) -> DiagnosisRun:
    """Read a finished run; raises VsreError for a folder that holds none."""
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        state = (
            "its run is not finished: call diagnose again to resume it"
            if (folder / "run.json").is_file() or sample_files(folder / "samples")
            else "no run here"
        )
        raise VsreError(f"{folder}: {state}.")
    run, metrics = (json.loads((folder / name).read_text("utf-8")) for name in ("run.json", "metrics.json"))
    return DiagnosisRun(run, metrics, read_samples(folder / "samples"))
