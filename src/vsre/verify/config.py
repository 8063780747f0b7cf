"""A verifier's configuration: which models look at pictures, from which score on they are believed, and what follows.

Everything is checked here, before a model is loaded. The shipped presets stand in `presets.yaml`, each default with its
source; a YAML file in the same form is as good as a preset.
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
        return PRESETS.changed(self, values)

    def of_verdicts(self) -> dict[str, Any]:
        """What decides verdicts beside the models' weights, as JSON: neither words about the configuration nor where
        and how it runs."""
        aside = dict.fromkeys(("about", "sources", "device", "batch_size", "offline", "policy"), True)
        models = {part: {"model", "revision"} for part in ("closed", "open", "depth", "masks", "judge")}
        return self.model_dump(mode="json", exclude_none=True, exclude={**aside, **models})


PRESETS = Presets(
    VerifierConfig, "vsre.verify", "verifier", "extends, closed, open", of_a_model=("revision", "prompt", "grows")
)
load_config = PRESETS.load
