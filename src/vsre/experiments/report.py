"""An experiment's report: OUT/report.md with its tables and tests, and a PNG for each of its plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from vsre.errors import VsreError
from vsre.experiments.contrasts import contrasts, effects, statements
from vsre.experiments.data_table import data_rows
from vsre.experiments.files import Plan
from vsre.experiments.part import part_of
from vsre.experiments.plots import draw
from vsre.experiments.summary import (
    ability_rows,
    also_rows,
    arm_rows,
    arms_of,
    floors,
    look_rows,
    relation_rows,
)
from vsre.experiments.table import open_runs, write_results
from vsre.files import write_aside
from vsre.recipes.steps import folder_name
from vsre.report.compare import signed
from vsre.report.results import markdown_name
from vsre.report.seeds import TESTED

REPORT = "report.md"
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
_POOL = " Yes/no gap, answered and AUROC: over the wordings of Test-G."
WIDEST = 10
"""Arms that a table has a column for each of; of more, results.parquet has the figures."""


def write_report(plan: Plan, out: Path, only: str = "") -> dict[str, Any]:
    """Write results.parquet, report.md and the plots of the runs that are in OUT; returns what the report says.

    `only`: a pattern for the arms that it is about (see `part_of`); it is then written to OUT/only-PATTERN.

    Seeds that not every arm has are left out and named. Raises VsreError where no seed is complete.
    """
    to, every = (out / f"only-{folder_name(only)}" if only else out), plan.runs
    plan = part_of(plan, only) if only else plan
    runs = open_runs(plan, out)
    table = write_results(plan, out, runs, to)
    whole = [s for s in plan.seeds if all(len(runs[v][s]) == len(r.models) for v, r in plan.recipes.items())]
    if not whole:
        done = sum(len(some) for by_seed in runs.values() for some in by_seed.values())
        raise VsreError(f"{out}: {done} of {plan.runs} runs are done, and no seed has all. Go on with the run first.")
    arms = arms_of(plan, runs, whole)
    trained = any(model.parsed_stages() for recipe in plan.recipes.values() for model in recipe.models)
    one = whole[1:] if not trained and all(arm.same_pictures for arm in arms) else []
    if one:
        whole = whole[:1]  # the same models on the same pictures: as many seeds are one
        arms = arms_of(plan, runs, whole)
    compared, lacking = contrasts(plan.experiment, arms)
    rows = arm_rows(arms)
    drawn = {"cost": rows, "differences": compared, "effects": effects(plan.experiment, arms)}
    found = {
        "experiment": plan.experiment.name,
        "scale": plan.scale,
        "only": only,
        "runs": (plan.runs, every),
        "file": str(to / REPORT),
        "seeds": whole,
        "left_out": [s for s in plan.seeds if s not in whole and s not in one],
        "one": one,
        "trained": trained,
        "same_pictures": len(whole) > 1 and all(arm.same_pictures for arm in arms),
        "arms": rows,
        "contrasts": compared,
        "not_compared": lacking,
        "effects": drawn["effects"],
        "also": also_rows(arms),
        "looks": look_rows(arms),
        "ability": ability_rows(arms),
        "floors": floors(arms),
        "relations": relation_rows(arms),
        "data": data_rows(plan, out, whole[0]),
        "plots": [draw(plot, table, whole, to, drawn) for plot in plan.experiment.plots],
    }
    write_aside(to / REPORT, markdown(plan, found))
    return found


def markdown(plan: Plan, found: dict[str, Any]) -> str:
    """The report as GitHub Markdown."""
    asked, arms, seeds = plan.experiment, found["arms"], len(found["seeds"])
    parts = [f"# {asked.title}", asked.question, indent(plan.command, "    "), asked.about]
    parts += _reading(plan)
    listed = ", ".join(map(str, found["seeds"]))
    parts.append(f"Scale {plan.scale}; {seeds} seed{'s' * (seeds != 1)} ({listed}).")
    if found["only"]:
        parts.append("Only arms called `{}`: {} of {} runs.".format(found["only"].replace("`", ""), *found["runs"]))
    if found["left_out"]:
        parts.append(f"Seeds without all runs are left out: {', '.join(map(str, found['left_out']))}.")
    if found["one"]:
        told = ", ".join(map(str, found["one"]))
        parts.append(f"Seeds of the same models on the same pictures tell nothing new and are left out: {told}.")
    if seeds > 1 and not found["trained"]:
        parts.append("Nothing is trained: seeds differ by their test pictures alone.")
    parts += ["## Results", _table(_arm_table(arms)), _intervals(seeds, found["same_pictures"], asked.primary)]
    parts += _floors(found["floors"])
    if found["contrasts"]:
        parts += ["## Differences", _table(_contrast_table(found["contrasts"], seeds))]
    if found["not_compared"]:
        parts.append("Not compared:\n\n" + "\n".join(f"- {markdown_name(why)}" for why in found["not_compared"]))
    if found["effects"]:
        parts += [
            "## Effects",
            _about_effects(found["effects"], len(arms), seeds, asked.primary),
            _table(_effects(found["effects"])),
        ]
    if found["looks"]:
        parts += ["## Wording and picture", "Accuracies; probes are of fewer statements, in two wordings."]
        parts.append(_table(_spread_table(found["looks"])))
    if found["ability"]:
        about = (
            "On scenes of their own: is there, which of two; what is at a place; things named in a description (F1)."
        )
        parts += ["## General ability", about, _table(_spread_table(found["ability"]))]
    if found["also"]:
        parts += ["## Further test sets", _table(_also_table(found["also"], seeds))]
    about = "Milliseconds with all that ran beside; hours and steps of an arm's own stages."
    parts += ["## Cost", about, _table(_cost_table(arms))]
    if found["data"]:
        about = "Of the first seed, by what their stages name. `shares` say how many of a step's pictures are of which."
        parts += ["## Trained on", about, _table(_data_table(found["data"], len(plan.recipes)))]
    if found["relations"] and len(arms) <= WIDEST:
        parts += ["## By relation", "Test-G, mean of the seeds."]
        parts.append(_table(_relation_table(found["relations"], [row["arm"] for row in arms])))
    parts += [f"![{plot['title']}]({plot['file']})" for plot in found["plots"] if plot["file"]]
    parts += ["\n".join(f"- {note}" for note in asked.notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _floors(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each floor, with the variants that have it."""
    variants: dict[str, list[str]] = {}
    for row in rows:
        said = f"the best guesser goes by {row['goes by']}): {100 * row['value']:.1f} %."
        variants.setdefault(said, []).append(row["variant"])
    for said, some in variants.items():
        yield f"Blind floor ({'all' if len(some) == len(rows) > 1 else ', '.join(some)}; {said}"


