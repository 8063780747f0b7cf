"""Pictures with the answers they got: sampled by a fixed seed from every group, never picked by hand."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as pads
from PIL import Image

from vsre.diagnose.metrics import HEADLINES
from vsre.errors import VsreError
from vsre.report.inputs import Run
from vsre.sources.images import load_image
from vsre.triplets import parquet_files

THUMBNAIL = 160
_PER_GROUP = 5
_COLUMNS = (
    *("pack", "template", "key", "image_id", "subject", "relation", "object", "caption", "truth"),
    *("prompt", "answer", "reading", "correct", "p_yes", "error"),
)

Sample = dict[str, Any]


@dataclass
class Picture:
    """A thumbnail as a data URI, or why there is none, with the boxes that are known (fractions)."""

    uri: str = ""
    why: str = "no picture at hand"
    width: int = THUMBNAIL
    height: int = THUMBNAIL
    subject_box: list[float] | None = None
    object_box: list[float] | None = None


@dataclass
class Card:
    """One question about one picture, and what each model answered."""

    sample: Sample
    answers: list[tuple[str, Sample]]
    picture: Picture = field(default_factory=Picture)


@dataclass
class Group:
    title: str
    total: int
    cards: list[Card]


@dataclass
class Wordings:
    """One triplet asked in every wording of the pool: how each model's answer was read, in template order."""

    sample: Sample
    readings: list[tuple[str, list[str]]]
    picture: Picture = field(default_factory=Picture)


def _drawn(keys: Iterable[str], seed: int, count: int) -> list[str]:
    """Return the first `count` keys in an order that depends only on the seed and the keys."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}\n{key}".encode()).digest())[:count]


def _answers(run: Run, pack: str, template: str | None) -> dict[str, Sample]:
    """key -> the sample of one template."""
    where = pc.field("pack") == pack
    if template is not None:
        where = where & (pc.field("template") == template)
    table = run.samples(_COLUMNS, where)
    return {row["key"]: row for row in table.to_pylist()} if table is not None else {}


def gallery(before: Run, after: Run, seed: int) -> tuple[list[Group], str]:
    """Return groups of cards, and the template they were asked in.

    The groups are the right and wrong answers of `after` to true and to false statements, the missing ones,
    then the triplets on which the two runs differ. Empty if the run kept no samples.
    """
    chosen = _template_for_gallery(after)
    if chosen is None:
        return [], ""
    new = _answers(after, *chosen)
    old = _answers(before, *chosen) if before is not after else {}
    shown: set[str] = set()

    def group(title: str, wanted: Callable[[Sample], bool], then: bool | None = None) -> Group:
        """`then`: what the earlier run's answer must be, right or wrong; None if that does not matter."""
        keys = {k for k, row in new.items() if wanted(row)}
        if then is not None:
            keys = {k for k in keys if k in old and old[k]["correct"] is then}
        drawn = _drawn(keys - shown, seed, _PER_GROUP)
        shown.update(drawn)
        runs = [(before.name, old), (after.name, new)] if old else [(after.name, new)]
        cards = [Card(new[k], [(n, rows[k]) for n, rows in runs if k in rows]) for k in drawn]
        return Group(title, len(keys), cards)

    def answered(right: bool, truth: bool) -> Callable[[Sample], bool]:
        return lambda row: row["reading"] in ("yes", "no") and row["correct"] is right and row["truth"] is truth

    name, was = after.name, before.name
    groups = [
        group(f"{name}: right, and the statement is true", answered(True, True)),
        group(f"{name}: right, and the statement is false", answered(True, False)),
        group(f"{name}: wrong, and the statement is true", answered(False, True)),
        group(f"{name}: wrong, and the statement is false", answered(False, False)),
        group(f"{name}: no readable answer, or an error", lambda row: row["reading"] not in ("yes", "no")),
        group(f"{was} wrong, {name} right", lambda row: row["correct"] is True, then=False),
        group(f"{was} right, {name} wrong", lambda row: row["correct"] is False, then=True),
    ]
    return [g for g in groups if g.total], f"{chosen[0]}/{chosen[1]}"


def _template_for_gallery(run: Run) -> tuple[str, str] | None:
    """Return Test-S's one template if it was asked, otherwise the run's first template."""
    asked = [(t.get("pack"), t.get("template")) for t in run.templates()]
    known = [(p, t) for p, t in asked if isinstance(p, str) and isinstance(t, str)]
    pinned = [pair for pair in known if pair[0] == HEADLINES["test_s"]]
    return next(iter(pinned or known), None)


def wordings(before: Run, after: Run, seed: int, count: int = 5) -> list[Wordings]:
    """Return some triplets, sampled by the seed, with the readings of all the pool's wordings."""
    columns = ("pack", "template", "key", "caption", "truth", "subject", "relation", "object", "reading")
    runs = [before] if before is after else [before, after]
    tables = []
    for run in runs:
        asked = run.samples(("pack", "key"), pc.field("pack") == HEADLINES["test_g"])
        if asked is None:
            return []
        tables.append(set(pc.unique(asked["key"]).to_pylist()))
    keys = _drawn(set.intersection(*tables), seed + 1, count)
    found: dict[str, Wordings] = {}
    for run in runs:
        where = (pc.field("pack") == HEADLINES["test_g"]) & pc.field("key").isin(keys)
        table = run.samples(columns, where)
        rows = sorted(table.to_pylist(), key=lambda r: r["template"]) if table is not None else []
        for key in keys:
            mine = [r for r in rows if r["key"] == key]
            entry = found.setdefault(key, Wordings(mine[0], []))
            entry.readings.append((run.name, [str(r["reading"]) for r in mine]))
    return [found[k] for k in keys]


def add_pictures(items: Sequence[Card | Wordings], triplets: Path | None) -> None:
    """Find each item's picture and boxes by the triplet's key; what cannot be shown says why."""
    if triplets is None or not items:
        return
    keys = {item.sample["key"] for item in items}
    columns = ["key", "image", "subject_box", "object_box"]
    data = pads.dataset([str(f) for f in parquet_files(triplets)], format="parquet")
    rows = data.to_table(columns=columns, filter=pc.field("key").isin(sorted(keys))).to_pylist()
    pictures = {row["key"]: _picture(row) for row in rows}
    for item in items:
        item.picture = pictures.get(item.sample["key"], Picture(why="triplet not in the data set"))


def _picture(row: dict[str, Any]) -> Picture:
    image, boxes = row["image"], (row["subject_box"], row["object_box"])
    if not image or not image["bytes"]:
        return Picture(why="no picture at hand", subject_box=boxes[0], object_box=boxes[1])
    try:
        small = load_image(image["bytes"])
    except VsreError as error:
        return Picture(why=str(error))
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=82, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
    return Picture(uri, "", small.width, small.height, _within(boxes[0]), _within(boxes[1]))


def _within(box: list[float] | None) -> list[float] | None:
    """Return the part of a box that is inside the picture; None if nothing of it is."""
    if box is None or len(box) != 4:
        return None
    x0, y0, x1, y1 = (min(1.0, max(0.0, v)) for v in box)
    return [x0, y0, x1, y1] if x1 > x0 and y1 > y0 else None
