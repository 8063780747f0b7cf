"""An experiment's report: OUT/report.md with its tables and tests, and a PNG for each of its plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any
from zlib import crc32

from vsre.errors import VsreError
from vsre.experiments import report_tables as tables
from vsre.experiments.contrasts import contrasts, correct, effects
from vsre.experiments.data_table import data_rows
from vsre.experiments.files import Plan
from vsre.experiments.part import done, every, named, part_of
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
from vsre.report.results import markdown_name
from vsre.report.seeds import TESTED

REPORT, SO_FAR = "report.md", "so-far"
_POOL = " Yes/no gap, answered and AUROC: over the wordings of Test-G."
WIDEST = 10
"""With more arms than this, tables with a column per arm are left out; results.parquet has the figures."""


def write_report(plan: Plan, out: Path, only: str = "", *, so_far: bool = False) -> dict[str, Any]:
    """Write results.parquet, report.md and the plots of the runs in OUT; return what the report says.

    `only`: a pattern for the arms to report on; `so_far`: only those that are done (see `vsre.experiments.part`). Each
    is written to a folder of its own in OUT. Seeds that some arm lacks are left out and named. Raises VsreError if no
    seed is complete or no arm is done.
    """
    to, whole_plan = (out / (_folder(only) if only else SO_FAR) if only or so_far else out), plan
    kept = named(plan, only) if only else every(plan)
    if so_far:
        kept = done(plan.seeds, open_runs(plan, out), kept)
    plan = part_of(plan, kept)
    runs = open_runs(plan, out)
    table = write_results(plan, out, runs, to)
    whole = [s for s in plan.seeds if all(len(runs[v][s]) == len(r.models) for v, r in plan.recipes.items())]
    if not whole:
        there = sum(len(some) for by_seed in runs.values() for some in by_seed.values())
        raise VsreError(f"{out}: {there} of {plan.runs} runs are done, and no seed has all. Continue the run first.")
    told = len(kept) * len(whole), whole_plan.runs
    arms = arms_of(plan, runs, whole)
    trained = any(model.parsed_stages() for recipe in plan.recipes.values() for model in recipe.models)
    one = whole[1:] if not trained and all(arm.same_pictures for arm in arms) else []
    if one:
        whole = whole[:1]  # the same models on the same pictures: all seeds are alike
        arms = arms_of(plan, runs, whole)
    compared, lacking = contrasts(plan.experiment, arms)
    rows, added = arm_rows(arms), effects(plan.experiment, arms)
    correct([*compared, *added], plan.experiment)
    drawn = {"cost": rows, "differences": compared, "effects": added}
    found = {
        "experiment": plan.experiment.name,
        "scale": plan.scale,
        "only": only,
        "so_far": so_far,
        "runs": told,
        "file": str(to / REPORT),
        "seeds": whole,
        "left_out": [s for s in plan.seeds if s not in whole and s not in one],
        "one": one,
        "trained": trained,
        "same_pictures": len(whole) > 1 and all(arm.same_pictures for arm in arms),
        "arms": rows,
        "contrasts": compared,
        "not_compared": lacking,
        "effects": added,
        "effects_left_out": [e for e in _effects_of(whole_plan) if e not in _effects_of(plan)],
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


def _effects_of(plan: Plan) -> list[str]:
    return plan.experiment.fraction.effects if plan.experiment.fraction else []


def _folder(only: str) -> str:
    """Return a folder name for a pattern: its letters, and a checksum so that "a*" and "*a" differ."""
    return f"only-{folder_name(only)}-{crc32(only.encode()):08x}"


def markdown(plan: Plan, found: dict[str, Any]) -> str:
    """The report as GitHub Markdown."""
    asked, arms, seeds = plan.experiment, found["arms"], len(found["seeds"])
    parts = [f"# {asked.title}", asked.question, indent(plan.command, "    "), asked.about]
    parts += _reading(plan)
    listed = ", ".join(map(str, found["seeds"]))
    parts.append(f"Scale {plan.scale}; {seeds} seed{'s' * (seeds != 1)} ({listed}).")
    if found["only"] or found["so_far"]:
        which = f"Only arms called `{found['only'].replace('`', '')}`" if found["only"] else "Only arms"
        done = " that are done" if found["so_far"] else ""
        said = "{} of {} runs. Tests are corrected within this part only."
        parts.append(f"{which}{done}: {said.format(*found['runs'])}")
    if found["left_out"]:
        parts.append(f"Seeds without all runs are left out: {', '.join(map(str, found['left_out']))}.")
    if found["one"]:
        told = ", ".join(map(str, found["one"]))
        parts.append(f"Other seeds run the same models on the same pictures and are left out: {told}.")
    if seeds > 1 and not found["trained"]:
        parts.append("Nothing is trained: seeds differ only in their test pictures.")
    parts += [
        "## Results",
        tables.as_markdown(tables.arm_table(arms)),
        _intervals(seeds, found["same_pictures"], asked.primary),
    ]
    parts += _floors(found["floors"])
    if found["contrasts"]:
        parts += ["## Differences", tables.as_markdown(tables.contrast_table(found["contrasts"], seeds))]
    if found["not_compared"]:
        parts.append("Not compared:\n\n" + "\n".join(f"- {markdown_name(why)}" for why in found["not_compared"]))
    if found["effects"]:
        parts += [
            "## Effects",
            _about_effects(found["effects"], len(arms), seeds, asked.primary),
            _left_out(found["effects_left_out"]),
            tables.as_markdown(tables.effect_table(found["effects"], seeds)),
        ]
    if found["looks"]:
        parts += ["## Wording and picture", "Accuracies; probes use fewer statements, in two wordings."]
        parts.append(tables.as_markdown(tables.spread_table(found["looks"])))
    if found["ability"]:
        about = (
            "On separate scenes: is a thing there, which of two is; what is at a place; things named in a description "
            "(F1)."
        )
        parts += ["## General ability", about, tables.as_markdown(tables.spread_table(found["ability"]))]
    if found["also"]:
        parts += ["## Further test sets", tables.as_markdown(tables.also_table(found["also"], seeds))]
    about = "Milliseconds under the load of whatever ran alongside; hours and steps of an arm's own stages."
    parts += ["## Cost", about, tables.as_markdown(tables.cost_table(arms))]
    if found["data"]:
        about = "First seed; the data that stages name. `shares` set how many of a step's pictures come from each."
        parts += ["## Trained on", about, tables.as_markdown(tables.data_table(found["data"], len(plan.recipes)))]
    if found["relations"] and len(arms) <= WIDEST:
        parts += ["## By relation", "Test-G and statements, means over seeds."]
        parts.append(tables.as_markdown(tables.relation_table(found["relations"], [row["arm"] for row in arms])))
    parts += [f"![{plot['title']}]({plot['file']})" for plot in found["plots"] if plot["file"]]
    if undrawn := ", ".join(plot["name"] for plot in found["plots"] if not plot["file"]):
        parts.append(f"Not drawn, as these runs lack the figures: {undrawn}.")
    parts += ["\n".join(f"- {note}" for note in asked.notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _floors(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each floor, with the variants that have it."""
    variants: dict[str, list[str]] = {}
    for row in rows:
        said = f"the best guesser uses {row['goes by']}): {100 * row['value']:.1f} %."
        variants.setdefault(said, []).append(row["variant"])
    for said, some in variants.items():
        yield f"Blind floor ({'all' if len(some) == len(rows) > 1 else ', '.join(some)}; {said}"