def _families(primary: Sequence[str]) -> str:
    decide = " and ".join(TESTED[name] for name in primary)
    return f"the rows of {decide}, by which the question is decided, and apart from them for what is looked at beside"


def _reading(plan: Plan) -> list[str]:
    """What was to count, as it was written before the first run, and what was changed since."""
    now = plan.experiment.model_dump(mode="json")
    changed = [name for name, before in plan.first.items() if before != now[name]]
    parts = []
    if reading := plan.first.get("reading", now["reading"]):
        parts.append(f"How it is read, written before it was run: {reading}")
    if changed:
        parts.append(f"**Changed after the first run: {', '.join(changed)}.** plan.json has what was there before.")
    if "reading" in changed:
        parts.append(f"How it is read now: {now['reading']}")
    return parts


def _intervals(seeds: int, same_pictures: bool, primary: Sequence[str]) -> str:
    tested = ", ".join(TESTED.values())
    if seeds == 1:
        return f"{tested}: in brackets 95 % over test pictures. One seed: nothing is known of how seeds differ.{_POOL}"
    same = (
        " All seeds were tested on the same pictures: what they differ by is their training alone."
        if same_pictures
        else ""
    )
    return (
        f"Means of {seeds} seeds. {tested}: in brackets 95 % over seeds (Student's t); other columns: lowest and "
        f"highest seed. Over pictures: paired bootstrap for these very runs.{same} p: t-test over seeds, two-sided; "
        f"corrected by Holm's method for {_families(primary)}.{_POOL}"
    )


