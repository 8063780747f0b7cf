"""Experiment files: the shipped ones and your own, and the recipes that one stands for at a scale."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vsre.diagnose.metrics import HEADLINES
from vsre.errors import VsreError
from vsre.experiments.design import chosen_models
from vsre.experiments.schema import Experiment
from vsre.recipes.expand import merge
from vsre.recipes.files import RecipeFaults, recipe_from
from vsre.recipes.near import nearest
from vsre.recipes.schema import Recipe
from vsre.recipes.steps import folder_name

_HERE = Path(str(resources.files("vsre.experiments")))
_SHIPPED, _SCALES = _HERE / "data", _HERE / "scales"

EMBEDDED = "embedded"
"""The scale that needs nothing but the package."""
ASKED = ("reading", "primary", "compare")
"""What of an experiment says how its results will be judged."""


@dataclass(frozen=True)
class Plan:
    """An experiment at a scale: a recipe for every variant, and its seeds; `command` is what asked for it."""

    experiment: Experiment
    scale: str
    recipes: dict[str, Recipe]
    seeds: tuple[int, ...]
    command: str = ""
    first: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What was said before the first run, of ASKED: an experiment's file may be changed when its results are there."""

    @property
    def runs(self) -> int:
        """How many models are diagnosed, over all variants and seeds."""
        return len(self.seeds) * sum(len(recipe.models) for recipe in self.recipes.values())


def experiment_names() -> list[str]:
    """The shipped experiments."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def scale_names() -> list[str]:
    """The shipped scales: embedded, layouts, full."""
    return sorted(path.stem for path in _SCALES.glob("*.yaml"))


def experiment_text(name_or_path: str) -> tuple[str, str]:
    """The text of a shipped experiment (by name) or of a file (by path), and where it is from."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise VsreError(f"{path}: no such experiment file.")
        return path.read_text(encoding="utf-8"), str(path)
    if name_or_path not in experiment_names():
        said = nearest(name_or_path, experiment_names())
        raise VsreError(f"There is no experiment {name_or_path!r}. {said} Or give a file.")
    return (_SHIPPED / f"{name_or_path}.yaml").read_text(encoding="utf-8"), name_or_path


