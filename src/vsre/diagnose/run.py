"""A diagnosis from triplets to figures, in a run folder that can be killed and resumed at any moment.

run.json                    what was asked of whom: settings, versions, times
samples/part-NNNNN.parquet  one row a question (samples.SCHEMA); each file is complete once it is there
metrics.json                the figures (metrics.summarise), the blind floor, what was skipped
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import vsre
from vsre.diagnose.blind import blind_floor, read_statements
from vsre.diagnose.engines import Engine
from vsre.diagnose.metrics import summarise
from vsre.diagnose.plan import Plan, askable, by_image, plan_run
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.samples import Asked, read_samples, sample_files, to_sample, write_part
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
    seed: int = 0,
    protocol: str | None = None,
    train_path: str | Path | None = None,
    progress: bool = True,
    resume: bool = True,
    flush_seconds: float = 30.0,
) -> dict[str, Any]:
    """Ask `engine` every template of `packs` about every triplet; returns the content of metrics.json.

    `limit` ends after the image that brings the number of triplets to it. `train_path` holds the triplets on which the
    blind floor is fitted, `protocol` names how training and test rows were kept apart; `seed` draws the bootstrap.
    Templates with boxes skip triplets without (counted in `skipped`). A resumed run asks no question again; with
    `resume=False` the folder's earlier run is replaced. Raises VsreError where there is nothing to ask, and where
    the folder holds a run made under other settings.
    """
    out = Path(out_dir)
    plan = plan_run(triplets_path, packs, limit=limit)
    settings = {
        "engine": engine.settings(),
        "packs": plan.packs,
        "triplets": plan.fingerprint,
        "limit": limit,
        "seed": seed,
        "protocol": protocol,
    }
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

    asked, seconds = _answer_all(engine, triplets_path, plan, out, limit, progress, flush_seconds, started)
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
    _write_json(out / "metrics.json", metrics)
    _write_json(out / "run.json", record)
    return metrics


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


def _answer_all(
    engine: Engine,
    path: str | Path,
    plan: Plan,
    out: Path,
    limit: int | None,
    progress: bool,
    flush_seconds: float,
    started: Callable[[Callable[[str], None]], None],
) -> tuple[int, float]:
    """Ask what the folder does not hold yet; returns how many questions that were and the seconds it took.

    `started` is called after the first answers with a function that prints a line.
    """
    folder = out / "samples"
    held = read_samples(folder, ["key", "pack", "template"])
    done = set(zip(*(held[name].to_pylist() for name in held.column_names), strict=True))
    waiting: list[dict[str, Any]] = []
    asked_now, began = 0, time.monotonic()
    flushed = began
    with _bar(plan.questions, len(done), engine.name, shown=progress) as (advance, say):
        try:
            # Always the same images together, so that a resumed run computes exactly what an undisturbed one does.
            stream = by_image(read_triplets(path), limit)
            size = min(2, engine.batch_images)  # the first answers come soon, and show whether the model works at all
            while images := list(islice(stream, size)):
                size = engine.batch_images
                batch = []
                for triplets in images:
                    asked = [
                        Asked(t, template, ask(template, t))
                        for t in triplets
                        for template in askable(t, plan.templates)
                        if (t.key, template.pack, template.id) not in done
                    ]
                    if asked:
                        batch.append((triplets[0].image, asked))
                if not batch:
                    continue
                replies = engine.answer([(image, [_prompt(a) for a in asked]) for image, asked in batch])
                if not asked_now:
                    started(say)
                for (_, asked), row in zip(batch, replies, strict=True):
                    waiting += [to_sample(engine.name, a, reply) for a, reply in zip(asked, row, strict=True)]
                    asked_now += len(asked)
                    advance(len(asked))
                if time.monotonic() - flushed >= flush_seconds:
                    write_part(folder, waiting)
                    waiting, flushed = [], time.monotonic()
        finally:
            if waiting:
                write_part(folder, waiting)
    return asked_now, time.monotonic() - began


def _prompt(asked: Asked) -> Prompt:
    return Prompt(asked.question.prompt, asked.template.format.options, asked.template.style)


def _open_folder(out: Path, settings: dict[str, Any], *, resume: bool) -> dict[str, Any]:
    """The record of the run that the folder holds, {} where it is new; a run under other settings is refused."""
    path = out / "run.json"
    if not resume:
        for file in (path, out / "metrics.json", *sample_files(out / "samples")):
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


@contextmanager
def _bar(
    total: int, done: int, name: str, *, shown: bool
) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A progress bar: what advances it, and what prints a line above it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(f"Diagnose {Path(name).name}", total=total, completed=done)
        yield (
            lambda n: bar.advance(task, n),
            lambda line: bar.console.print(line, markup=False, highlight=False) if shown else None,
        )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    draft.replace(path)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
