"""Consistency between the parts of a recipe: names of data, models and protocols that must exist, and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vsre.recipes.near import nearest
from vsre.recipes.steps import name_faults
from vsre.sources.protocols import PROTOCOLS


def cross_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield every place where one part of a recipe, given as mappings, names what another does not have.

    Parts of the wrong kind are skipped: the schema refuses them.
    """
    protocol = raw.get("protocol", "clean")
    if protocol not in PROTOCOLS:
        yield f"protocol {protocol!r} is not known. {nearest(str(protocol), PROTOCOLS)}"
    data = _mapping(raw.get("data"))
    before: list[str] = []
    models = raw.get("models")
    for model in map(_mapping, models if isinstance(models, list) else []):
        name, start = str(model.get("name")), _mapping(model.get("start")).get("model")
        if name in before:
            yield f"two models have the same name, {name!r}"
        if start is not None and start not in before:
            yield f"{name}: starts from {start!r}, which is not an earlier model. {nearest(str(start), before)}"
        for other in _names(model.get("against")):
            if other not in before:
                yield f"{name}: compared with {other!r}, which is not an earlier model. {nearest(str(other), before)}"
        stages = model.get("stages")
        for stage in stages if isinstance(stages, list) else []:
            for source in _names(_mapping(stage).get("data")):
                if source not in data:
                    yield f"{name}: stage {_mapping(stage).get('name')!r} names the data {source!r}. " + nearest(
                        str(source), data
                    )
        before.append(name)
    yield from name_faults("models", before)
    yield from _data_names([*map(str, data)])
    yield from _further_sets(raw)


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _data_names(names: list[str]) -> Iterator[str]:
    """Yield faults of data names: each is a folder's name in OUT/data, also on case-insensitive file systems."""
    usable = [name for name in names if name.strip() and not re.search(r"^\.|[/\\\x00-\x1f]", name)]
    for name in names:
        if name not in usable:
            yield f"data: {name!r} must work as a folder name: no slash, no leading dot, and not empty."
    yield from name_faults("data", usable, str.casefold)


def _further_sets(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield faults of `diagnose.also`: sets of scenes need a world, and each a folder of its own."""
    sets = _mapping(_mapping(raw.get("diagnose")).get("also"))
    kind = _mapping(raw.get("source")).get("kind")
    if sets and kind != "scenes":
        yield f"diagnose.also: {', '.join(map(str, sets))}: test sets of scenes go with source.kind scenes, not {kind}."
    yield from name_faults("diagnose.also", map(str, sets))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
