"""The verb that measures how relations are judged from boxes: geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsre.cli.output import JsonFile, console, errors, key_table, write_json


def register(app: typer.Typer) -> None:
    app.command()(geometry)


def geometry(
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More triplet files.")] = None,
    triplets: Annotated[
        list[Path] | None,
        typer.Option("--triplets", "-t", metavar="FILE...", help="VSR's JSONL, or triplets in Parquet."),
    ] = None,
    boxes: Annotated[
        list[Path] | None,
        typer.Option("--boxes", "-b", metavar="FILE", help="COCO instance JSON, or JSON lines with image and boxes."),
    ] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="Choose no thresholds: judge by the shipped ones.")] = False,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Choose no thresholds: judge by those in this file.")
    ] = None,
    write_thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the thresholds chosen on half 0 of the images.")
    ] = None,
    forest: Annotated[
        bool, typer.Option("--forest", help="Also show what a random forest on the boxes reaches at the same coverage.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of the images.")] = 1000,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure the rules for relations in photographs against human labels: PASS, FAIL or UNDECIDED from boxes.

    Thresholds are chosen on one half of the images and reported on the other, and with the halves swapped.
    """
    from vsre.errors import VsreError
    from vsre.relations.rule_forms import dump_thresholds
    from vsre.relations.study import study
    from vsre.relations.study.tables import tables

    files = [*(triplets or ()), *(more or ())]
    if not files:
        raise VsreError("no triplets given. Name files with --triplets: VSR's JSONL, or triplets in Parquet.")
    if write_thresholds and (fixed or thresholds):
        raise VsreError("--write-thresholds writes the thresholds chosen; with --fixed or --thresholds none are.")
    found, chosen = study(
        files, boxes or (), fixed=fixed, thresholds=thresholds, forest=forest, resamples=resamples, seed=seed
    )
    head = {k: found[k] for k in ("rows", "images", "boxes", "set_aside", "split") if found.get(k)}
    halves = {f"half {i}": half for i, half in enumerate(found.get("halves", ()))}
    key_table("statements that people labelled", head | halves)
    for table in tables(found):
        console.print(table)
    console.print(f"Figures in %, with the 95 % interval over images in brackets. {found['note']}", highlight=False)
    if write_thresholds and chosen is not None:
        dump_thresholds(write_thresholds, chosen)
        errors.print(f"thresholds chosen on half 0 written to {write_thresholds}", highlight=False)
    write_json(json_file, found)
