"""The leaderboard as one HTML file that loads nothing, and as console tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

import vsre
from vsre.files import write_aside
from vsre.report.compare import blind_floor
from vsre.report.inputs import Estimate
from vsre.report.leaderboard import TITLES, Group, Leaderboard, Row
from vsre.report.page import environment, strips, style_sheet
from vsre.report.results import COLUMNS, DASH, Cell, Column, missing_reason
from vsre.report.text import clean, value_text

HOW = {
    "paired": (
        "Ranks are ranges: a model may have any rank that this sample leaves open. Two models are told apart if "
        "their difference, on the same resampled pictures, exceeds a bound that holds for all pairs at once (95 %)."
    ),
    "intervals": (
        "Ranks are ranges: two models are told apart if their 95 % intervals do not overlap, because some runs come "
        "without their answers. Comparing answers would tell more of them apart."
    ),
}


def rank_text(row: Row) -> str:
    """ "1", "2–4", or a dash."""
    if row.rank is None:
        return DASH
    best, worst = row.rank
    return str(best) if best == worst else f"{best}–{worst}"


def marks(row: Row) -> list[str]:
    """Return what has to be read along with a row's figures."""
    told = []
    if row.leaks:
        told.append(f"trained under the leaking protocol “{row.protocol}”: knows most test rows")
    if row.pictures:
        told.append(f"was shown {row.pictures} pictures")
    if row.below_floor:
        told.append("not above the blind floor")
    return [*told, *(str(w) for w in row.run.metrics.get("warnings") or [])]


def write_leaderboard(out_html: Path | str, board: Leaderboard, *, title: str = "Leaderboard") -> Path:
    """Write the page, self-contained and without script; return its path."""
    page = environment().get_template("leaderboard.html.j2").render(_context(board, title))
    out = Path(out_html)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_aside(out, page.encode("utf-8", "replace"))  # an open browser tab never loads half a page
    return out


def _context(board: Leaderboard, title: str) -> dict[str, Any]:
    rows = [row for group in board.groups for row in group.rows]
    return {
        "css": Markup(style_sheet()),
        "title": title,
        "by": TITLES[board.by],
        "columns": board.columns,
        "groups": [_group(group, board.columns) for group in board.groups],
        "runs": len(rows),
        "leaking": [row.run.name for row in rows if row.leaks],
        "set_aside": [{"run": name, "why": why} for name, why in board.set_aside],
        "published": board.published,
        "vsre": vsre.__version__,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    }


def _group(group: Group, shown: tuple[Column, ...]) -> dict[str, Any]:
    first = group.runs[0].metrics
    return {
        "data": group.data,
        "source": group.source,
        "statements": first.get("n_triplets"),
        "pictures": first.get("n_images"),
        "how": HOW.get(group.how or "", ""),
        "rows": [
            {
                "row": row,
                "rank": rank_text(row),
                "marks": marks(row),
                "cells": [_cell(column, row) for column in shown],
                "spread": _spread(row),
                "floor": _floor(row),
                "n": _counts(row),
            }
            for row in group.rows
        ],
        "strips": strips([run for run in group.runs if run.estimate("test_g", "acc_t").value is not None]),
        "facts": [_facts(row) for row in group.rows],
    }


def _cell(column: Column, row: Row) -> Cell:
    e = column.of(row.run)
    if e.value is None:
        return Cell(DASH, why=missing_reason(row.run, column))
    return Cell(column.number(e.value), column.interval(e), short=column.short_interval(e))


def _spread(row: Row) -> Cell:
    """Return how accuracy varies over the wordings of the pool: standard deviation, lowest to highest."""
    spread = row.run.section("test_g").get("acc_t_over_templates")
    std, low, high = (Estimate.of(spread.get(k) if isinstance(spread, dict) else None).value for k in _EDGES)
    number = COLUMNS[0].number
    if std is None:
        return Cell(DASH, why="not measured")
    about = f"standard deviation over wordings; the lowest and the highest: {number(low)} and {number(high)}"
    return Cell(number(std), why=about, short=COLUMNS[0].short_interval(Estimate(std, low, high)))


_EDGES = ("std", "min", "max")


def _floor(row: Row) -> Cell:
    guesser, floor = blind_floor(row.run)
    if floor.value is None:
        return Cell(DASH, why="not measured")
    c = COLUMNS[0]
    return Cell(c.number(floor.value), why=f"uses {guesser}, {c.interval(floor)}", short=c.short_interval(floor))


def _counts(row: Row) -> Cell:
    statements, images, asked = (row.run.metrics.get(k) for k in ("n_triplets", "n_images", "n_samples"))
    return Cell(value_text(statements), value_text(images), value_text(asked))


def _facts(row: Row) -> dict[str, Any]:
    """Return how a row was run, for the collapsed table."""
    engine, packs, info = row.run.setting("engine"), row.run.setting("packs"), row.run.info
    engine = engine if isinstance(engine, dict) else {}
    notes = info.get("engine") if isinstance(info.get("engine"), dict) else {}
    return {
        "run": row.run.name,
        "model": row.model or DASH,
        "weights": _short(engine.get("weights")),
        "protocol": row.protocol,
        "engine": engine.get("engine"),
        "way": (notes or {}).get("way"),
        "type": engine.get("dtype"),
        "packs": ", ".join(f"{name} {_short(told)}" for name, told in packs.items())
        if isinstance(packs, dict)
        else None,
        "errors": row.run.metrics.get("errors"),
        "unanswered": row.run.metrics.get("unanswered"),
        "vsre": info.get("vsre"),
        "finished": str(info.get("finished") or DASH)[:10],
    }


def _short(fingerprint: Any) -> str:
    """Return enough of a fingerprint to tell two apart by eye."""
    return str(fingerprint or DASH).removeprefix("sha256:")[:8]


def console_parts(board: Leaderboard, *, width: int = 120) -> Iterator[RenderableType]:
    """Yield the groups as tables for `width` columns, then what was set aside; text from data is shown as it is."""
    shown = board.columns if width >= 110 else board.columns[:5]
    for group in board.groups:
        first = group.runs[0].metrics
        data = group.data or "test data not recorded"
        counts = f"{value_text(first.get('n_triplets'))} statements, {value_text(first.get('n_images'))} pictures"
        table = Table(
            title=Text(clean(" ".join(filter(None, (group.source, f"({data})", counts))))),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("Rank")
        table.add_column("Run", min_width=10, overflow="fold")
        for column in shown:
            table.add_column(column.title, justify="right")
        table.add_column("Floor", justify="right")
        for row in group.rows:
            cells = [_cell(column, row) for column in shown]
            table.add_row(
                rank_text(row),
                Text(clean(row.run.name)),
                *("\n".join(filter(None, (c.number, c.short))) for c in cells),
                _floor(row).number,
                style="dim" if row.rank is None and len(group.rows) > 1 else None,
            )
        yield table
        for row in group.rows:
            for mark in filter(None, (*marks(row), row.why)):
                yield Text(clean(f"{row.run.name}: {mark}"), style="yellow")
        if group.how:
            yield Text(f"Ranked by {TITLES[board.by]}. {HOW[group.how]}", style="dim")
    for name, why in board.set_aside:
        yield Text(clean(f"set aside: {name}: {why}"), style="yellow")
