"""The model card beside each shipped model: what it is, what made it, what it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import vsre


def write_card(
    folder: Path,
    name: str,
    *,
    settings: dict[str, Any],
    made: dict[str, Any],
    figures: dict[str, Any],
    more: dict[str, Any] | None = None,
    library: str = "transformers",
) -> None:
    """Write README.md (for people) and card.json (for programs, with `more`) into `folder`; README.md also shows the
    settings' `note`."""
    record = {"name": name, "vsre": vsre.__version__, "settings": settings, "made": made, "figures": figures}
    record |= more or {}
    (folder / "card.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    lines = [
        "---",
        "license: apache-2.0",
        f"library_name: {library}",
        "---",
        f"# vsre zoo: {name}",
        "",
        f"A tiny model of vsre's embedded world, pretrained by: {settings['objective']}.",
        "",
        "It knows drawn scenes of COCO classes (Twemoji sprites, CC BY 4.0) and nothing else; it exists so that the",
        "whole pipeline runs in minutes on a laptop. Do not use it on photographs.",
        "",
        *((settings["note"], "") if "note" in settings else ()),
        f"Made by `vsre zoo train {name}`.",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in made.items()),
        "",
        "Measured on held-out scenes:" if figures else "Measured when it is diagnosed: see the README's table.",
        "",
        *(["| figure | value |", "| --- | --- |"] if figures else []),
        *(f"| {key} | {value} |" for key, value in figures.items()),
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")
