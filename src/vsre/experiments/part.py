"""A part of an experiment's arms: for a report on them alone, as while the others are still to be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from pydantic import ValidationError

from vsre.errors import VsreError
from vsre.experiments.files import Plan
from vsre.experiments.schema import Contrast
from vsre.recipes.schema import Recipe
from vsre.report.compare import compared


def part_of(plan: Plan, pattern: str) -> Plan:
    """The arms, "VARIANT: MODEL" or the model alone, that a pattern with * and ? names, as a plan of their own.

    Comparisons are those of the whole plan that have both their arms, and are made `together` only where all of those
    that belong together are there; a fraction's effects need all of its arms. Raises VsreError for a pattern that names
    none.
    """
    recipes: dict[str, Recipe] = {}
    for variant, recipe in plan.recipes.items():
        models = [m for m in recipe.models if any(fnmatchcase(n, pattern) for n in (m.name, f"{variant}: {m.name}"))]
        used = {data for model in models for stage in model.stages for data in stage.get("data", [])}
        if models:
            data = {name: spec for name, spec in recipe.data.items() if name in used}
            recipes[variant] = recipe.model_copy(update={"models": models, "data": data})
    arms = _arms(recipes)
    if not arms:
        raise VsreError(f"--only {pattern}: no arm is called so. There are: {'; '.join(_arms(plan.recipes))}.")
    asked = plan.experiment
    whole = arms == _arms(plan.recipes)
    every = asked.compare if asked.compare or asked.fraction else _resolved(plan.recipes)
    here = {
        "compare": _kept(every, arms),
        "fraction": asked.fraction if whole else None,
        "plots": [plot for plot in asked.plots if whole or plot.kind != "effects"],
    }
    first = dict(plan.first)
    if "compare" in first:
        try:
            before = [Contrast.model_validate(c) for c in first["compare"]] or ([] if asked.compare else every)
        except ValidationError:  # this version refuses one, so they were changed since, and the report says so
            before = []
        first["compare"] = [c.model_dump(mode="json") for c in _kept(before, arms)]
    return replace(plan, experiment=asked.model_copy(update=here), recipes=recipes, first=first)


def _arms(recipes: Mapping[str, Recipe]) -> list[str]:
    return [f"{variant}: {model.name}" for variant, recipe in recipes.items() for model in recipe.models]


def _resolved(recipes: Mapping[str, Recipe]) -> list[Contrast]:
    """What is compared where an experiment does not say: see `vsre.experiments.contrasts`."""
    found = []
    for variant, recipe in recipes.items():
        names = [f"{variant}: {model.name}" for model in recipe.models]
        asked = [(model.name, model.against) for model in recipe.models]
        found += [Contrast(before=names[a], after=names[b]) for a, b in compared(asked, first=True)]
    return found


def _kept(compare: Sequence[Contrast], arms: Sequence[str]) -> list[Contrast]:
    kept = [c for c in compare if c.before in arms and c.after in arms]
    lost = Counter(c.together for c in compare) - Counter(c.together for c in kept)
    return [c.model_copy(update={"together": ""}) if c.together in lost else c for c in kept]
