"""The light steps of a recipe, each done once for its settings, and the names of its folders."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from vsre.errors import VsreError
from vsre.repaint.files import locked


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Work on OUT, which no other process may meanwhile: each would take the other's half-made folders for leftovers.

    Raises VsreError where one does. A disk without locks cannot tell.
    """
    with locked(out, "run", wait=False) as lock:
        if lock == "elsewhere":
            raise VsreError(f"{out}: another process is running here. Wait for it, or choose another --out.")
        yield


class Steps:
    """The light steps of a recipe: each is done once for its settings, and its time is kept."""

    def __init__(self, out: Path, console: Console) -> None:
        self.out, self.console = out, console
        self.times: dict[str, float] = {}

    def once(
        self, folder: Path, settings: dict[str, Any], make: Callable[[], dict[str, Any]], say: str
    ) -> dict[str, Any]:
        """Run `make` unless FOLDER/step.json says it was done with these settings; return its summary."""
        mark = folder / "step.json"
        settings = json.loads(json.dumps(settings, default=str))
        if mark.is_file():
            done = json.loads(mark.read_text())
            if done["settings"] != settings:
                raise VsreError(
                    f"{folder}: made by other settings than this recipe's. Choose another --out or delete the folder."
                )
        else:
            shutil.rmtree(folder, ignore_errors=True)
            self.console.print(f"[bold]{say}[/]", highlight=False)
            began = time.perf_counter()
            summary = make()
            folder.mkdir(parents=True, exist_ok=True)
            done = {
                "settings": settings,
                "summary": summary,
                "seconds": round(time.perf_counter() - began, 1),
            }
            partial = mark.with_suffix(".tmp")
            partial.write_text(json.dumps(done, indent=1, default=str) + "\n")
            partial.replace(mark)
        self.times[say] = done["seconds"]
        return done["summary"]


def folder_name(name: str) -> str:
    """A model's name as a folder name: "base + turn-s" -> "base-turn-s"."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
