"""Expanding a recipe file to the plain recipe it stands for: what it extends, its named stages and its grids.

    extends: table-1                     a shipped recipe, or a file in this folder; what is given here overrides it
    stages:                              stages by name, as in a stages file but without data; null: left out
      tune: {train: [adapters, llm], bf16: true}
    starts:                              starts by name, for recipes that share their models but not their starts
      merged: {checkpoint: "zoo:merged"}
    models:                              a stage `use`s a named one and may change it
      - {name: mine, start: {use: merged}, stages: [{use: tune, data: [turn-g-11k], lr: 1.0e-5}]}
    grid:                                each entry makes models: every combination of one item from each of its axes
      - size:
          - {name: 7B, start: {vlm: llava-hf/llava-1.5-7b-hf}}
          - {name: 13B, start: {vlm: llava-hf/llava-1.5-13b-hf}, each_stage: {micro_batch_images: 1}}
        data:
          - {name: turn-g, stages: [{use: tune, data: [turn-g-11k]}]}

Mappings are merged key by key and a list replaces another, except `sources` and `notes`, which are added up. A `source`
or `fusion` of another kind, and a start that begins in another way, are taken whole, since settings of the other kind
mean nothing here. A file that gives models does not inherit a `grid`, and one with its own grid no `models`, because
its rows are those it names; an empty list gives none and drops nothing. The items of a grid are merged in the order of
its axes: names are joined by ", ", notes by "; ". `each_stage` is merged into every stage of the model and yields to
what the stage itself says. Of inherited data, a recipe keeps what its models use; its own it keeps in full, so that
mistakes there are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from vsre.errors import VsreError
from vsre.recipes.near import nearest

FILE_KEYS = ("extends", "stages", "starts", "grid")
"""What a recipe file may have besides the keys of a recipe."""

ADDED = ("sources", "notes")
"""Lists that a recipe adds to those of the recipe it extends."""

ROWS = ("models", "grid")
"""What a recipe's rows are made from: a recipe that gives one of them does not inherit the other."""

WAYS = ("checkpoint", "model", "llm", "vlm", "use")
"""How a start may begin."""

JOINED = {"name": ", ", "note": "; "}
"""Texts of grid items that are joined, and by what."""

Read = Callable[[str, str], tuple[dict[str, Any], str]]
"""Maps (name or path, the file that names it) to the YAML's mapping and its source."""


def expand(raw: dict[str, Any], where: str, read: Read, faults: list[str]) -> dict[str, Any]:
    """Return the recipe without `extends`, `stages`, `starts` and `grid`; unknown names are added to `faults`.

    Raises VsreError naming a part of the wrong kind.
    """
    whole = _extended(raw, where, read, (where,))
    named, starts, grids = whole.pop("stages", {}), whole.pop("starts", {}), whole.pop("grid", [])
    _expect(named, Mapping, f"{where}: stages", "a mapping from names to stages")
    _expect(starts, Mapping, f"{where}: starts", "a mapping from names to starts")
    models = whole.get("models", [])
    _expect(models, list, f"{where}: models", "a list of models")
    models = [*models, *grid_models(grids, where)]
    if grids or "models" in whole:
        begun = [_with_start(model, starts, faults) for model in models]
        whole["models"] = [_with_stages(model, named, where, faults) for model in begun]
    if "extends" in raw and isinstance(whole.get("data"), Mapping):
        models = _list(whole, "models")  # after expansion: a stage that is left out uses nothing
        named_data = [source for model in models for stage in _list(model, "stages") for source in _list(stage, "data")]
        if all(name in [*whole["data"]] for name in named_data):  # else the schema suggests what was meant
            kept = {*named_data, *_mapping(raw, "data")}
            whole["data"] = {name: spec for name, spec in whole["data"].items() if name in kept}
    return whole


def merge(below: Any, above: Any, key: str = "") -> Any:
    """Merge `above` over `below`: mappings key by key, `sources` and `notes` added, anything else replaced, including
    mappings of another kind."""
    if isinstance(below, Mapping) and isinstance(above, Mapping) and not _otherwise(below, above, key):
        of = {k: "start" if key == "starts" else k for k in above}
        return {**below, **{k: merge(below[k], v, of[k]) if k in below else v for k, v in above.items()}}
    if key in ADDED and isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return above


def _otherwise(below: Mapping[str, Any], above: Mapping[str, Any], key: str) -> bool:
    """Whether `above` is of another kind, or begins in another way, so that nothing in `below` applies to it."""
    if key == "start":
        old, new = ([way for way in WAYS if way in start] for start in (below, above))
        return bool(old and new) and old != new and "use" not in old  # what a start uses may be changed
    kinds = [part.get("kind") for part in (below, above)]
    return key in ("source", "fusion") and None not in kinds and kinds[0] != kinds[1]


