"""The contact sheet of a sweep: rows are triplets, columns are variants. A self-contained HTML file, and a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vsre.repaint.pages import OBJECT, SUBJECT, thumbnail, uri, with_boxes, write_page
from vsre.triplets import Triplet

_THUMBNAIL, _SMALL = 240, 160
_MARKS = {"confirmed": "✓", "contradicted": "✗", "undecided": "?", "": ""}
_INK = {"confirmed": "#1d7a4f", "contradicted": "#b3261e", "undecided": "#8a6d00", "": "#333333"}
_LEADING = 13


@dataclass(frozen=True)
class Cell:
    """A picture with (caption, kind, verdict) for each of its statements, where verdict is "confirmed", "contradicted",
    "undecided" or, if nobody looked, ""; or no picture and the reason."""

    image: bytes | None
    statements: tuple[tuple[str, str, str], ...]
    refused: str = ""


@dataclass(frozen=True)
class Column:
    label: str
    figures: str


@dataclass(frozen=True)
class Row:
    """A source triplet and its cells, one per column."""

    source: Triplet
    cells: Sequence[Cell]


def write_sheet(out: Path, title: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Write OUT/sweep.html and OUT/sweep.png."""
    shown = [
        {
            "source": row.source,
            "picture": uri(_source(row.source, _THUMBNAIL)),
            "cells": [{"cell": cell, "picture": uri(thumbnail(cell.image, _THUMBNAIL))} for cell in row.cells],
        }
        for row in rows
    ]
    write_page(out / "sweep.html", "sweep.html.j2", title=title, columns=columns, rows=shown, marks=_MARKS)
    _png(title, columns, rows).save(out / "sweep.png")


def _png(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> Image.Image:
    font = ImageFont.load_default(10)
    lines = max((len(_lines(cell, font)) for row in rows for cell in row.cells), default=1)
    wide, high = _SMALL + 10, _SMALL + 10 + _LEADING * max(lines, 3)
    head = 30 + _LEADING * 6
    sheet = Image.new("RGB", (wide * (1 + len(columns)) + 10, head + high * len(rows) + 10), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 8), title, fill="black", font=ImageFont.load_default(14))
    for at, column in enumerate(columns, start=1):
        _write(draw, 10 + wide * at, 30, _wrapped(f"{column.label}: {column.figures}", font)[:6], font)
    for down, row in enumerate(rows):
        top = head + high * down
        _paste(sheet, _source(row.source, _SMALL), 10, top)
        told = f"{row.source.caption} ({'true' if row.source.label else 'false'})"
        _write(draw, 10, top + _SMALL + 2, _wrapped(told, font), font)
        for at, cell in enumerate(row.cells, start=1):
            _paste(sheet, thumbnail(cell.image, _SMALL), 10 + wide * at, top)
            below = top + _SMALL + 2 if cell.image is not None else top
            for line, ink in _lines(cell, font):
                draw.text((10 + wide * at, below), line, fill=ink, font=font)
                below += _LEADING
    return sheet


def _lines(cell: Cell, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[tuple[str, str]]:
    if cell.image is None:
        return [(line, "#777777") for line in _wrapped(f"refused: {cell.refused}", font)]
    return [
        (line, _INK[verdict])
        for caption, kind, verdict in cell.statements
        for line in _wrapped(f"{caption} [{kind}{', ' if verdict else ''}{verdict}]", font)
    ]


def _wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _SMALL or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write(
    draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    for line in lines:
        draw.text((x, y), line, fill="black", font=font)
        y += _LEADING


def _paste(sheet: Image.Image, picture: Image.Image | None, x: int, y: int) -> None:
    if picture is not None:
        sheet.paste(picture, (x, y))


def _source(source: Triplet, side: int) -> Image.Image | None:
    """The source picture with its boxes: the subject's blue, the object's orange."""
    picture = thumbnail(source.image, side)
    if picture is None:
        return None
    return with_boxes(picture, [(source.subject_box, SUBJECT), (source.object_box, OBJECT)])
