"""Verbs that make and inspect data: scenes, vsr, layouts, derive, templates, rewrite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, key_table, progress_bar, write_json
from vsre.sources.images import SIDES


def register(app: typer.Typer) -> None:
    app.command()(scenes)
    app.command()(vsr)
    app.command()(layouts)
    app.command()(derive)
    app.command()(templates)
    app.command()(rewrite)


def scenes(
    out: Annotated[Path, typer.Argument(help="Folder to write: annotations, images, instances.json, scenes.jsonl.")],
    train: Annotated[int, typer.Option(help="Units of the train split; a unit is two scenes.")] = 200,
    dev: Annotated[int, typer.Option(help="Units of the dev split.")] = 20,
    test: Annotated[int, typer.Option(help="Units of the test split.")] = 40,
    split: Annotated[str, typer.Option(help="caption-disjoint or concept-disjoint.")] = "caption-disjoint",
    size: Annotated[int, typer.Option(min=SIDES[0], max=SIDES[1], help="Pixels along a side.")] = 192,
    test_style: Annotated[
        str,
        typer.Option(help="Artwork of the test split: twemoji, or openmoji (pip install vsre[openmoji])."),
    ] = "twemoji",
    train_objects: Annotated[
        str | None,
        typer.Option(help="Objects per scene in train and dev, such as 2 or 2-5; default: 2 to 5, mostly 3 or 4."),
    ] = None,
    test_objects: Annotated[str | None, typer.Option(help="Objects per scene in the test split.")] = None,
    seed: int = 0,
    workers: int = 2,
    json_file: JsonFile = None,
) -> None:
    """Draw the embedded world: scenes with true and false captions, in VSR's file format plus COCO instances."""
    from vsre.sources.scenes import write_world

    objects = {}
    if train_objects is not None:
        objects["train"] = objects["dev"] = _object_range(train_objects)
    if test_objects is not None:
        objects["test"] = _object_range(test_objects)
    with progress_bar("scenes") as tick:
        summary = write_world(
            out, train_units=train, dev_units=dev, test_units=test, seed=seed, size=size, split=split,
            test_style=test_style, objects=objects, workers=workers, progress=tick,
        )  # fmt: skip
    key_table(f"scenes in {out}", summary)
    write_json(json_file, summary)


def _object_range(text: str) -> tuple[int, int]:
    """ "3" -> (3, 3), "2-5" -> (2, 5)."""
    from vsre.errors import VsreError

    least, _, most = text.partition("-")
    if not (least.isdigit() and (most.isdigit() or text == least)):
        raise VsreError(f"objects {text!r}: give a number or a range, such as 3 or 2-5.")
    return int(least), int(most or least)


