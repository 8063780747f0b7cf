"""An experiment's report: OUT/report.md with its tables and tests, and a PNG for each of its plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.experiments.files import Plan
from vsre.experiments.plots import draw
from vsre.experiments.summary import Arm, arm_rows, arms_of, contrasts, effects, floors, relation_rows
from vsre.experiments.table import open_runs, write_results
from vsre.report.compare import signed
from vsre.report.results import markdown_name
from vsre.report.seeds import TESTED

REPORT = "report.md"
COSTS = {
    "cost.visual_tokens": ("visual tokens", "{:,.0f}"),
    "cost.encoders": ("encoder parameters", "{:,.0f}"),
    "cost.adapters": ("adapter parameters", "{:,.0f}"),
    "cost.ms_image": ("ms an image", "{:.1f}"),
    "cost.train_seconds": ("training hours", "{:.2f}"),
    "cost.steps": ("steps", "{:,.0f}"),
}
IN_UNITS = {"AUROC": 1.0}
"""Figures that are no shares: what they are multiplied by where they are written (shares: 100)."""


def write_report(plan: Plan, out: Path, *, command: str = "") -> dict[str, Any]:
    """Write results.parquet, report.md and the plots of the runs that are in OUT; returns what the report says.

    Seeds that not every arm has are left out and named. Raises VsreError where no seed is complete.
    """
    table = write_results(plan, out)
    runs = open_runs(plan, out)
    whole = [s for s in plan.seeds if all(len(runs[v][s]) == len(r.models) for v, r in plan.recipes.items())]
    if not whole:
        done = sum(len(some) for by_seed in runs.values() for some in by_seed.values())
        raise VsreError(f"{out}: {done} of {plan.runs} runs are done, and no seed has all. Go on with the run first.")
    arms = arms_of(plan.experiment, plan.recipes, runs, whole)
    found = {
        "experiment": plan.experiment.name,
        "scale": plan.scale,
        "seeds": whole,
        "left_out": [s for s in plan.seeds if s not in whole],
        "arms": arm_rows(arms),
        "contrasts": contrasts(plan.experiment, arms),
        "effects": effects(plan.experiment, arms),
        "floors": floors(arms),
        "relations": relation_rows(arms),
        "plots": [draw(plot, table, whole, out) for plot in plan.experiment.plots],
    }
    (out / REPORT).write_text(markdown(plan, found, arms, command), encoding="utf-8")
    return found


def markdown(plan: Plan, found: dict[str, Any], arms: Sequence[Arm], command: str) -> str:
    """The report as GitHub Markdown."""
    experiment, n = plan.experiment, found["arms"][0]["n"]
    seeds = len(found["seeds"])
    parts = [f"# {experiment.title}", experiment.question, f"    {command}" if command else "", experiment.about]
    if experiment.reading:
        parts.append(f"How it is read, written before it was run: {experiment.reading}")
    parts.append(
        f"Scale {plan.scale}; {seeds} seed{'s' * (seeds != 1)} ({', '.join(map(str, found['seeds']))}); the first is "
        f"tested on {n['statements']:,} statements about {n['pictures']:,} pictures."
    )
    if found["left_out"]:
        parts.append(f"Seeds without all runs are left out: {', '.join(map(str, found['left_out']))}.")
    parts += ["## Results", _table(_arm_table(found["arms"])), _intervals(seeds)]
    for floor in found["floors"]:
        parts.append(
            f"Blind floor ({floor['variant']}; the best guesser goes by {floor['goes by']}): "
            f"{100 * floor['value']:.1f} %."
        )
    if found["contrasts"]:
        parts += ["## Differences", _table(_test_table(found["contrasts"], lambda r: [_step(r)], ["step"], seeds))]
    if found["effects"]:
        about = (
            "On against off, over all other factors; of an interaction: how much more the first adds where the second "
            f"is on. Bounds by Student's t from what the linear model leaves of {len(arms) * seeds} runs."
        )
        table = _test_table(found["effects"], lambda r: [r["effect"]], ["effect"], 2, each_seed=False)
        parts += ["## Effects", about, _table(table)]
    costs = _cost_table(found["arms"])
    if costs:
        parts += ["## Cost", _table(costs)]
    if found["relations"]:
        parts += ["## By relation", "acc_t over all wordings, mean of the seeds.", _table(_relation_table(found, arms))]
    parts += [f"![{plot['title']}]({plot['file']})" for plot in found["plots"] if plot["file"]]
    parts += [f"- {note}" for note in experiment.notes]
    return "\n\n".join(filter(None, parts)) + "\n"


def _intervals(seeds: int) -> str:
    tested = ", ".join(TESTED.values())
    if seeds == 1:
        return f"{tested}: in brackets 95 % over test pictures. One seed: nothing is known of how seeds differ."
    return (
        f"Means of {seeds} seeds. {tested}: in brackets 95 % over seeds (Student's t); other columns: lowest and "
        "highest seed. Over pictures: paired bootstrap for these very runs. p: t-test over seeds, two-sided; corrected "
        "for all rows of a table by Holm's method."
    )


def _arm_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    titles = [t for t in dict.fromkeys(k for row in rows for k in row) if t not in ("arm", "factors", "n")]
    titles = [t for t in titles if not t.startswith("cost.")]
    return [["arm", *titles], *([markdown_name(r["arm"]), *(_figure(t, r.get(t)) for t in titles)] for r in rows)]


def _figure(title: str, figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    scale = IN_UNITS.get(title, 100.0)
    digits = 3 if scale == 1 else 1
    low, high = (figure["low"], figure["high"]) if figure["low"] is not None else figure["pictures"]
    value, low, high = (f"{scale * v:.{digits}f}".replace("-", "−") for v in (figure["value"], low, high))
    if figure.get("range"):
        return f"{value} ({low} to {high})" if len(figure["seeds"]) > 1 else value
    return f"{value} [{low}, {high}]"


def _step(row: dict[str, Any]) -> str:
    on = f", on {', '.join(row['relations'])}" if row["relations"] else ""
    return f"{markdown_name(row['before'])} → {markdown_name(row['after'])}{on}"


def _test_table(
    rows: Sequence[dict[str, Any]], place: Any, titles: list[str], seeds: int, *, each_seed: bool = True
) -> list[list[str]]:
    head = [*titles, "figure", "points", "over pictures"]
    head += ["over seeds" if each_seed else "95 %", "p", "p (Holm)"] * (seeds > 1) + ["each seed"] * (
        each_seed and seeds > 1
    )
    lines = [head]
    for row in rows:
        pictures = f"{signed(row['pictures'][0])} to {signed(row['pictures'][1])}"
        cells = [*place(row), row["figure"], signed(row["value"]), pictures]
        if seeds > 1:
            verdict = "" if row["p_holm"] < 0.05 else ", not significant"
            cells += [
                f"{signed(row['low'])} to {signed(row['high'])}",
                f"{row['p']:.4f}",
                f"{row['p_holm']:.4f}{verdict}",
            ]
            if each_seed:
                cells.append(", ".join(signed(v) for v in row["seeds"]))
        lines.append(cells)
    return lines


def _cost_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    known = {key: shown for key, shown in COSTS.items() if any(key in row for row in rows)}
    if not known:
        return []
    lines = [["arm", *(title for title, _ in known.values()), "Test-G"]]
    for row in rows:
        cells = [markdown_name(row["arm"])]
        for key, (_, form) in known.items():
            value = row.get(key, {}).get("value")
            hours = value is not None and key == "cost.train_seconds"
            cells.append("–" if value is None else form.format(value / 3600 if hours else value))
        lines.append([*cells, _figure("Test-G", row.get("Test-G"))])
    return lines


def _relation_table(found: dict[str, Any], arms: Sequence[Arm]) -> list[list[str]]:
    names = [arm.name for arm in arms]
    lines = [["relation", "statements", *map(markdown_name, names)]]
    for row in found["relations"]:
        cells = (f"{100 * row[name]:.1f}" if name in row else "–" for name in names)
        lines.append([row["relation"], f"{row['statements']:,}", *cells])
    return lines


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rows = lines
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
