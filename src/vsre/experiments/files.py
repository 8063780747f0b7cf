"""Experiment files, shipped or your own, and the recipes that an experiment expands to at a scale."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vsre.diagnose.metrics import HEADLINES
from vsre.errors import VsreError
from vsre.experiments.design import chosen_models
from vsre.experiments.schema import Experiment
from vsre.files import LOCKS
from vsre.recipes.expand import merge
from vsre.recipes.files import RecipeFaults, recipe_from
from vsre.recipes.near import nearest
from vsre.recipes.schema import Recipe
from vsre.recipes.steps import folder_name, name_faults

_HERE = Path(str(resources.files("vsre.experiments")))
_SHIPPED, _SCALES = _HERE / "data", _HERE / "scales"

EMBEDDED = "embedded"
"""The scale that needs nothing but the package."""
ASKED = ("reading", "primary", "compare")
"""The fields of an experiment that say how its results will be judged."""


@dataclass(frozen=True)
class Plan:
    """An experiment at a scale: a recipe for every variant, and its seeds; `command` is the command that asked for it,
    one per line if there were several, as seeds can be added."""

    experiment: Experiment
    scale: str
    recipes: dict[str, Recipe]
    seeds: tuple[int, ...]
    command: str = ""
    first: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """ASKED as it was before the first run: an experiment's file may be changed once its results are there."""

    @property
    def runs(self) -> int:
        """How many models are diagnosed, over all variants and seeds."""
        return len(self.seeds) * sum(len(recipe.models) for recipe in self.recipes.values())


def experiment_names() -> list[str]:
    """Return the names of the shipped experiments."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def scale_names() -> list[str]:
    """Return the names of the shipped scales: embedded, full, layouts."""
    return sorted(path.stem for path in _SCALES.glob("*.yaml"))


def experiment_text(name_or_path: str) -> tuple[str, str]:
    """Return the text of a shipped experiment (by name) or of a file (by path), and its source."""
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
    """Read and check an experiment. Raises VsreError if its file cannot be read, RecipeFaults with all faults."""
    text, where = experiment_text(name_or_path)
    try:
        return Experiment.model_validate(_beside(_mapping(text, where), where))
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
    """Return the recipes of an experiment at a scale.

    `scale` is a shipped one or a YAML file of the same form, which may say which of them it is `like`: what an
    experiment sets for that one then applies to it too. `changes` are KEY=VALUE, such as source.train_units=300: values
    are YAML and replace what all variants share. Raises RecipeFaults with everything that is wrong with the recipes,
    and for changes that alter none of them.
    """
    chosen = tuple(experiment.seeds if seeds is None else seeds)
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise VsreError("--seeds: give different whole numbers, none below 0.")
    for change in changes:
        if change.partition("=")[0] in ("seed", "seeds"):
            raise VsreError(
                f"--set {change}: every variant is run with each of the seeds; use --seeds, as in --seeds 0,1."
            )
    shared = _scale(scale)
    here = dict(experiment.scales.get(_like(shared, scale, experiment), {}))
    variants = merge(experiment.variants, here.pop("variants", {}))
    shared = merge(merge(shared, here), experiment.recipe)
    recipes, found = _recipes(experiment, reduce(_changed, changes, shared), variants)
    faults = [*_names(experiment, variants), *by_variant(found, len(variants))]
    if experiment.fraction is not None and len(variants) > 1:
        faults.append(f"scales: a `fraction` goes with a single variant, and {scale} has {', '.join(variants)}")
    if not faults:
        faults += [*_arms(experiment, recipes), *_idle(experiment, shared, variants, changes, recipes)]
    if faults:
        raise RecipeFaults(experiment.name, faults)
    return Plan(experiment, scale, recipes, chosen, command)


def _recipes(
    experiment: Experiment, shared: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Recipe], dict[str, list[str]]]:
    """Return the recipe of every variant that yields one, and the faults with the variants that have them."""
    recipes: dict[str, Recipe] = {}
    found: dict[str, list[str]] = {}
    if experiment.fraction is not None:
        shared = {**shared, "models": [*shared.get("models", []), *chosen_models(experiment.fraction)]}
    for name, variant in variants.items():
        raw = merge({"name": experiment.name, "title": experiment.title}, merge(shared, variant))
        recipe, mistakes = recipe_from(raw, f"{experiment.name}: {name}")
        for mistake in mistakes:
            found.setdefault(mistake, []).append(name)
        if recipe is not None:  # a scale may have data that no arm of this experiment uses
            recipes[name] = recipe.rows([model.name for model in recipe.models])
    return recipes, found


def by_variant(found: Mapping[str, Sequence[str]], variants: int) -> list[str]:
    """List each fault once, with the variants that have it unless all do."""
    return [fault if len(where) == variants else f"{', '.join(where)}: {fault}" for fault, where in found.items()]


def _like(scale: dict[str, Any], name: str, experiment: Experiment) -> str:
    """Return the scale whose settings in the experiment apply to this one; removes `like` from it."""
    stem = Path(name).stem
    like = scale.pop("like", stem)
    if like != stem and like not in scale_names():
        raise VsreError(f"{name}: like: no scale {like!r}. {nearest(str(like), scale_names())}")
    if experiment.scales and like not in (*experiment.scales, *scale_names()):
        raise VsreError(
            f"{name}: {experiment.name} has settings of its own for {', '.join(experiment.scales)}. Say which scale "
            f"this one is like, such as `like: {next(iter(experiment.scales))}`, or name it in the experiment."
        )
    return str(like)


def _names(experiment: Experiment, variants: Iterable[str]) -> Iterator[str]:
    """Yield scales whose name is nearly a shipped one, and variants that would share a folder."""
    for name in experiment.scales:
        if name not in scale_names() and difflib.get_close_matches(name, scale_names(), n=1, cutoff=0.8):
            yield f"scales: no scale {name!r}. {nearest(name, scale_names())}"
    yield from name_faults("variants", variants)
    for name in variants:
        if folder_name(name) == LOCKS:
            yield f"variants: {name!r}: a run has a folder {LOCKS} of its own. Choose another name."


def _arms(experiment: Experiment, recipes: dict[str, Recipe]) -> Iterator[str]:
    """Yield what is compared but is not an arm, or plotted but is not a factor of any."""
    arms = [f"{variant}: {model.name}" for variant, recipe in recipes.items() for model in recipe.models]
    elsewhere = {name for at in experiment.scales.values() for name in at.get("variants", {})} - recipes.keys()
    for side in (s for contrast in experiment.compare for s in (contrast.before, contrast.after)):
        if side not in arms and not side.startswith(tuple(f"{variant}: " for variant in elsewhere)):
            yield f"compare: {side!r} is not an arm. {nearest(side, arms)}"
    yield from _packs(experiment, recipes)
    factors = {name for recipe in recipes.values() for model in recipe.models for name in model.factors}
    for plot in experiment.plots:
        for name in (plot.x, plot.by):
            if name is not None and name not in factors:
                yield f"plot {plot.name}: no arm has a factor {name!r}. {nearest(name, factors)}"
        if plot.kind == "effects" and experiment.fraction is None:
            yield f"plot {plot.name}: effects are those of a `fraction`, which this experiment does not have"


def _packs(experiment: Experiment, recipes: Mapping[str, Recipe]) -> Iterator[str]:
    """Yield packs that are needed but not asked: those of all `primary` figures, or any one if `primary` is not set."""
    lacking: dict[str, list[str]] = {}
    needed = {figure: HEADLINES[figure] for figure in experiment.primary}
    for variant, recipe in recipes.items():
        missing = {figure: pack for figure, pack in needed.items() if pack not in recipe.diagnose.packs}
        if "primary" not in experiment.model_fields_set:
            if len(missing) == len(needed):
                lacking.setdefault(f"diagnose.packs: one of {', '.join(needed.values())} is needed.", []).append(
                    variant
                )
            continue
        for figure, pack in missing.items():
            fault = f"primary: {figure} needs the pack {pack}; add it to diagnose.packs, or leave {figure} out."
            lacking.setdefault(fault, []).append(variant)
    yield from by_variant(lacking, len(recipes))


def _scale(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = _SCALES / f"{name}.yaml"
        if name not in scale_names():
            raise VsreError(f"There is no scale {name!r}. {nearest(name, scale_names())} Or give a file.")
    if not path.is_file():
        raise VsreError(f"{path}: no such scale file.")
    return _beside(_mapping(path.read_text(encoding="utf-8"), str(path)), str(path))


def _beside(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Resolve each `extends` that names a file, relative to the file that it is in."""
    made: dict[str, Any] = {k: _beside(v, where) if isinstance(v, dict) else v for k, v in raw.items()}
    if str(made.get("extends")).endswith((".yaml", ".yml")):
        made["extends"] = str((Path(where).parent / made["extends"]).resolve())
    return made


