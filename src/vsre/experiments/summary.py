"""What an experiment's runs say together: figures over seeds, contrasts with tests, effects of factors.

A seed is a replicate of the whole: its own world, its own training, its own test pictures. Intervals "over seeds" are
Student's t over the seeds' figures; those "over pictures" resample the test pictures of these very runs, together for
the two that are compared. With one seed only the second can be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from vsre.experiments.design import fit_effects
from vsre.experiments.schema import Experiment
from vsre.experiments.table import cost_of
from vsre.report.compare import blind_floor, paired_draws, pairs
from vsre.report.inputs import Run
from vsre.report.results import columns
from vsre.report.seeds import TESTED, holm, pooled

Runs = Mapping[str, Mapping[int, Sequence[Run]]]


@dataclass(frozen=True)
class Arm:
    """One model of one variant over the seeds, in their order."""

    name: str
    variant: str
    model: str
    runs: tuple[Run, ...]
    factors: Mapping[str, str | float]


def arms_of(experiment: Experiment, recipes: Mapping[str, Any], runs: Runs, seeds: Sequence[int]) -> list[Arm]:
    """The arms that every seed has run; with one variant an arm is called as its model."""
    several = len(recipes) > 1
    found = []
    for variant, recipe in recipes.items():
        for model in recipe.models:
            mine = [next((r for r in runs[variant][s] if r.name == model.name), None) for s in seeds]
            known = tuple(run for run in mine if run is not None)
            if len(known) == len(seeds):
                name = f"{variant}: {model.name}" if several else model.name
                found.append(Arm(name, variant, model.name, known, model.factors))
    return found


def over(draws: Sequence[np.ndarray]) -> dict[str, Any]:
    """A figure known as draws (1 + R,) of each seed: {"value", "low", "high", "p", "pictures", "seeds"}.

    With one seed `low`, `high` and `p` are None.
    """
    if len(draws) > 1:
        return pooled(draws)
    drawn = draws[0][1:]
    low, high = np.percentile(drawn[np.isfinite(drawn)], (2.5, 97.5))
    value = float(draws[0][0])
    return {"value": value, "low": None, "high": None, "p": None, "pictures": [low, high], "seeds": [round(value, 4)]}


def arm_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """A row an arm: the tested figures with intervals, the others as mean, lowest and highest seed, and its cost."""
    shown = columns([run for arm in arms for run in arm.runs])
    rows = []
    for arm in arms:
        row: dict[str, Any] = {"arm": arm.name, "factors": dict(arm.factors), "n": _asked(arm.runs[0])}
        for figure, title in TESTED.items():
            drawn = [paired_draws(None, run, figure, seed=i) for i, run in enumerate(arm.runs)]
            known_draws = [d for d in drawn if d is not None]
            if len(known_draws) == len(drawn):
                row[title] = over(known_draws)
        for column in shown:
            values = [column.of(run).value for run in arm.runs]
            known = [v for v in values if v is not None]
            if column.title not in row and len(known) == len(values):
                row[column.title] = _spread(known)
        costs = [cost_of(run) for run in arm.runs]
        for name in costs[0]:
            numbers = [c[name] for c in costs if isinstance(c.get(name), int | float)]
            if len(numbers) == len(costs):
                row["cost." + name] = _spread([float(v) for v in numbers])
        rows.append(row)
    return rows


def contrasts(experiment: Experiment, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Every comparison of the plan, with Holm's correction over all of them."""
    by_name = {arm.name: arm for arm in arms}
    wanted: list[tuple[Arm, Arm, list[str]]] = []
    for c in experiment.compare:
        if c.before in by_name and c.after in by_name:
            wanted.append((by_name[c.before], by_name[c.after], c.relations))
    if not experiment.compare and experiment.fraction is None:
        for variant in dict.fromkeys(arm.variant for arm in arms):
            mine = [arm for arm in arms if arm.variant == variant]
            wanted += [(mine[a], mine[b], []) for a, b in pairs([arm.runs[0] for arm in mine])]
    rows: list[dict[str, Any]] = []
    for before, after, relations in wanted:
        for figure, title in TESTED.items():
            both = enumerate(zip(before.runs, after.runs, strict=True))
            drawn = [paired_draws(a, b, figure, seed=i, relations=relations) for i, (a, b) in both]
            known = [d for d in drawn if d is not None]
            if len(known) == len(drawn):
                place = {"before": before.name, "after": after.name, "relations": relations, "figure": title}
                rows.append(place | over(known))
    _correct(rows)
    return rows


def effects(experiment: Experiment, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """What each effect of a fraction adds to each tested figure; Holm's correction over all of them."""
    if experiment.fraction is None:
        return []
    names = {part for effect in experiment.fraction.effects for part in effect.split(" x ")}
    mine = [arm for arm in arms if names <= arm.factors.keys()]
    rows: list[dict[str, Any]] = []
    for figure, title in TESTED.items():
        draws, factors, blocks = [], [], []
        for arm in mine:
            for seed, run in enumerate(arm.runs):
                drawn = paired_draws(None, run, figure, seed=seed)  # the seed's pictures, drawn alike for all arms
                if drawn is not None:
                    draws.append(drawn)
                    factors.append(arm.factors)
                    blocks.append(seed)
        if draws:
            found = fit_effects(factors, experiment.fraction.effects, np.stack(draws), blocks=blocks)
            rows += [{"figure": title} | row for row in found]
    _correct(rows)
    return rows


def floors(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """For each variant the best guesser that sees no picture, by seed."""
    found = []
    for variant in dict.fromkeys(arm.variant for arm in arms):
        arm = next(arm for arm in arms if arm.variant == variant)
        best = [blind_floor(run) for run in arm.runs]
        values = [e.value for _, e in best if e.value is not None]
        if values:
            found.append({"variant": variant, "goes by": best[0][0], "value": float(np.mean(values)), "seeds": values})
    return found


def relation_rows(arms: Sequence[Arm], *, least: int = 20) -> list[dict[str, Any]]:
    """acc_t under all wordings of each relation with at least so many statements a seed, a row a relation, by arm."""
    found: dict[str, dict[str, Any]] = {}
    for arm in arms:
        for relation in sorted({name for run in arm.runs for name in run.section("by_relation")}):
            figures = [run.estimate("by_relation", relation, "acc_t") for run in arm.runs]
            counts = [run.statements("relation").get(relation, 0) for run in arm.runs]
            values = [e.value for e in figures if e.value is not None]
            if values and min(counts) >= least:
                row = found.setdefault(relation, {"relation": relation, "statements": sum(counts)})
                row[arm.name] = float(np.mean(values))
    return list(found.values())


def _correct(rows: list[dict[str, Any]]) -> None:
    tested = [row for row in rows if row["p"] is not None]
    for row, corrected in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = corrected


def _spread(values: Sequence[float]) -> dict[str, Any]:
    rounded = [round(v, 4) for v in values]
    return {"value": float(np.mean(values)), "low": min(values), "high": max(values), "seeds": rounded, "range": True}


def _asked(run: Run) -> dict[str, int]:
    """How many pictures and statements a run was asked about."""
    table = run.samples(("image_id", "key"))
    if table is None:
        return {"pictures": 0, "statements": 0}
    return {"pictures": len(pc.unique(table["image_id"])), "statements": len(pc.unique(table["key"]))}
