"""The tables of an experiment's report, as rows of cells, the header first."""

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
    "cost.ms_image": ("ms per image", "{:.1f}", 1),
    "cost.train_seconds": ("training hours", "{:.2f}", 1 / 3600),
    "cost.steps": ("steps", "{:,.0f}", 1),
}
"""For each figure of cost.py its title, its format, and what it is multiplied by."""
AS_IS = ("AUROC", "AUROC, one wording")
"""Figures that are not shares, hence not written in %."""


def arm_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One row per arm: how much was asked, then every figure (in %, except AUROC) with its interval or seed range."""
    titles = [t for t in dict.fromkeys(k for row in rows for k in row) if t not in ("arm", "factors", "n")]
    titles = [t for t in titles if not t.startswith("cost.")]
    cells = [[markdown_name(r["arm"]), _asked(r["n"]), *(_figure(t, r.get(t)) for t in titles)] for r in rows]
    return [["arm", "statements (pictures) per seed", *titles], *cells]


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
    """One row per comparison, in percentage points, with its tests if there are several seeds."""
    several = ["over seeds", "p", "p (Holm)", "each seed"] if seeds > 1 else []
    lines = [["step", "figure", "statements per seed", "from", "to", "points", "over pictures", *several]]
    for row in rows:
        about = statements(row["relations"], row["but"], row["trained"])
        on = f", on {about}" if about else ""
        step = f"{markdown_name(row['before'])} → {markdown_name(row['after'])}{on}"
        ends = (_figure("", row[end]) for end in ("from", "to"))
        cells = [step, row["figure"], f"{row['statements']:,}", *ends, signed(row["value"]), _between(row["pictures"])]
        lines.append(cells + ([*_tested(row), ", ".join(map(signed, row["seeds"]))] if several else []))
    return lines


def effect_table(rows: Sequence[dict[str, Any]], seeds: int) -> list[list[str]]:
    """One row per effect, in percentage points, with bounds and p from the linear model's residuals."""
    several = ["each seed"] if seeds > 1 else []
    lines = [["effect", "figure", "points", "over pictures", "95 %", "p", "p (Holm)", *several]]
    for row in rows:
        cells = [row["effect"], row["figure"], signed(row["value"]), _between(row["pictures"]), *_tested(row)]
        lines.append(cells + ([", ".join(map(signed, row["seeds"]))] if several else []))
    return lines


def spread_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One row per arm, with the columns that the rows have: in %, with lowest and highest seed."""
    titles = [t for t in dict.fromkeys(key for row in rows for key in row) if t != "arm"]
    cells = [[markdown_name(r["arm"]), *(_figure(t, r.get(t)) for t in titles)] for r in rows]
    return [["arm", *titles], *cells]


def also_table(rows: Sequence[dict[str, Any]], seeds: int) -> list[list[str]]:
    """One row per arm and further test set: Test-G in %, and points above its own test set."""
    title = "over seeds" if seeds > 1 else "over pictures"
    lines = [["arm", "set", "statements (pictures) per seed", "Test-G", "points above its own test set", title]]
    for row in rows:
        above = row["above"]
        bounds = (above["low"], above["high"]) if seeds > 1 else above["pictures"]
        cells = [markdown_name(row["arm"]), markdown_name(row["set"]), _asked(row["n"]), _figure("", row["figure"])]
        lines.append([*cells, signed(above["value"]), _between(bounds)])
    return lines


def cost_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One row per arm: what it costs, and Test-G in %."""
    known = {key: shown for key, shown in COSTS.items() if any(key in row for row in rows)}
    lines = [["arm", *(title for title, _, _ in known.values()), "Test-G"]]
    for row in rows:
        values = ((row.get(key, {}).get("value"), form, times) for key, (_, form, times) in known.items())
        cells = ["–" if value is None else form.format(times * value) for value, form, times in values]
        lines.append([markdown_name(row["arm"]), *cells, _figure("Test-G", row.get("Test-G"))])
    return lines


def data_table(rows: Sequence[dict[str, Any]], variants: int) -> list[list[str]]:
    """One row per question source: pictures, statements, the share of true ones, questions."""
    lines = [["data", "in", "pictures", "statements", "true", "questions", "questions per picture"]]
    for row in rows:
        where = "all" if len(row["variants"]) == variants else markdown_name(", ".join(row["variants"]))
        true = "–" if row["true"] is None else f"{row['true']:.1%}"
        counts = (f"{row[name]:,}" for name in ("pictures", "statements"))
        lines.append([row["data"], where, *counts, true, f"{row['questions']:,}"])
        lines[-1].append(f"{row['questions'] / row['pictures']:.1f}")
    return lines


def relation_table(rows: Sequence[dict[str, Any]], arms: Sequence[str]) -> list[list[str]]:
    """One row per relation: Test-G of every arm, in %."""
    lines = [["relation", "statements", *map(markdown_name, arms)]]
    for row in rows:
        cells = (f"{100 * row[name]:.1f}" if name in row else "–" for name in arms)
        lines.append([row["relation"], f"{row['statements']:,}", *cells])
    return lines


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as GitHub Markdown: the first column left-aligned, the others right-aligned."""
    head, *rows = lines
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