def _families(primary: Sequence[str]) -> str:
    primary_rows = " and ".join(TESTED[name] for name in primary)
    return f"the primary rows ({primary_rows}), and separately for the secondary ones"


def _reading(plan: Plan) -> list[str]:
    """Return how results were to be read, as written before the first run, and what has changed since."""
    now = plan.experiment.model_dump(mode="json")
    changed = [name for name, before in plan.first.items() if before != now[name]]
    parts = []
    if reading := plan.first.get("reading", now["reading"]):
        parts.append(f"How it is read, written before it was run: {reading}")
    if changed:
        parts.append(f"**Changed after the first run: {', '.join(changed)}.** plan.json has the original.")
    if "reading" in changed:
        parts.append(f"How it is read now: {now['reading']}")
    return parts


def _intervals(seeds: int, same_pictures: bool, primary: Sequence[str]) -> str:
    tested = ", ".join(TESTED.values())
    if seeds == 1:
        return f"{tested}: in brackets 95 % over test pictures. One seed: nothing is known of how seeds differ.{_POOL}"
    same = (
        " All seeds were tested on the same pictures, so they differ only in their training." if same_pictures else ""
    )
    return (
        f"Means of {seeds} seeds. {tested}: in brackets 95 % over seeds (Student's t); other columns: lowest and "
        f"highest seed. Over pictures: paired bootstrap for these runs.{same} p: t-test over seeds, two-sided; "
        f"corrected by Holm's method for {_families(primary)}.{_POOL}"
    )


def _left_out(effects: Sequence[str]) -> str:
    if not effects:
        return ""
    more = f" and {len(effects) - 3} more" if len(effects) > 3 else ""
    told = f"Not estimable from these arms: {', '.join(effects[:3])}{more}."
    return f"**{told}** What they add is confounded with the other effects."


def _about_effects(rows: Sequence[dict[str, Any]], arms: int, seeds: int, primary: Sequence[str]) -> str:
    of = f", each the mean of {seeds} seeds," if seeds > 1 else ""
    return (
        "On minus off, averaged over all other factors; for an interaction: how much more one adds when the other is "
        f"on. Bounds and p by Student's t from the residuals of the linear model of {arms} arms{of} with "
        f"{rows[0]['degrees']} degrees of freedom; corrected by Holm's method for {_families(primary)}, "
        "interactions among them. All arms of a seed share its world; no interval covers how effects vary with that."
    )