def _changed(recipe: Mapping[str, Any], change: str) -> dict[str, Any]:
    """Return the recipe with KEY set to VALUE."""
    path, equals, value = change.partition("=")
    if not equals or not all(path.split(".")):
        raise VsreError(f"--set {change}: write KEY=VALUE, such as source.train_units=300.")
    try:
        new = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise VsreError(f"--set {change}: the value is not valid YAML: {error}") from error
    key, _, rest = path.partition(".")
    if rest:
        below = recipe.get(key)
        new = _changed(below if isinstance(below, Mapping) else {}, f"{rest}={value}")
    return {**recipe, key: new}


def _idle(
    experiment: Experiment,
    shared: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    changes: Sequence[str],
    recipes: dict[str, Recipe],
) -> Iterator[str]:
    """Yield changes without which the recipes would be the same, each with the reason if known."""
    data = {name for recipe in recipes.values() for name in recipe.data}
    for at, change in enumerate(changes):
        others = reduce(_changed, [*changes[:at], *changes[at + 1 :]], shared)
        try:
            without = _recipes(experiment, others, variants)
        except VsreError:  # there is no recipe without it
            continue
        if without != (recipes, {}):
            continue
        key = change.partition("=")[0]
        path = key.split(".")
        why = ""
        if over := [c for c in changes[at + 1 :] if f"{key}.".startswith(f"{c.partition('=')[0]}.")]:
            why = f" --set {over[0]} overrides it."
        elif all(_has(variant, path) for variant in variants.values()):
            why = f" Every variant has {key} of its own."
        elif _changed(others, change) == others:
            continue  # setting what is already set is allowed
        elif path[0] == "data" and len(path) > 1 and path[1] not in data:
            why = f" No arm uses the data {path[1]!r}. {nearest(path[1], data)}"
        elif path[0] in ("stages", "starts"):
            why = f" No arm uses {'.'.join(path[:2])}, or each sets this itself."
        yield f"--set {change}: changes nothing in any recipe.{why}"


def _has(mapping: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether a mapping has a value at a path, or something other than a mapping above it."""
    key, *rest = path
    below = mapping.get(key)
    return key in mapping and (not rest or not isinstance(below, Mapping) or _has(below, rest))


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VsreError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise VsreError(f"{where}: expected a mapping, found {type(raw).__name__}.")
    return raw
