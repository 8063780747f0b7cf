"""Some of an experiment's arms, for a report on them alone, such as while the others are still running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from pydantic import ValidationError

from vsre.errors import VsreError
from vsre.experiments.design import JOIN, told_apart
from vsre.experiments.files import Plan
from vsre.experiments.schema import Contrast, Fraction
from vsre.experiments.summary import Runs
from vsre.recipes.schema import Recipe
from vsre.report.compare import compared

Places = Collection[tuple[str, str]]
"""Arms by variant and model."""


def named(plan: Plan, pattern: str) -> Places:
    """Return the arms whose "VARIANT: MODEL", or model alone, matches a pattern with * and ?.

    Raises VsreError if none does.
    """
    found = {
        (variant, model.name)
        for variant, recipe in plan.recipes.items()
        for model in recipe.models
        if any(fnmatchcase(name, pattern) for name in (model.name, f"{variant}: {model.name}"))
    }
    if not found:
        raise VsreError(f"--only {pattern}: no arm has this name. Arms: {'; '.join(_arms(plan.recipes))}.")
    return found


def done(seeds: Sequence[int], runs: Runs, among: Places) -> Places:
    """Return the arms of `among` that are done in the seed that has most of them; `runs` comes from `open_runs`.

    Raises VsreError if none is done.
    """
    by_seed = [{(v, run.name) for v, some in runs.items() for run in some[seed]} & {*among} for seed in seeds]
    most = max(by_seed, key=len)
    if not most:
        raise VsreError("--so-far: no run is done yet. A model takes minutes; try again later.")
    return most


def every(plan: Plan) -> Places:
    """Return all arms of a plan."""
    return {(variant, model.name) for variant, recipe in plan.recipes.items() for model in recipe.models}


def part_of(plan: Plan, kept: Places) -> Plan:
    """Return the plan of some arms, or of all, with the comparisons made between them.

    If the experiment names no comparisons, the defaults are filled in: each model with those it names, else with the
    one before it and the first. A part keeps the comparisons of the whole plan that still have both arms, pools them
    (`together`) only if none of a group is missing, and keeps those effects of a fraction that its arms can estimate.
    """
    recipes: dict[str, Recipe] = {}
    for variant, recipe in plan.recipes.items():
        models = [model for model in recipe.models if (variant, model.name) in kept]
        used = {data for model in models for stage in model.stages for data in stage.get("data", [])}
        if models:
            data = {name: spec for name, spec in recipe.data.items() if name in used}
            recipes[variant] = recipe.model_copy(update={"models": models, "data": data})
    arms = _arms(recipes)
    asked = plan.experiment
    whole = arms == _arms(plan.recipes)
    compare = asked.compare if asked.compare or asked.fraction else _resolved(plan.recipes)
    fraction = asked.fraction if whole else _told(asked.fraction, recipes)
    here = {
        "compare": compare if whole else both_there(compare, arms),
        "fraction": fraction,
        "plots": [plot for plot in asked.plots if fraction or plot.kind != "effects"],
    }
    first = dict(plan.first)
    if "compare" in first:
        try:
            before = [Contrast.model_validate(c) for c in first["compare"]] or ([] if asked.compare else compare)
        except ValidationError:  # refused by this version, so they have changed since, and the report says so
            before = []
        kept_before = before if whole else both_there(before, arms)
        first["compare"] = [c.model_dump(mode="json") for c in kept_before]
    return replace(plan, experiment=asked.model_copy(update=here), recipes=recipes, first=first)


def _told(fraction: Fraction | None, recipes: Mapping[str, Recipe]) -> Fraction | None:
    if fraction is None:
        return None
    names = {part for effect in fraction.effects for part in effect.split(JOIN)}
    factors = [model.factors for recipe in recipes.values() for model in recipe.models if names <= model.factors.keys()]
    told = told_apart(factors, fraction.effects) if factors else []
    return fraction.model_copy(update={"effects": told}) if told else None


def _arms(recipes: Mapping[str, Recipe]) -> list[str]:
    return [f"{variant}: {model.name}" for variant, recipe in recipes.items() for model in recipe.models]


def _resolved(recipes: Mapping[str, Recipe]) -> list[Contrast]:
    """Return the comparisons of an experiment that names none."""
    found = []
    for variant, recipe in recipes.items():
        names = [f"{variant}: {model.name}" for model in recipe.models]
        asked = [(model.name, model.against) for model in recipe.models]
        found += [Contrast(before=names[a], after=names[b]) for a, b in compared(asked, first=True)]
    return found


def both_there(compare: Sequence[Contrast], arms: Collection[str]) -> list[Contrast]:
    """Return the comparisons with both arms ("VARIANT: MODEL") present; a group (`together`) that lost one is split."""
    kept = [c for c in compare if c.before in arms and c.after in arms]
    lost = Counter(c.together for c in compare) - Counter(c.together for c in kept)
    return [c.model_copy(update={"together": ""}) if c.together in lost else c for c in kept]
