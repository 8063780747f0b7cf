"""Recipe files, shipped or your own: read, expanded and checked; all mistakes are reported at once."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vsre.errors import VsreError
from vsre.recipes.consistency import cross_faults
from vsre.recipes.expand import FILE_KEYS, expand
from vsre.recipes.near import nearest
from vsre.recipes.schema import UNTIED, Recipe

_SHIPPED = Path(str(resources.files("vsre.recipes").joinpath("data")))


class RecipeFaults(VsreError):
    """Everything that is wrong with a recipe, one sentence each; the command line prints one per line."""

    def __init__(self, where: str, faults: list[str]) -> None:
        self.where, self.faults = where, faults
        said = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(f"{where}: {len(faults)} thing{'s' * (len(faults) != 1)} to fix in this recipe:{said}")


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes; those in a subfolder (base/paper) are only extended by others."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def recipe_text(name_or_path: str) -> tuple[str, str]:
    """Return the text of a shipped recipe (by name) or of a file (by path), and its source."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise VsreError(f"{path}: no such recipe file.")
        return path.read_text(encoding="utf-8"), str(path)
    shipped = _SHIPPED / f"{name_or_path}.yaml"
    if name_or_path.startswith(".") or ".." in path.parts or not shipped.is_file():
        raise VsreError(f"There is no recipe {name_or_path!r}. {nearest(name_or_path, recipe_names())} Or give a file.")
    return shipped.read_text(encoding="utf-8"), name_or_path


def load_recipe(name_or_path: str, *, protocol: str | None = None) -> Recipe:
    """Read, expand and check a recipe; `protocol` replaces the recipe's own.

    Raises VsreError for a file that cannot be read, and RecipeFaults with every mistake and its place in the recipe.
    """
    recipe, faults = read_recipe(name_or_path, protocol=protocol)
    if recipe is None or faults:
        raise RecipeFaults(name_or_path, faults)
    return recipe


def read_recipe(name_or_path: str, *, protocol: str | None = None) -> tuple[Recipe | None, list[str]]:
    """Like `load_recipe`, but return the valid part of the recipe and the mistakes, so that the former can be checked.

    Models with a mistake of their own are left out; without a valid source and data there is no recipe.
    """
    return recipe_from(*_read(name_or_path), protocol=protocol)


def recipe_from(raw: dict[str, Any], where: str, *, protocol: str | None = None) -> tuple[Recipe | None, list[str]]:
    """Do what `read_recipe` does, for a recipe file's content; `where` is the name or path it is from."""
    faults: list[str] = []
    whole = expand(raw, where, _read_from, faults)
    for key in [key for key in whole if key not in Recipe.model_fields]:
        del whole[key]
        faults.append(f"unknown key {key!r}. {nearest(str(key), (*Recipe.model_fields, *FILE_KEYS))}")
    if protocol is not None:
        whole["protocol"] = protocol
    tied = [*cross_faults(whole)]
    try:
        recipe: Recipe | None = Recipe.model_validate(whole, context=UNTIED)
    except ValidationError as error:
        errors = error.errors()
        faults += [_sentence(e, whole) for e in errors]
        recipe = _without_faulty_models(whole, [e["loc"] for e in errors])
    return recipe, [*faults, *tied]


def _without_faulty_models(whole: dict[str, Any], places: list[tuple[int | str, ...]]) -> Recipe | None:
    """Return the recipe without the models that have these errors; None if an error is elsewhere."""
    if any(place[:1] != ("models",) or len(place) < 2 for place in places):
        return None
    faulty = {place[1] for place in places}
    models = [model for at, model in enumerate(whole["models"]) if at not in faulty]
    return Recipe.model_validate(whole | {"models": models}, context=UNTIED)


def as_yaml(recipe: Recipe) -> str:
    """Return a recipe as the plain YAML that it stands for: no grid, no inheritance, stages with all defaults."""
    raw = recipe.model_dump(mode="json", exclude_defaults=True)
    for model, spec in zip(raw["models"], recipe.models, strict=True):
        stages = []
        for given, parsed in zip(spec.stages, spec.parsed_stages(), strict=True):
            written = parsed.model_dump(mode="json", exclude={"data"}, exclude_none=True)
            if "questions_per_image" not in parsed.model_fields_set:  # a `vlm` must not have it
                del written["questions_per_image"]
            stages.append(written | {"data": given["data"]})
        if stages:
            model["stages"] = stages
    text: str = yaml.safe_dump(raw, sort_keys=False, width=110, allow_unicode=True)
    return text


def _sentence(error: Any, whole: dict[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence, with the name of the model or data set that it is in."""
    place = list(error["loc"])
    if place[:1] == ["models"] and len(place) > 1:
        name = whole["models"][place[1]].get("name") if isinstance(whole["models"][place[1]], dict) else None
        place[:2] = [name or f"model {place[1] + 1}"]
    said = error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, place))}: {said}" if place else said


def _read(name_or_path: str) -> tuple[dict[str, Any], str]:
    text, where = recipe_text(name_or_path)
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VsreError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise VsreError(f"{where}: a recipe is a mapping with name, source, data, models; found {type(raw).__name__}.")
    return raw, where


def _read_from(name: str, where: str) -> tuple[dict[str, Any], str]:
    """Read what a recipe extends: a path is relative to the folder of the recipe that names it."""
    return _read(str(Path(where).parent / name) if name.endswith((".yaml", ".yml")) else name)
