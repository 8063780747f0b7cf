"""The folder of a run and its record, run.json: who was asked what, under which settings, when, and how it went."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import vsre
from vsre.diagnose.engines import Engine
from vsre.diagnose.samples import drop_errors, sample_files
from vsre.errors import VsreError
from vsre.files import write_aside

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy", "pillow")

NEW = ("engine.processor",)
"""Settings that earlier versions did not record: a run without them may be resumed."""

DROPPED = ("engine.base_url",)
"""Settings that earlier versions recorded although they decide nothing: a run with them may be resumed."""


class RunRecord:
    """run.json of the run in `out`, written when it begins, after its first answers, when it stops and when it ends.

    `settings` decide the answers: a folder that holds a run under other settings is refused with VsreError, unless
    `resume` is False, which replaces that run. `facts` are whatever else is worth recording. Each session keeps its
    versions and, in its engine's notes, a server's address; `warnings` reports any differences.
    """

    def __init__(
        self, out: Path, engine: Engine, settings: dict[str, Any], facts: Mapping[str, Any], *, resume: bool = True
    ) -> None:
        self.path, self.engine = out / "run.json", engine
        self.earlier = _open_folder(out, settings, resume=resume)
        self.content: dict[str, Any] = {
            "vsre": vsre.__version__,
            "model": engine.name,
            **facts,
            "settings": settings,
            "versions": versions(),
            "sessions": [
                *_sessions(self.earlier),
                {"started": _now(), "vsre": vsre.__version__, "versions": versions()},
            ],
            "finished": None,
        }
        self.write()

    def write(self) -> None:
        write_json(self.path, self.content)

    def answered(self, say: Callable[[str], None]) -> None:
        """Record the session after its first answers: a run that is killed later still says how it was answered."""
        session = self.content["sessions"][-1]
        if "answered" in session:
            return
        session["answered"] = _now()
        self.stopped()
        notes = self.content["engine"]
        if "way" in notes:
            say(f"way: {notes['way']}" + (f" ({notes['why']})" if notes.get("why") else ""))
        for line in self.warnings():
            say(f"warning: {line}")

    def warnings(self) -> list[str]:
        """Warnings about what differs between the sessions that produced answers."""
        brought = [session for session in self.content["sessions"] if "answered" in session]
        told = []
        places = _different(brought, lambda session: {"address": session.get("engine", {}).get("base_url")})
        if places:
            told.append(
                f"The answers come from servers at several addresses ({', '.join(places['address'])}): make sure that "
                "each served the same model in the same precision."
            )
        made = _different(brought, lambda session: {"vsre": session.get("vsre"), **session.get("versions", {})})
        if made:
            listed = "; ".join(f"{name} {', then '.join(found)}" for name, found in made.items())
            told.append(
                f"The answers were produced by several versions ({listed}), whose answers may differ: for answers of "
                "a single version, run into another folder."
            )
        return told

    def stopped(self) -> None:
        """Record the engine's current notes: how it answers, what it has cost so far."""
        self.content["engine"] = self.content["sessions"][-1]["engine"] = self.engine.notes()
        self.write()

    def ask_again(self) -> None:
        """Remove the questions that ended in an error from the folder, so that this session asks them again.

        The figures are deleted first: without some of its answers the run is not finished.
        """
        out = self.path.parent
        figures = out / "metrics.json"
        again = sum(drop_errors(out / part, lambda: figures.unlink(missing_ok=True)) for part in ("samples", "probes"))
        self.content["sessions"][-1]["asked_again"] = again
        self.write()

    def finish(self, asked: int, seconds: float) -> None:
        """Note that the session has asked its questions; the caller writes the record once the figures exist."""
        session = self.content["sessions"][-1]
        session |= {"seconds": round(seconds, 2), "questions": asked}
        if asked:
            session["engine"] = self.engine.notes()
        self.content |= {"engine": session.get("engine", self.earlier.get("engine")), "finished": _now()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a run's JSON so that a reader finds either the old file or the new one; NaN is refused."""
    write_aside(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that answers may depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _open_folder(out: Path, settings: dict[str, Any], *, resume: bool) -> dict[str, Any]:
    """The record of the run that the folder holds, {} if it is new."""
    path = out / "run.json"
    if not resume:
        for file in (path, out / "metrics.json", *sample_files(out / "samples"), *sample_files(out / "probes")):
            file.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        if sample_files(out / "samples"):
            raise VsreError(f"{out}: holds samples but no run.json, so it is unknown which run's. Use another folder.")
        return {}
    try:
        earlier: dict[str, Any] = json.loads(path.read_text("utf-8"))
        held = _flat(earlier["settings"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VsreError(f"{path}: not the record of a run ({error}). Use another folder.") from error
    wanted = _flat(settings)
    differ = [
        f"{name}: there {held.get(name)!r}, now {wanted.get(name)!r}"
        for name in sorted(held.keys() | wanted.keys())
        if held.get(name) != wanted.get(name)
        and not (name in NEW and name not in held)
        and not (name in DROPPED and name not in wanted)
    ]
    if differ:
        raise VsreError(
            f"{out}: holds a run made under other settings ({'; '.join(differ)}). Use another folder, "
            "or delete this one (in Python: resume=False replaces that run)."
        )
    return earlier


def _sessions(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sessions of a record. Earlier releases kept versions for the last session only and a server's address among
    the settings, and did not say whether a killed session had produced answers; those with engine notes had."""
    sessions: list[dict[str, Any]] = [dict(session) for session in record.get("sessions", [])]
    place = _flat(record.get("settings", {})).get("engine.base_url")
    for session in sessions:
        if "engine" in session and "vsre" not in session:
            session.setdefault("answered", session.get("started"))
            if place:
                session["engine"] = {"base_url": place, **(session["engine"] or {})}
    if sessions and "vsre" not in sessions[-1]:
        sessions[-1] |= {name: record[name] for name in ("vsre", "versions") if name in record}
    return sessions


def _different(
    sessions: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, list[str]]:
    """The named values that differ between the sessions that have them, in order of first use."""
    found: dict[str, list[str]] = {}
    for name, value in (pair for session in sessions for pair in of(session).items()):
        if value and value not in found.setdefault(name, []):
            found[name].append(value)
    return {name: values for name, values in found.items() if len(values) > 1}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"engine": {"dtype": x}} -> {"engine.dtype": x}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