def _extended(raw: dict[str, Any], where: str, read: Read, parents: tuple[str, ...]) -> dict[str, Any]:
    name = raw.get("extends")
    if name is None:
        return dict(raw)
    _expect(name, str, f"{where}: extends", "the name or path of one recipe")
    base, origin = read(name, where)
    if origin in parents:
        raise VsreError(f"{where}: extends {name}, which extends this recipe. Remove one `extends`.")
    below = _extended(base, origin, read, (*parents, origin))
    given = [rows for rows in ROWS if raw.get(rows)]
    if len(given) == 1:
        below = {k: v for k, v in below.items() if k not in ROWS or k == given[0]}
    return merge(below, {k: v for k, v in raw.items() if k != "extends"})


def grid_models(grids: Any, where: str) -> Iterator[dict[str, Any]]:
    """Yield the models of grids, each a mapping from axes to lists of partial models."""
    _expect(grids, list, f"{where}: grid", "a list, each entry a mapping from axes to lists of partial models")
    for number, axes in enumerate(grids, 1):
        at = f"{where}: grid {number}"
        _expect(axes, Mapping, at, "a mapping from axes to lists of partial models")
        for axis, items in axes.items():
            _expect(items, list, f"{at}, {axis}", "a list of partial models")
            for item in items:
                _expect(item, Mapping, f"{at}, {axis}", "partial models, each a mapping")
        for items in product(*axes.values()):
            model: dict[str, Any] = {}
            for item in items:
                joined = {k: by.join((model[k], item[k])) for k, by in JOINED.items() if k in model and k in item}
                model = merge(model, dict(item)) | joined
            yield model


def _with_start(model: Any, named: Mapping[str, Any], faults: list[str]) -> Any:
    """Return the model with its start expanded; anything that is not a mapping is left for the schema to refuse."""
    start = model.get("start") if isinstance(model, Mapping) else None
    if not isinstance(start, Mapping) or "use" not in start:
        return model
    own, name = {k: v for k, v in start.items() if k != "use"}, str(start["use"])
    if not isinstance(named.get(name), Mapping):
        faults.append(f"{model.get('name', 'a model')}: starts as {name!r}, not in `starts`. {nearest(name, named)}")
        return {**model, "start": own}
    return {**model, "start": merge(named[name], own, "start")}


def _with_stages(model: Any, named: Mapping[str, Any], where: str, faults: list[str]) -> Any:
    """Return the model with each stage expanded; anything that is not a mapping is left for the schema to refuse."""
    if not isinstance(model, Mapping):
        return model
    written = dict(model)
    common = written.pop("each_stage", {})
    name = model.get("name", "a model")
    _expect(common, Mapping, f"{where}: {name}, each_stage", "a mapping of what every stage of the model has")
    if isinstance(model.get("stages"), list):
        off = [name for name, stage in named.items() if stage is None]
        kept = [s for s in model["stages"] if not (isinstance(s, Mapping) and s.get("use") in off)]
        stages = [_stage(stage, common, named) for stage in kept]
        written["stages"] = [s for s in stages if not (isinstance(s, Mapping) and "use" in s)]
        for use in (str(s["use"]) for s in stages if isinstance(s, Mapping) and "use" in s):
            faults.append(f"{name}: a stage uses {use!r}, which `stages` does not have. {nearest(use, named)}")
    return written


def _stage(stage: Any, common: Mapping[str, Any], named: Mapping[str, Any]) -> Any:
    """Return a stage expanded; if the one it uses does not exist, it keeps its `use`."""
    if not isinstance(stage, Mapping):
        return stage
    if "use" not in stage:
        return merge(common, stage)
    name = str(stage["use"])
    if not isinstance(named.get(name), Mapping):
        return stage
    own = {k: v for k, v in stage.items() if k != "use"}
    return merge(merge({"name": name, **named[name]}, common), own)


def _mapping(part: Any, key: str) -> Mapping[str, Any]:
    """Return the mapping under a key, or an empty one if there is none."""
    found = part.get(key)
    return found if isinstance(found, Mapping) else {}


def _list(part: Any, key: str) -> list[Any]:
    """Return the list under a key, or an empty one if there is none."""
    found = part.get(key) if isinstance(part, Mapping) else None
    return found if isinstance(found, list) else []


def _expect(value: Any, kind: Any, at: str, what: str) -> None:
    if not isinstance(value, kind):
        raise VsreError(f"{at}: expected {what}, found {type(value).__name__}.")