def _about_effects(rows: Sequence[dict[str, Any]], arms: int, seeds: int, primary: Sequence[str]) -> str:
    of = f", each the mean of {seeds} seeds," if seeds > 1 else ""
    return (
        "On against off, over all other factors; of an interaction: how much more the first adds where the second is "
        f"on. Bounds and p by Student's t from what the linear model leaves of {arms} arms{of} with "
        f"{rows[0]['degrees']} degrees of freedom; corrected by Holm's method for {_families(primary)}."
    )


def _arm_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
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


def _contrast_table(rows: Sequence[dict[str, Any]], seeds: int) -> list[list[str]]:
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


def _effects(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    lines = [["effect", "figure", "points", "over pictures", "95 %", "p", "p (Holm)"]]
    return lines + [[r["effect"], r["figure"], signed(r["value"]), _between(r["pictures"]), *_tested(r)] for r in rows]


def _spread_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    titles = [t for t in dict.fromkeys(key for row in rows for key in row) if t != "arm"]
    cells = [[markdown_name(r["arm"]), *(_figure(t, r.get(t)) for t in titles)] for r in rows]
    return [["arm", *titles], *cells]


def _also_table(rows: Sequence[dict[str, Any]], seeds: int) -> list[list[str]]:
    title = "over seeds" if seeds > 1 else "over pictures"
    lines = [["arm", "set", "statements (pictures) a seed", "Test-G", "points above the own test set", title]]
    for row in rows:
        above = row["above"]
        bounds = (above["low"], above["high"]) if seeds > 1 else above["pictures"]
        cells = [markdown_name(row["arm"]), markdown_name(row["set"]), _asked(row["n"]), _figure("", row["figure"])]
        lines.append([*cells, signed(above["value"]), _between(bounds)])
    return lines


def _cost_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    known = {key: shown for key, shown in COSTS.items() if any(key in row for row in rows)}
    lines = [["arm", *(title for title, _, _ in known.values()), "Test-G"]]
    for row in rows:
        values = ((row.get(key, {}).get("value"), form, times) for key, (_, form, times) in known.items())
        cells = ["–" if value is None else form.format(times * value) for value, form, times in values]
        lines.append([markdown_name(row["arm"]), *cells, _figure("Test-G", row.get("Test-G"))])
    return lines


def _data_table(rows: Sequence[dict[str, Any]], variants: int) -> list[list[str]]:
    lines = [["data", "in", "pictures", "statements", "true", "questions", "questions a picture"]]
    for row in rows:
        where = "all" if len(row["variants"]) == variants else markdown_name(", ".join(row["variants"]))
        true = "–" if row["true"] is None else f"{row['true']:.1%}"
        counts = (f"{row[name]:,}" for name in ("pictures", "statements"))
        lines.append([row["data"], where, *counts, true, f"{row['questions']:,}"])
        lines[-1].append(f"{row['questions'] / row['pictures']:.1f}")
    return lines


def _relation_table(rows: Sequence[dict[str, Any]], arms: Sequence[str]) -> list[list[str]]:
    lines = [["relation", "statements", *map(markdown_name, arms)]]
    for row in rows:
        cells = (f"{100 * row[name]:.1f}" if name in row else "–" for name in arms)
        lines.append([row["relation"], f"{row['statements']:,}", *cells])
    return lines


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rows = lines
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
