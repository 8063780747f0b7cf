"""The folder of a test set: what its testset.json says, and what may be written over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vsre.errors import VsreError

FORMAT = 1
"""Of testset.json; increased when a reader of an earlier version would misread it."""


def begin(out: Path, configs: Iterable[str]) -> None:
    """Make OUT ready for a test set. An earlier one, complete or partial, is removed; anything else is left alone, and
    refused."""
    if (out / "testset.json").is_file():
        for name in read_summary(out, begun=True)["configs"]:
            for file in (out / name).glob("test-*.parquet"):
                file.unlink()
            if (out / name).is_dir() and not any((out / name).iterdir()):
                (out / name).rmdir()
        (out / "README.md").unlink(missing_ok=True)
    elif out.is_dir() and any(out.iterdir()):
        raise VsreError(f"{out}: holds something else than a test set. Give --out a new or empty folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_summary(out, {"format": FORMAT, "finished": False, "configs": dict.fromkeys(configs)})


def write_summary(out: Path, summary: dict[str, Any]) -> None:
    """Write testset.json; it is there whole or not at all."""
    draft = out / "testset.tmp"
    draft.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", "utf-8")
    draft.replace(out / "testset.json")


def read_summary(folder: str | Path, *, begun: bool = False) -> dict[str, Any]:
    """The content of a test set's testset.json. Raises VsreError if it is missing, damaged, of another version, or of a
    test set that was not written to its end (unless `begun`)."""
    path = Path(folder) / "testset.json"
    again = f"Write it again: vsre testset TRIPLETS --out {folder}"
    try:
        summary = json.loads(path.read_text("utf-8"))
    except OSError:
        raise VsreError(f"{folder}: no test set here (testset.json is missing). {again}") from None
    except ValueError as error:
        raise VsreError(f"{path}: damaged ({error}). {again}") from None
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        found = summary.get("format") if isinstance(summary, dict) else None
        raise VsreError(f"{path}: written in format {found!r}, this vsre reads {FORMAT}. {again}")
    configs = summary.get("configs")
    if not isinstance(configs, dict) or not all(re.fullmatch(r"\w{1,80}", name) for name in configs):
        raise VsreError(f"{path}: names no configurations, or one that no folder can be called. {again}")
    if not (begun or summary.get("finished")):
        raise VsreError(f"{folder}: this test set was not written to its end. {again}")
    return summary
