"""Sub-verbs of repaint that exchange finished sets: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsre.cli.output import JsonFile, errors, key_table, write_json


def export(
    out: Annotated[Path, typer.Argument(help="The folder of a finished repaint.")],
    dest: Annotated[Path, typer.Argument(help="A new folder.")],
    form: Annotated[str, typer.Option("--format", help="webdataset or parquet.")] = "parquet",
    json_file: JsonFile = None,
) -> None:
    """Write a finished repaint as WebDataset tars, or as Parquet that `datasets` loads, with a card."""
    from vsre.repaint.export import export as write

    summary = write(out, dest, form)
    key_table(f"exported to {dest}", summary)
    write_json(json_file, summary)


def import_(
    source: Annotated[Path, typer.Argument(help="An export: its folder, a tar or a Parquet file.")],
    out: Annotated[Path, typer.Argument(help="Folder for the triplets.")],
    json_file: JsonFile = None,
) -> None:
    """Read an export back into triplets; what cannot be used is set aside and counted."""
    from vsre.repaint.imports import import_export

    summary = import_export(source, out)
    key_table(f"triplets in {out}", summary)
    if n := sum(summary["set_aside"].values()):
        errors.print(f"[bold]note[/] {n:,} set aside, see its set_aside.jsonl", highlight=False)
    write_json(json_file, summary)
