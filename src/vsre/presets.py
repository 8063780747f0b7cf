"""Named configurations: presets that a package ships in its `presets.yaml`, and YAML files of the same form.

Either may say `extends: PRESET` and then only what differs. If it names another `model`, what the preset says about its
own model (its revision ...) is not inherited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vsre.errors import VsreError

Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True)
class Presets(Generic[Config]):
    """The presets of `package`, each a `config`.

    Error messages call a preset a `what`, give `parts` as examples of its keys, and also list `beside`, names that are
    known elsewhere. `of_a_model`: the keys that are not inherited when `model` changes.
    """

    config: type[Config]
    package: str
    what: str
    parts: str
    of_a_model: tuple[str, ...]
    beside: tuple[str, ...] = ()

    @cached_property
    def shipped(self) -> Mapping[str, Any]:
        """Name -> its entry in `presets.yaml`, not validated."""
        text = resources.files(self.package).joinpath("presets.yaml").read_text(encoding="utf-8")
        shipped: Mapping[str, Any] = yaml.safe_load(text)
        return shipped

    def names(self) -> list[str]:
        return list(self.shipped)

    def load(self, name_or_path: str) -> Config:
        """The configuration of a preset (by name) or a YAML file (by path). Raises VsreError that locates a mistake."""
        path = Path(name_or_path)
        if path.suffix in {".yaml", ".yml"}:
            raw = self._read(path)
        elif name_or_path in self.shipped:
            raw = {"extends": name_or_path}
        else:
            known = ", ".join((*self.beside, *self.shipped))
            raise VsreError(f"There is no {self.what} {name_or_path!r}. Shipped: {known}; or give a YAML file.")
        return self._checked(self._extended(raw, name_or_path), name_or_path)

    def changed(self, config: Config, values: Mapping[str, Any]) -> Config:
        """The configuration updated with all values that are not None; a mapping changes only the keys it names.
        Raises VsreError if the result is not valid."""
        raw = config.model_dump(mode="json", exclude_none=True)
        given = {key: value for key, value in values.items() if value is not None}
        return self._checked(self._merged(raw, given), f"the {self.what}")

    def _read(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise VsreError(f"{path}: no such file.")
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise VsreError(f"{path}: not valid YAML: {error}") from error
        if not isinstance(raw, dict):
            raise VsreError(f"{path}: a {self.what} is a mapping ({self.parts} ...); found {type(raw).__name__}.")
        return raw

    def _extended(self, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
        base = raw.get("extends")
        rest = {key: value for key, value in raw.items() if key != "extends"}
        if base is None:
            return rest
        if base not in self.shipped:
            raise VsreError(f"{where}: extends {base!r}, which is none of {', '.join(self.shipped)}.")
        return self._merged(self._extended(self.shipped[base], where), rest)

    def _merged(self, base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
        """`base` updated with `over`; null removes a part."""
        other = over.get("model", base.get("model")) != base.get("model")
        merged = {key: value for key, value in base.items() if not (other and key in self.of_a_model)}
        for key, value in over.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = self._merged(merged[key], value) if both else value
        return merged

    def _checked(self, raw: Mapping[str, Any], where: str) -> Config:
        try:
            return self.config.model_validate(raw)
        except ValidationError as error:
            raise VsreError(f"{where}: {'; '.join(_problems(error))}.") from error


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        yield f"{place + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}"