def load_experiment(name_or_path: str) -> Experiment:
    """Read and check an experiment. Raises VsreError for a file that cannot be read, RecipeFaults with all faults."""
    text, where = experiment_text(name_or_path)
    try:
        return Experiment.model_validate(_mapping(text, where))
    except ValidationError as error:
        said = ((".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors())
        raise RecipeFaults(where, [f"{place}: {message}" if place else message for place, message in said]) from error


def plan_experiment(
    experiment: Experiment,
    *,
    scale: str = EMBEDDED,
    seeds: Sequence[int] | None = None,
    changes: Sequence[str] = (),
    command: str = "",
) -> Plan:
    """The recipes of an experiment at a scale.

    `scale` is a shipped one or a YAML file in its form, which may say which of them it is `like`: what an experiment
    has for that one then holds for it too. `changes` are KEY=VALUE, such as source.train_units=300: values are YAML and
    take the place of what all variants share. Raises RecipeFaults with all that is wrong with the recipes.
    """
    chosen = tuple(experiment.seeds if seeds is None else seeds)
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise VsreError("--seeds: give different whole numbers, none below 0.")
    shared = _scale(scale)
    here = dict(experiment.scales.get(_like(shared, scale, experiment), {}))
    variants = {**experiment.variants, **here.pop("variants", {})}
    shared = merge(merge(shared, here), experiment.recipe)
    for change in changes:
        shared = _changed(shared, change)
    if experiment.fraction is not None:
        shared["models"] = [*shared.get("models", []), *chosen_models(experiment.fraction)]
    recipes = {}
    found: dict[str, list[str]] = {}
    for name, variant in variants.items():
        raw = merge({"name": experiment.name, "title": experiment.title}, merge(shared, variant))
        recipe, mistakes = recipe_from(raw, f"{experiment.name}: {name}")
        for mistake in mistakes:
            found.setdefault(mistake, []).append(name)
        if recipe is not None:  # a scale may have data that no arm of this experiment uses
            recipes[name] = recipe.rows([model.name for model in recipe.models])
    faults = [*_names(experiment, variants), *by_variant(found, len(variants))]
    if not faults:
        faults += _arms(experiment, recipes)
    if faults:
        raise RecipeFaults(experiment.name, faults)
    return Plan(experiment, scale, recipes, chosen, command)


def by_variant(found: Mapping[str, Sequence[str]], variants: int) -> list[str]:
    """Faults, each once with the variants that have it, or with none where all have."""
    return [fault if len(where) == variants else f"{', '.join(where)}: {fault}" for fault, where in found.items()]


def _like(scale: dict[str, Any], name: str, experiment: Experiment) -> str:
    """The scale whose settings in the experiment hold for this one; takes `like` out of it."""
    stem = Path(name).stem
    like = scale.pop("like", stem)
    if like != stem and like not in scale_names():
        raise VsreError(f"{name}: like: no scale {like!r}. {nearest(str(like), scale_names())}")
    if experiment.scales and like not in (*experiment.scales, *scale_names()):
        raise VsreError(
            f"{name}: {experiment.name} has settings of its own for {', '.join(experiment.scales)}. Say which of the "
            f"scales this one is like, such as `like: {next(iter(experiment.scales))}`, or name it in the experiment."
        )
    return str(like)


def _names(experiment: Experiment, variants: Iterable[str]) -> Iterator[str]:
    """Scales that are nearly a shipped one, and variants that would share a folder."""
    for name in experiment.scales:
        if name not in scale_names() and difflib.get_close_matches(name, scale_names(), n=1, cutoff=0.8):
            yield f"scales: no scale {name!r}. {nearest(name, scale_names())}"
    folders: dict[str, str] = {}
    for name in variants:
        other = folders.setdefault(folder_name(name), name)
        if not folder_name(name):
            yield f"variants: {name!r} has no letter or digit to name a folder by."
        elif other != name:
            yield f"variants: {other!r} and {name!r} have the same folder, {folder_name(name)}."


def _arms(experiment: Experiment, recipes: dict[str, Recipe]) -> Iterator[str]:
    """What is compared or drawn but is no arm, or a factor of none."""
    arms = [f"{variant}: {model.name}" for variant, recipe in recipes.items() for model in recipe.models]
    elsewhere = {name for at in experiment.scales.values() for name in at.get("variants", {})} - recipes.keys()
    for side in (s for contrast in experiment.compare for s in (contrast.before, contrast.after)):
        if side not in arms and not side.startswith(tuple(f"{variant}: " for variant in elsewhere)):
            yield f"compare: {side!r} is no arm. {nearest(side, arms)}"
    asked = {pack for recipe in recipes.values() for pack in recipe.diagnose.packs}
    if not any(HEADLINES[figure] in asked for figure in experiment.primary):
        needs = " or ".join(HEADLINES[figure] for figure in experiment.primary)
        yield f"primary: {', '.join(experiment.primary)} needs the pack {needs}; add it to diagnose.packs."
    factors = {name for recipe in recipes.values() for model in recipe.models for name in model.factors}
    for plot in experiment.plots:
        for name in (plot.x, plot.by):
            if name is not None and name not in factors:
                yield f"plot {plot.name}: no arm has a factor {name!r}. {nearest(name, factors)}"


def _scale(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = _SCALES / f"{name}.yaml"
        if name not in scale_names():
            raise VsreError(f"There is no scale {name!r}. {nearest(name, scale_names())} Or give a file.")
    if not path.is_file():
        raise VsreError(f"{path}: no such file of a scale.")
    return _mapping(path.read_text(encoding="utf-8"), str(path))


def _changed(recipe: Mapping[str, Any], change: str) -> dict[str, Any]:
    """The recipe with the value of KEY=VALUE at its place."""
    path, equals, value = change.partition("=")
    if not equals or not all(path.split(".")):
        raise VsreError(f"--set {change}: write KEY=VALUE, such as source.train_units=300.")
    try:
        new = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise VsreError(f"--set {change}: its value is not valid YAML: {error}") from error
    key, _, rest = path.partition(".")
    if rest:
        below = recipe.get(key)
        new = _changed(below if isinstance(below, Mapping) else {}, f"{rest}={value}")
    return {**recipe, key: new}


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VsreError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise VsreError(f"{where}: expected a mapping, found {type(raw).__name__}.")
    return raw
