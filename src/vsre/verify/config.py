"""A verifier's configuration: which models look at pictures, the scores from which they are believed, and what follows.

Everything is checked here, before a model is loaded. The shipped presets are in `presets.yaml`, each default with its
source; a YAML file of your own in the same form works just as well.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vsre.presets import Presets
from vsre.relations.ontology import RELATIONS
from vsre.repaint.verify import Policy


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Strict):
    """A model: a hub id, a folder or `zoo:NAME`; `revision` is a branch, tag or commit on the hub."""

    model: str
    revision: str | None = None


class Detector(Part):
    """Two thresholds: a box that scores `present` or more counts, and one that scores `absent` or more makes it
    doubtful that the thing is missing."""

    present: float = Field(gt=0, lt=1)
    absent: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.absent > self.present:
            raise ValueError(f"absent {self.absent} is above present {self.present}: a box could both count and not")
        return self


class ClosedSet(Detector):
    """A detector with fixed classes. `names` adds labels that mean a class: class -> labels (see `names.py` for those
    that are known)."""

    names: dict[str, tuple[str, ...]] = {}


class OpenVocabulary(Detector):
    """A detector that is told what to look for, one class at a time. `prompt` has {} in place of "a cat" (default: the
    model family's own prompt); `say` gives other words for a class."""

    prompt: str | None = None
    say: dict[str, str] = {}

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, value: str | None) -> str | None:
        if value is not None and value.count("{}") != 1:
            raise ValueError("the prompt needs {} once, where the class goes")
        return value


class Further(Part):
    """A model that is used only if boxes leave one of these relations undecided."""

    relations: tuple[str, ...]

    @field_validator("relations")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [r for r in value if r not in RELATIONS]:
            raise ValueError(f"{', '.join(wrong)}: no relation of VSR")
        return value


class Depth(Further):
    """A depth estimator. Its values grow `away` from the viewer (metres) or `towards` the viewer (disparity); `auto`
    takes that from the model's configuration."""

    grows: Literal["auto", "away", "towards"] = "auto"


class Masks(Further):
    """A promptable segmenter (SAM): boxes in, masks out."""


class Judge(Part):
    """A vision-language model that is asked about statements left undecided: loaded here, or on an OpenAI-compatible
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
    """A verifier's configuration; see `presets.yaml` for the default values and their sources.

    `second_opinion` says how `open` is used with `closed`: "fallback" looks only for classes that `closed` does not
    know, "agree" for all classes, and the two must agree. Boxes of two detectors are one thing if their intersection
    over union is at least `same`; boxes of one detector if it is above `duplicates`. `offline` never contacts the hub.
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
        """The configuration with those values replaced that are not None; mappings change only what they name. Raises
        VsreError if the result is invalid."""
        return PRESETS.changed(self, values)

    def of_verdicts(self) -> dict[str, Any]:
        """Everything besides the models' weights that decides verdicts, as JSON: no descriptions, and nothing about
        where and how it runs."""
        aside = dict.fromkeys(("about", "sources", "device", "batch_size", "offline", "policy"), True)
        models = {part: {"model", "revision"} for part in ("closed", "open", "depth", "masks", "judge")}
        return self.model_dump(mode="json", exclude_none=True, exclude={**aside, **models})


PRESETS = Presets(
    VerifierConfig, "vsre.verify", "verifier", "extends, closed, open", of_a_model=("revision", "prompt", "grows")
)
load_config = PRESETS.load
