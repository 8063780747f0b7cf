"""The tables of an experiment's report, as rows of cells: titles first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vsre.experiments.contrasts import statements
from vsre.report.compare import signed
from vsre.report.results import markdown_name

COSTS = {
    "cost.visual_tokens": ("visual tokens", "{:,.0f}", 1),
    "cost.encoders": ("encoder parameters", "{:,.0f}", 1),
    "cost.adapters": ("adapter parameters", "{:,.0f}", 1),
    "cost.ms_image": ("ms an image", "{:.1f}", 1),
    "cost.train_seconds": ("training hours", "{:.2f}", 1 / 3600),
    "cost.steps": ("steps", "{:,.0f}", 1),
}
"""A figure of cost.py: its title, how it is written, and what it is multiplied by."""
AS_IS = ("AUROC", "AUROC, one wording")
"""Figures that are no shares, so not written in %."""


def arm_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """An arm a row: how much was asked, then every figure (%, but AUROC) with its interval or its range over seeds."""
    titles = [t for t in dict.fromkeys(k for row in rows for k in row) if t not in ("arm", "factors", "n")]
    titles = [t for t in titles if not t.startswith("cost.")]
    cells = [[markdown_name(r["arm"]), _asked(r["n"]), *(_figure(t, r.get(t)) for t in titles)] for r in rows]
    return [["arm", "statements (pictures) a seed", *titles], *cells]


def _asked(n: dict[str, int]) -> str:
    return f"{n['statements']:,} ({n['pictures']:,})"


def _figure(title: str, figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    scale, digits = (1, 3) if title in AS_IS else (100, 1)
    low, high = (figure["low"], figure["high"]) if figure["low"] is not None else figure["pictures"]
    value, low, high = (f"{scale * v:.{digits}f}".replace("-", "−") for v in (figure["value"], low, high))
    if figure.get("range"):
        return f"{value} ({low} to {high})" if len(figure["seeds"]) > 1 else value
    return f"{value} [{low}, {high}]"


def _between(bounds: Sequence[float]) -> str:
    return f"{signed(bounds[0])} to {signed(bounds[1])}"


def _tested(row: dict[str, Any]) -> list[str]:
    verdict = "" if row["p_holm"] < 0.05 else ", not significant"
    return [_between((row["low"], row["high"])), f"{row['p']:.4f}", f"{row['p_holm']:.4f}{verdict}"]


def contrast_table(rows: Sequence[dict[str, Any]], seeds: int) -> list[list[str]]:
    """A comparison a row, in percentage points, with its tests where there are several seeds."""
    several = ["over seeds", "p", "p (Holm)", "each seed"] if seeds > 1 else []
    lines = [["step", "figure", "statements a seed", "from", "to", "points", "over pictures", *several]]
    for row in rows:
        about = statements(row["relations"], row["but"], row["trained"])
        on = f", on {about}" if about else ""
        step = f"{markdown_name(row['before'])} → {markdown_name(row['after'])}{on}"
        ends = (_figure("", row[end]) for end in ("from", "to"))
        cells = [step, row["figure"], f"{row['statements']:,}", *ends, signed(row["value"]), _between(row["pictures"])]
        lines.append(cells + ([*_tested(row), ", ".join(map(signed, row["seeds"]))] if several else []))
    return lines


def effect_table(rows: Sequence[dict[str, Any]], seeds: int) -> list[list[str]]:
    """An effect a row, in percentage points, with bounds and p by what the linear model leaves."""
    several = ["each seed"] if seeds > 1 else []
    lines = [["effect", "figure", "points", "over pictures", "95 %", "p", "p (Holm)", *several]]
    for row in rows:
        cells = [row["effect"], row["figure"], signed(row["value"]), _between(row["pictures"]), *_tested(row)]
        lines.append(cells + ([", ".join(map(signed, row["seeds"]))] if several else []))
    return lines


def spread_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """An arm a row, the other titles as the rows have them; %, lowest and highest seed."""
    titles = [t for t in dict.fromkeys(key for row in rows for key in row) if t != "arm"]
    cells = [[markdown_name(r["arm"]), *(_figure(t, r.get(t)) for t in titles)] for r in rows]
    return [["arm", *titles], *cells]


def also_table(rows: Sequence[dict[str, Any]], seeds: int) -> list[list[str]]:
    """An arm and further test set a row: Test-G in %, and points above the own test set."""
    title = "over seeds" if seeds > 1 else "over pictures"
    lines = [["arm", "set", "statements (pictures) a seed", "Test-G", "points above the own test set", title]]
    for row in rows:
        above = row["above"]
        bounds = (above["low"], above["high"]) if seeds > 1 else above["pictures"]
        cells = [markdown_name(row["arm"]), markdown_name(row["set"]), _asked(row["n"]), _figure("", row["figure"])]
        lines.append([*cells, signed(above["value"]), _between(bounds)])
    return lines


def cost_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """An arm a row: what it costs, and Test-G in %."""
    known = {key: shown for key, shown in COSTS.items() if any(key in row for row in rows)}
    lines = [["arm", *(title for title, _, _ in known.values()), "Test-G"]]
    for row in rows:
        values = ((row.get(key, {}).get("value"), form, times) for key, (_, form, times) in known.items())
        cells = ["–" if value is None else form.format(times * value) for value, form, times in values]
        lines.append([markdown_name(row["arm"]), *cells, _figure("Test-G", row.get("Test-G"))])
    return lines


def data_table(rows: Sequence[dict[str, Any]], variants: int) -> list[list[str]]:
    """A question source a row: pictures, statements, how many are true, questions."""
    lines = [["data", "in", "pictures", "statements", "true", "questions", "questions a picture"]]
    for row in rows:
        where = "all" if len(row["variants"]) == variants else markdown_name(", ".join(row["variants"]))
        true = "–" if row["true"] is None else f"{row['true']:.1%}"
        counts = (f"{row[name]:,}" for name in ("pictures", "statements"))
        lines.append([row["data"], where, *counts, true, f"{row['questions']:,}"])
        lines[-1].append(f"{row['questions'] / row['pictures']:.1f}")
    return lines


def relation_table(rows: Sequence[dict[str, Any]], arms: Sequence[str]) -> list[list[str]]:
    """A relation a row, Test-G in % of every arm."""
    lines = [["relation", "statements", *map(markdown_name, arms)]]
    for row in rows:
        cells = (f"{100 * row[name]:.1f}" if name in row else "–" for name in arms)
        lines.append([row["relation"], f"{row['statements']:,}", *cells])
    return lines


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """GitHub Markdown of rows of cells: the first left, the others right."""
    head, *rows = lines
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
