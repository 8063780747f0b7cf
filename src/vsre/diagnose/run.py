"""A diagnosis from triplets to figures, in a run folder that can be killed and resumed at any moment.

run.json                    what was asked of whom: settings, versions, times
samples/part-NNNNN.parquet  one row a question (samples.SCHEMA); each file is complete once it is there
probes/part-NNNNN.parquet   the same columns for the probes, if asked: `pack` is the probe, `key` the original triplet
metrics.json                the figures (metrics.summarise), the blind floor, what was skipped, picture reliance
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

import vsre
from vsre.diagnose.answering import Answering
from vsre.diagnose.blind import blind_floor, read_statements
from vsre.diagnose.engines import Engine, blind_engine
from vsre.diagnose.metrics import summarise
from vsre.diagnose.plan import askable, by_image, plan_run
from vsre.diagnose.probes import ProbePlan, plan_probes
from vsre.diagnose.reliance import picture_reliance
from vsre.diagnose.replies import Interrupted
from vsre.diagnose.samples import Asked, read_samples, sample_files
from vsre.errors import VsreError
from vsre.rewrite import TemplatePack, ask
from vsre.triplets import read_triplets

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow")


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
    probes: int | None = None,
    seed: int = 0,
    protocol: str | None = None,
    train_path: str | Path | None = None,
    progress: bool = True,
    resume: bool = True,
    flush_seconds: float = 30.0,
) -> dict[str, Any]:
    """Ask `engine` every template of `packs` about every triplet; returns the content of metrics.json.

    `limit` ends after the image that brings the number of triplets to it; `sample` draws images by `seed` instead.
    `probes` triplets are asked again with their picture or their words changed (`vsre.diagnose.probes`). `train_path`
    holds the triplets on which the blind floor is fitted, `protocol` names how training and test rows were kept apart;
    `seed` also draws the bootstrap. Templates with boxes skip triplets without (counted in `skipped`). A resumed run
    asks no question again; with `resume=False` the folder's earlier run is replaced. Raises VsreError where there is
    nothing to ask, and where the folder holds a run made under other settings.
    """
    out = Path(out_dir)
    plan = plan_run(triplets_path, packs, limit=limit, sample=sample, seed=seed)
    probing = None if probes is None else plan_probes(triplets_path, triplets=probes, seed=seed)
    settings = {
        "engine": engine.settings(),
        "packs": plan.packs,
        "triplets": plan.fingerprint,
        "limit": limit,
        "seed": seed,
        "protocol": protocol,
    }
    settings |= {name: n for name, n in (("sample", sample), ("probes", probes)) if n is not None}
    earlier = _open_folder(out, settings, resume=resume)
    record: dict[str, Any] = {
        "vsre": vsre.__version__,
        "model": engine.name,
        "protocol": protocol,
        "seed": seed,
        "settings": settings,
        "data": {"triplets": str(triplets_path), "train": None if train_path is None else str(train_path)},
        "counts": {"triplets": len(plan.statements), "questions": plan.questions, "skipped": plan.skipped},
        "versions": _versions(),
        "sessions": [*earlier.get("sessions", []), {"started": _now()}],
        "finished": None,
    }
    _write_json(out / "run.json", record)

    def started(say: Callable[[str], None]) -> None:
        """After the first answers: a run that is killed later still says how it was answered."""
        notes = engine.notes()
        record["engine"] = record["sessions"][-1]["engine"] = notes
        _write_json(out / "run.json", record)
        if "way" in notes:
            say(f"way: {notes['way']}" + (f" ({notes['why']})" if notes.get("why") else ""))

    groups = (
        (ts[0].image, [Asked(t, template, ask(template, t)) for t in ts for template in askable(t, plan.templates)])
        for ts in by_image(plan.chosen(read_triplets(triplets_path)), limit)
    )
    answering = Answering(out / "samples", plan.questions, progress, flush_seconds, started)
    try:
        asked, seconds = answering.run(engine, groups)
        if probing is not None:
            more, longer = _probe(engine, probing, out, record, progress, flush_seconds)
            asked, seconds = asked + more, seconds + longer
    except Interrupted:
        record["sessions"][-1]["engine"] = engine.notes()  # what it has cost so far
        _write_json(out / "run.json", record)
        raise
    record["sessions"][-1] |= {"seconds": round(seconds, 2), "questions": asked}
    if asked:
        record["sessions"][-1]["engine"] = engine.notes()
    record |= {"engine": engine.notes() if asked else earlier.get("engine"), "finished": _now()}

    samples = read_samples(out / "samples")
    train = None if train_path is None else read_statements(train_path)
    metrics = {
        "model": engine.name,
        "protocol": protocol,
        **summarise(samples, seed=seed),
        "blind_floor": blind_floor(train, plan.statements, seed=seed),
        "skipped": plan.skipped,
    }
    if probing is not None:
        metrics["picture_reliance"] = picture_reliance(read_samples(out / "probes"), seed=seed)
    _write_json(out / "metrics.json", metrics)
    _write_json(out / "run.json", record)
    return metrics


def _probe(
    engine: Engine, probing: ProbePlan, out: Path, record: dict[str, Any], progress: bool, flush_seconds: float
) -> tuple[int, float]:
    """Ask the probes, at last without any picture where the engine can; how many questions, and the seconds it took."""
    answering = Answering(out / "probes", probing.questions, progress, flush_seconds, title="Probes")
    asked, seconds = answering.run(engine, probing.groups())
    try:
        blind = blind_engine(engine)
    except VsreError as error:
        record["without_picture"] = str(error)
        return asked, seconds
    groups = probing.without_pictures()
    answering.total += sum(len(some) for _, some in groups)
    more, longer = answering.run(blind, groups)
    return asked + more, seconds + longer


def load_run(folder: str | Path) -> DiagnosisRun:
    """Read a finished run; raises VsreError for a folder that holds none."""
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        state = (
            "its run is not finished: call diagnose again to resume it"
            if sample_files(folder / "samples")
            else "no run here"
        )
        raise VsreError(f"{folder}: {state}.")
    run, metrics = (json.loads((folder / name).read_text("utf-8")) for name in ("run.json", "metrics.json"))
    return DiagnosisRun(run, metrics, read_samples(folder / "samples"))


def _open_folder(out: Path, settings: dict[str, Any], *, resume: bool) -> dict[str, Any]:
    """The record of the run that the folder holds, {} where it is new; a run under other settings is refused."""
    path = out / "run.json"
    if not resume:
        for file in (path, out / "metrics.json", *sample_files(out / "samples"), *sample_files(out / "probes")):
            file.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        if sample_files(out / "samples"):
            raise VsreError(f"{out}: holds samples but no run.json, so it is unknown whose. Use another folder.")
        return {}
    try:
        earlier = json.loads(path.read_text("utf-8"))
        held = _flat(earlier["settings"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VsreError(f"{path}: not the record of a run ({error}). Use another folder.") from error
    wanted = _flat(settings)
    differ = [
        f"{name}: there {held.get(name)!r}, now {wanted.get(name)!r}"
        for name in sorted(held.keys() | wanted.keys())
        if held.get(name) != wanted.get(name)
    ]
    if differ:
        raise VsreError(
            f"{out}: holds a run made under other settings ({'; '.join(differ)}). Use another folder, "
            "or replace that run with resume=False."
        )
    return earlier


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"engine": {"dtype": x}} -> {"engine.dtype": x}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _write_json(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    draft.replace(path)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