def vsr(
    annotations: Annotated[
        list[Path], typer.Option("--annotations", "-a", help="VSR's annotation folder, or JSONL files.")
    ],
    out: Annotated[
        Path | None,
        typer.Argument(help="Folder to write: one sub-folder of Parquet files per split. Omit it with --survey."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", "-i", help="Folder(s) of COCO images; if omitted, annotations only."),
    ] = None,
    instances: Annotated[
        list[Path] | None, typer.Option("--instances", help="COCO instance JSON file(s), for the boxes.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a published folder: random, zero-shot or turn-s.")] = None,
    protocol: Annotated[str, typer.Option(help="clean, clean-concepts or paper (leaks).")] = "clean",
    survey: Annotated[
        bool, typer.Option("--survey", help="Only count: all six files of the published folder given by -a.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Convert VSR (or anything in its format) to triplets, under a protocol."""
    from vsre.errors import VsreError
    from vsre.sources.vsr import import_vsr, summary_table, survey_vsr

    def show(counts: dict[str, Any], title: str) -> None:
        header, rows = summary_table(counts)
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)

    if survey:
        if len(annotations) != 1:
            raise VsreError(f"--survey counts one published folder, but -a names {len(annotations)}. Name one.")
        summary = survey_vsr(annotations[0])
        show(summary, f"{annotations[0]}")
        key_table("all files", {k: v for k, v in summary.items() if k != "splits"})
        return write_json(json_file, summary)
    if out is None:
        raise VsreError("no OUT given. Name the folder to write to, or only count with --survey.")
    with progress_bar("images") as tick:
        summary = import_vsr(
            annotations[0] if len(annotations) == 1 and annotations[0].is_dir() else annotations,
            out,
            images=images or None,
            instances=instances or (),
            split=split,
            protocol=protocol,
            progress=lambda name, done, total: tick(done, total),
        )
    show(summary, f"triplets in {out}")
    if summary["set_aside"]["rows"]:
        key_table(f"set aside, with file and row in {out / 'set_aside.jsonl'}", summary["set_aside"]["reasons"])
    if "overlap" in summary:
        key_table(f"protocol {protocol}: {summary['protocol']['note']}", {"overlap": summary["overlap"]})
    write_json(json_file, summary)
    return None


def layouts(
    out: Annotated[Path, typer.Argument(help="Folder to write: images, and a sub-folder of Parquet files per split.")],
    annotations: Annotated[
        list[Path], typer.Option("--annotations", "-a", help="VSR's annotation folder, or JSONL files.")
    ],
    instances: Annotated[
        list[Path], typer.Option("--instances", help="Boxes: COCO instance JSON, or JSON lines with image and boxes.")
    ],
    split: Annotated[str | None, typer.Option(help="Split of a published folder: random, zero-shot or turn-s.")] = None,
    protocol: Annotated[str, typer.Option(help="clean, clean-concepts or paper (leaks).")] = "clean",
    objects: Annotated[str, typer.Option(help="named (those that the image's captions name) or all.")] = "named",
    size: Annotated[int, typer.Option(min=SIDES[0], max=SIDES[1], help="Pixels along the longer side.")] = 192,
    json_file: JsonFile = None,
) -> None:
    """Redraw VSR's images from their boxes, with sprites: real captions and labels, no photo needed."""
    from vsre.diagnose.blind import blind_floor, read_statements
    from vsre.diagnose.box_forest import box_forest
    from vsre.errors import VsreError
    from vsre.sources.layouts import write_layouts

    if objects not in ("named", "all"):
        raise VsreError(f"--objects {objects!r} is neither named nor all.")
    with progress_bar("layouts") as tick:
        summary = write_layouts(
            annotations[0] if len(annotations) == 1 and annotations[0].is_dir() else annotations,
            out,
            instances=instances,
            split=split,
            protocol=protocol,
            which="all" if objects == "all" else "named",
            size=size,
            progress=tick,
        )
    key_table(f"layouts in {out}", summary["layouts"])
    train, test = out / "train", out / "test"
    if train.is_dir() and test.is_dir():
        floor = blind_floor(read_statements(train), read_statements(test))
        summary["floors"] = floor | {"box_forest": box_forest(train, test)}
        shown = {k: v for k, v in summary["floors"].items() if isinstance(v, dict)}
        key_table("test accuracy without a picture, and of a random forest on boxes", shown)
    write_json(json_file, summary)


def derive(
    triplets: Annotated[Path, typer.Argument(help="Triplets: a split folder or a Parquet file.")],
    out: Annotated[Path, typer.Argument(help="Folder for the triplets and those derived from them.")],
    by: Annotated[
        str, typer.Option(help="Rules, comma-separated: inverse, swapped, opposite, mirrored.")
    ] = "inverse,swapped,opposite,mirrored",
    json_file: JsonFile = None,
) -> None:
    """Add the triplets that follow from others: from the object's side, by the antonym, in the mirrored picture."""
    from vsre.sources.derive import derive as run

    summary = run(triplets, out, [kind.strip() for kind in by.split(",") if kind.strip()])
    table = Table(title=f"triplets in {out}", title_justify="left")
    figures = {"original": summary["original"], **summary["derived"]}
    why = list(dict.fromkeys(key for each in figures.values() for key in each if key not in ("rows", "true", "false")))
    for column in ("", "rows", "true", *why):
        table.add_column(column, justify="left" if not column else "right")
    for name, each in figures.items():
        share = f"{each['true'] / each['rows']:.1%}" if each["rows"] else "–"
        table.add_row(name, f"{each['rows']:,}", share, *(f"{each.get(key, 0):,}" for key in why))
    all_true = f"{summary['true']:.1%}" if summary["triplets"] else "–"
    table.add_row("all", f"{summary['triplets']:,}", all_true, *("" for _ in why))
    console.print(table)
    if summary["set_aside"]["rows"]:
        key_table(f"nothing derived, see {out / 'set_aside.jsonl'}", summary["set_aside"]["reasons"])
    write_json(json_file, summary)


def templates(
    pack: Annotated[str | None, typer.Argument(help="A shipped pack, or your own YAML file to check.")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the template packs, or one pack's templates; checks your own file line by line."""
    from vsre.rewrite import load_pack, shipped_packs

    if pack is None:
        packs = [load_pack(name) for name in shipped_packs()]
        table = Table("pack", "templates", "purpose")
        for p in packs:
            table.add_row(p.name, str(len(p.templates)), escape(p.purpose))
        console.print(table)
        return write_json(json_file, {p.name: len(p.templates) for p in packs})
    found = load_pack(pack)
    table = Table("id", "format", "style", "text", title=f"{found.name}: {found.purpose}", title_justify="left")
    for t in found.templates:
        table.add_row(t.id, t.format.name, t.style, escape(t.text))
    console.print(table)
    write_json(
        json_file,
        [{"id": t.id, "text": t.text, "format": t.format.name, "style": t.style} for t in found.templates],
    )
    return None


def rewrite(
    triplets: Annotated[Path, typer.Argument(help="Triplets: a split folder or a Parquet file.")],
    out: Annotated[Path, typer.Argument(help="Folder for the questions.")],
    pack: Annotated[str, typer.Option(help="Template pack: a shipped name or a YAML file.")] = "pool",
    per_triplet: Annotated[int | None, typer.Option(help="Templates per triplet; default: all of the pack.")] = None,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Turn every triplet into questions by a pack's templates, written as Parquet."""
    from vsre.rewrite import rewrite as run

    summary = run(triplets, out, pack, per_triplet, seed)
    key_table(f"questions in {out}", {k: v for k, v in summary.items() if k != "templates"})
    write_json(json_file, summary)
