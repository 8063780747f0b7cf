"""A verifier's configuration: which models look at pictures, from which score on they are believed, and what follows.

Everything is checked here, before a model is loaded. The shipped presets stand in `presets.yaml`, each default with its
source; a YAML file in the same form is as good as a preset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vsre.errors import VsreError
from vsre.relations.ontology import RELATIONS
from vsre.repaint.verify import Policy

_OF_A_MODEL = ("revision", "prompt", "grows")
"""What another model does not inherit."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Strict):
    """A model: a hub id, a folder or `zoo:NAME`; `revision` is a branch, tag or commit of the hub."""

    model: str
    revision: str | None = None


class Detector(Part):
    """From the score `present` on a box counts, and from `absent` on it makes it doubtful that the thing is missing."""

    present: float = Field(gt=0, lt=1)
    absent: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.absent > self.present:
            raise ValueError(f"absent {self.absent} lies over present {self.present}: a box would count and not count")
        return self


class ClosedSet(Detector):
    """A detector of fixed classes. `names` adds what its labels mean: class -> labels (see `names.py` for those that
    are known)."""

    names: dict[str, tuple[str, ...]] = {}


class OpenVocabulary(Detector):
    """A detector that is told what to look for, one class at a time. `prompt` has {} in the place of "a cat" (default:
    the model family's own); `say` gives other words for a class."""

    prompt: str | None = None
    say: dict[str, str] = {}

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, value: str | None) -> str | None:
        if value is not None and value.count("{}") != 1:
            raise ValueError("the prompt needs {} once, where the class goes")
        return value


class Further(Part):
    """A model that is asked only where boxes leave one of these relations undecided."""

    relations: tuple[str, ...]

    @field_validator("relations")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [r for r in value if r not in RELATIONS]:
            raise ValueError(f"{', '.join(wrong)}: no relation of VSR")
        return value


class Depth(Further):
    """A depth estimator. Its values grow `away` from the viewer (metres) or `towards` (disparity); `auto` reads that
    from the model's configuration."""

    grows: Literal["auto", "away", "towards"] = "auto"


class Masks(Further):
    """A promptable segmenter (SAM): boxes in, masks out."""


class Judge(Part):
    """A vision-language model that is asked about what is left undecided: loaded here, or on an OpenAI-compatible
    server. `packs` adds templates to the judge's own three questions."""

    server: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(default=8, ge=1)
    quantization: Literal["4bit", "8bit"] | None = None
    packs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.server and (self.revision or self.quantization):
            raise ValueError("revision and quantization are the server's own business. Leave them out")
        return self


class VerifierConfig(_Strict):
    """See `presets.yaml` for what the fields are worth by default, and from where.

    `second_opinion` is what `open` is for where `closed` is there too: "fallback" looks for the classes that `closed`
    does not know, "agree" for all, and the two must agree. Two boxes of two detectors are one thing from the
    intersection over union `same` on, two of one detector over `duplicates`. `offline` never asks the hub.
    """

    about: str = ""
    closed: ClosedSet | None = None
    open: OpenVocabulary | None = None
    second_opinion: Literal["agree", "fallback"] = "fallback"
    same: float = Field(default=0.5, gt=0, le=1)
    duplicates: float = Field(default=0.7, gt=0, le=1)
    depth: Depth | None = None
    masks: Masks | None = None
    judge: Judge | None = None
    policy: Policy = Policy()
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    batch_size: int = Field(default=8, ge=1)
    offline: bool = False
    sources: dict[str, str] = {}

    def changed(self, **values: Any) -> VerifierConfig:
        """The configuration with other values; mappings change only what they name. Raises VsreError."""
        raw = self.model_dump(mode="json", exclude_none=True)
        return _checked(_merged(raw, {k: v for k, v in values.items() if v is not None}), "the verifier")

    def of_verdicts(self) -> dict[str, Any]:
        """What decides verdicts beside the models' weights, as JSON: neither words about the configuration nor where
        and how it runs."""
        aside = dict.fromkeys(("about", "sources", "device", "batch_size", "offline", "policy"), True)
        models = {part: {"model", "revision"} for part in ("closed", "open", "depth", "masks", "judge")}
        return self.model_dump(mode="json", exclude_none=True, exclude={**aside, **models})


def preset_names() -> list[str]:
    return list(_presets())


def load_config(name_or_path: str) -> VerifierConfig:
    """A preset by name or a YAML file by path. Raises VsreError with the place of a mistake."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        raw = _read(path)
    elif name_or_path in _presets():
        raw = {"extends": name_or_path}
    else:
        raise VsreError(
            f"There is no verifier {name_or_path!r}. Shipped: {', '.join(_presets())}; or give a YAML file."
        )
    return _checked(_extended(raw, name_or_path), name_or_path)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise VsreError(f"{path}: no such file.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VsreError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise VsreError(f"{path}: a verifier is a mapping (extends, closed, open ...); found {type(raw).__name__}.")
    return raw


@cache
def _presets() -> Mapping[str, Any]:
    text = resources.files("vsre.verify").joinpath("presets.yaml").read_text(encoding="utf-8")
    presets: Mapping[str, Any] = yaml.safe_load(text)
    return presets


def _extended(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    base = raw.get("extends")
    rest = {key: value for key, value in raw.items() if key != "extends"}
    if base is None:
        return rest
    if base not in _presets():
        raise VsreError(f"{where}: extends {base!r}, which is none of {', '.join(_presets())}.")
    return _merged(_extended(_presets()[base], where), rest)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` names; null takes a part away."""
    other = over.get("model", base.get("model")) != base.get("model")
    merged = {key: value for key, value in base.items() if not (other and key in _OF_A_MODEL)}
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _checked(raw: Mapping[str, Any], where: str) -> VerifierConfig:
    try:
        config = VerifierConfig.model_validate(raw)
    except ValidationError as error:
        raise VsreError(f"{where}: {'; '.join(_problems(error))}.") from error
    return config


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        yield f"{place + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}"
