"""A part of an experiment's arms: for a report on them alone, as while the others are still to be run."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from vsre.errors import VsreError
from vsre.experiments.files import Plan
from vsre.experiments.schema import Contrast
from vsre.recipes.schema import Recipe


def part_of(plan: Plan, pattern: str) -> Plan:
    """The arms, "VARIANT: MODEL" or the model alone, that a pattern with * and ? names, as a plan of their own.

    Comparisons with arms that are left out go, and so do a fraction's effects, for which all of its arms are needed.
    Raises VsreError for a pattern that names none.
    """
    recipes: dict[str, Recipe] = {}
    for variant, recipe in plan.recipes.items():
        named = [
            m.name for m in recipe.models if any(fnmatchcase(n, pattern) for n in (m.name, f"{variant}: {m.name}"))
        ]
        models = [
            m.model_copy(update={"against": [other for other in m.against if other in named]})
            for m in recipe.models
            if m.name in named
        ]
        used = {data for model in models for stage in model.stages for data in stage.get("data", [])}
        if models:
            data = {name: spec for name, spec in recipe.data.items() if name in used}
            recipes[variant] = recipe.model_copy(update={"models": models, "data": data})
    arms = _arms(recipes)
    if not arms:
        raise VsreError(f"--only {pattern}: no arm is called so. There are: {'; '.join(_arms(plan.recipes))}.")
    asked, whole = plan.experiment, recipes == plan.recipes

    def both(contrast: Contrast) -> bool:
        return contrast.before in arms and contrast.after in arms

    here = {
        "compare": [*filter(both, asked.compare)],
        "fraction": asked.fraction if whole else None,
        "plots": [plot for plot in asked.plots if whole or plot.kind != "effects"],
    }
    first = dict(plan.first)
    if "compare" in first:
        first["compare"] = [c for c in first["compare"] if c["before"] in arms and c["after"] in arms]
    return replace(plan, experiment=asked.model_copy(update=here), recipes=recipes, first=first)


def _arms(recipes: dict[str, Recipe]) -> list[str]:
    return [f"{variant}: {model.name}" for variant, recipe in recipes.items() for model in recipe.models]
