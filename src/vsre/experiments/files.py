"""Experiment files: the shipped ones and your own, and the recipes that one stands for at a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vsre.errors import VsreError
from vsre.experiments.design import chosen_models
from vsre.experiments.schema import Experiment
from vsre.recipes.expand import merge
from vsre.recipes.files import RecipeFaults, recipe_from
from vsre.recipes.near import nearest
from vsre.recipes.schema import Recipe

_HERE = Path(str(resources.files("vsre.experiments")))
_SHIPPED, _SCALES = _HERE / "data", _HERE / "scales"

EMBEDDED = "embedded"
"""The scale that needs nothing but the package."""


@dataclass(frozen=True)
class Plan:
    """An experiment at a scale: a recipe for every variant, and its seeds."""

    experiment: Experiment
    scale: str
    recipes: dict[str, Recipe]
    seeds: tuple[int, ...]

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
    raw = _mapping(text, where)
    faults = [
        f"unknown key {key!r}. {nearest(str(key), Experiment.model_fields)}"
        for key in raw
        if key not in Experiment.model_fields
    ]
    try:
        return Experiment.model_validate({k: v for k, v in raw.items() if k in Experiment.model_fields})
    except ValidationError as error:
        said = ((".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors())
        faults += [f"{place}: {message}" for place, message in said]
    finally:
        if faults:
            raise RecipeFaults(where, faults)
    raise AssertionError("a faulty experiment is refused above")


def plan_experiment(
    experiment: Experiment,
    *,
    scale: str = EMBEDDED,
    seeds: Sequence[int] | None = None,
    changes: Sequence[str] = (),
) -> Plan:
    """The recipes of an experiment at a scale.

    `scale` is a shipped one or a YAML file in its form. `changes` are KEY=VALUE, such as source.train_units=300, over
    all else; values are YAML. Raises RecipeFaults with all that is wrong with the recipes.
    """
    shared = merge(_scale(scale), experiment.scales.get(Path(scale).stem, {}))
    shared = merge(shared, experiment.recipe)
    changed = merge(shared, _changes(changes))
    if experiment.fraction is not None:
        changed["models"] = [*changed.get("models", []), *chosen_models(experiment.fraction)]
    recipes, faults = {}, []
    for name, variant in experiment.variants.items():
        raw = merge({"name": experiment.name, "title": experiment.title}, merge(changed, variant))
        recipe, found = recipe_from(raw, f"{experiment.name}: {name}")
        faults += [f"{name}: {fault}" for fault in found]
        if recipe is not None:  # a scale may have data that no arm of this experiment uses
            recipes[name] = recipe.rows([model.name for model in recipe.models])
    arms = [f"{variant}: {model.name}" for variant, recipe in recipes.items() for model in recipe.models]
    for side in (s for contrast in experiment.compare for s in (contrast.before, contrast.after)):
        if side not in arms:
            faults.append(f"compare: {side!r} is no arm. {nearest(side, arms)}")
    if faults:
        raise RecipeFaults(experiment.name, faults)
    chosen = tuple(experiment.seeds if seeds is None else seeds)
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise VsreError("--seeds: give different whole numbers, none below 0.")
    return Plan(experiment, scale, recipes, chosen)


def _scale(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = _SCALES / f"{name}.yaml"
        if name not in scale_names():
            raise VsreError(f"There is no scale {name!r}. {nearest(name, scale_names())} Or give a file.")
    if not path.is_file():
        raise VsreError(f"{path}: no such file of a scale.")
    return _mapping(path.read_text(encoding="utf-8"), str(path))


def _changes(given: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for change in given:
        key, equals, value = change.partition("=")
        if not equals or not all(key.split(".")):
            raise VsreError(f"--set {change}: write KEY=VALUE, such as source.train_units=300.")
        try:
            at: Any = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise VsreError(f"--set {change}: its value is not valid YAML: {error}") from error
        for part in reversed(key.split(".")):
            at = {part: at}
        changes = merge(changes, at)
    return changes


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VsreError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise VsreError(f"{where}: expected a mapping, found {type(raw).__name__}.")
    return raw
