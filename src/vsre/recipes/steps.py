"""The light steps of a recipe, each done once for its settings, and the names of its folders."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from vsre.errors import VsreError
from vsre.files import LOCKS, locked, write_aside

STEP = "step.json"


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Work on OUT while no other process does: each would take the other's half-made folders for leftovers.

    Raises VsreError if one does. On a file system without locks this cannot be detected.
    """
    with locked(out, "run", wait=False) as lock:
        if lock == "elsewhere":
            raise VsreError(f"{out}: another process is running here. Wait for it, or choose another --out.")
        yield


class Steps:
    """Runs the light steps of a recipe, each once for its settings, and keeps their times.

    Several processes may work in one folder, such as an experiment's: one makes a step, the others wait for it.
    """

    def __init__(self, out: Path, console: Console) -> None:
        self.out, self.console = out, console
        self.times: dict[str, float] = {}

    def once(
        self,
        folder: Path,
        settings: dict[str, Any],
        make: Callable[[], dict[str, Any]],
        say: str,
        *,
        of: Path | None = None,
        reads: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run `make` unless FOLDER/step.json says it was done with these settings; return its summary, as in JSON.

        `of`: the folder of the step that this one is made from, which must not have changed since; `reads`: what else
        it reads, by name, with a digest (see `digests`). Raises VsreError if any of these or the settings differ, or
        if FOLDER holds files that no step put there.
        """
        mark = folder / STEP
        settings = json.loads(json.dumps(settings, default=str))
        before = self._digest(of)
        if not mark.is_file():
            with locked(self.out, self._name(folder), wait=True):
                if not mark.is_file():  # else another process has just made it
                    said = {"settings": settings, "of": before} | ({"reads": dict(reads)} if reads else {})
                    self._make(folder, said, make, say)
        done = json.loads(mark.read_text(encoding="utf-8"))
        if changed := list(_changed(done["settings"], settings)):
            more = f" and {len(changed) - _NAMED} more" * (len(changed) > _NAMED)
            raise VsreError(
                f"{folder}: made with other settings than this recipe's; they differ in {', '.join(changed[:_NAMED])}"
                f"{more}. Choose another --out or delete the folder."
            )
        if of is not None and done.get("of", before) != before:  # earlier versions did not record it
            raise VsreError(f"{folder}: made from an earlier {of}, which has been made again. Delete this folder, too.")
        then = done.get("reads", {})  # unknown for what an earlier version made, and for what is gone by now
        if other := [name for name, digest in (reads or {}).items() if then.get(name, digest) != digest]:
            raise VsreError(
                f"{folder}: made before {', '.join(other)} changed. Choose another --out, or delete this folder "
                "and those that were made from it."
            )
        self.times[say] = done["seconds"]
        summary: dict[str, Any] = done["summary"]
        return summary

    def _name(self, folder: Path) -> str:
        return f"step-{folder_name(os.path.relpath(folder, self.out))}"

    def _digest(self, of: Path | None) -> str | None:
        """Return a digest of a step's settings and inputs; None if there is no step, as for the user's own data."""
        if of is None or not (of / STEP).is_file():
            return None
        done = json.loads((of / STEP).read_text(encoding="utf-8"))
        told = json.dumps([done["settings"], done.get("of"), *filter(None, [done.get("reads")])], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _make(self, folder: Path, said: dict[str, Any], make: Callable[[], dict[str, Any]], say: str) -> None:
        begun = self.out / LOCKS / f"{self._name(folder)}.begun"
        if begun.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # left by a killed run
        elif folder.is_dir() and any(folder.iterdir()):
            raise VsreError(
                f"{folder}: a step writes here, but there are files that no step put there. Choose another --out, or "
                "delete the folder if it was left by a killed run."
            )
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.touch()
        self.console.print(f"[bold]{escape(say)}[/]", highlight=False)
        began = time.perf_counter()
        summary = make()
        folder.mkdir(parents=True, exist_ok=True)
        done = {**said, "summary": summary, "seconds": round(time.perf_counter() - began, 1)}
        write_aside(folder / STEP, json.dumps(done, indent=1, default=str) + "\n")
        begun.unlink(missing_ok=True)


def is_made(folder: Path) -> bool:
    """Whether the step of this folder is done."""
    return (folder / STEP).is_file()


def digests(*paths: Path | str | None) -> dict[str, str]:
    """Return a digest of each path that is a file here, by path."""
    files = [path for path in (Path(p) for p in paths if p) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}


_NAMED = 4
"""How many changed settings are named."""
_ABSENT = object()


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield the dotted keys of values that differ or that only one of them has."""
    for key in {**old, **new}:
        a, b = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _changed(a, b, f"{at}{key}.")
        elif a != b:
            yield f"{at}{key}"


def folder_name(name: str) -> str:
    """Return a model's name as a folder name: "base + turn-s" -> "base-turn-s"; "" without a letter (a-z) or digit."""
    folder = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    return folder if re.search(r"[a-z0-9]", folder) else ""  # dots alone would be a parent folder


def name_faults(where: str, names: Iterable[str], folder: Callable[[str], str] = folder_name) -> Iterator[str]:
    """Yield faults for names that `folder` makes no folder name of, and for names that would share one."""
    of: dict[str, str] = {}
    for name in names:
        at = folder(name)
        if not at:
            yield f"{where}: {name!r} has no letter or digit (a-z, 0-9) to name a folder by."
        elif (other := of.setdefault(at, name)) != name:
            yield f"{where}: {other!r} and {name!r} have the same folder, {at}."
