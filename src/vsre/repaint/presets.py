"""A diffusion painter's configuration: its weights, its numbers in each setting, and what it runs on.

Everything is checked here, before a model is loaded. The shipped presets are in `presets.yaml`, each default with its
source; a YAML file of your own in the same form works just as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from vsre.errors import VsreError
from vsre.presets import Presets
from vsre.repaint.masks import MaskSpec
from vsre.repaint.painter import SETTINGS, Setting
from vsre.repaint.prompts import PromptSpec

SafetensorsName = Annotated[str, StringConstraints(pattern=r"^[^\\]+\.safetensors$")]
"""A file in the one format that holds numbers and nothing that could run."""

FAR = 0.1
"""If a strength is run at less than asked for by more than this, it is reported."""

MULTIPLE = 8
"""Sides are multiples of the VAE's factor; the library silently rounds others down."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Strict):
    """A component: a hub repository or a folder, either whole (as `save_pretrained` writes it) or one file of it."""

    model: str
    revision: str | None = None
    subfolder: str | None = None
    variant: str | None = None
    file: SafetensorsName | None = None


class Lora(_Strict):
    """A LoRA: a safetensors file in a hub repository or folder, and how strongly it counts."""

    model: str
    file: SafetensorsName
    revision: str | None = None
    weight: float = 1.0


class Scheduler(_Strict):
    """One of diffusers' schedulers; `options` change the configuration that the model came with."""

    name: Literal[
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "LCMScheduler",
        "UniPCMultistepScheduler",
    ]
    options: dict[str, str | float | bool] = {}


class Words(_Strict):
    """Numbers for text-to-image."""

    steps: int = Field(ge=1)
    guidance: float = Field(ge=0)


class FromPhoto(Words):
    """Numbers for the settings that start from a photo: int(steps x strength) steps are run."""

    strength: float = Field(gt=0, le=1)

    @property
    def strength_run(self) -> float:
        """The strength that whole steps amount to, roughly; a scheduler's step spacing shifts it a little."""
        return int(self.steps * self.strength) / self.steps

    @model_validator(mode="after")
    def _something_to_do(self) -> FromPhoto:
        if int(self.steps * self.strength) < 1:
            raise ValueError(
                f"{self.steps} steps x strength {self.strength} = {self.steps * self.strength:.2g}: not one step would "
                f"be run. Give at least {-int(-1 // self.strength)} steps, or more strength"
            )
        return self


class Inpainting(FromPhoto):
    strength: float = Field(
        gt=0, lt=1, description="never 1: that drops what surrounds the mask (diffusers 4858, 8450); 0.99 is published"
    )


class DiffusionConfig(_Strict):
    """A diffusion painter's configuration; see `presets.yaml` for the default values and their sources.

    `size` is text-to-image's width and height; photos get at most as many pixels, in their own shape. `fp16_vae` is
    used in float16. `offload` moves components ("model") or layers ("sequential") to the GPU only while they are used:
    less memory, more time. `classes` and `relations` are the only ones that the model knows, if it knows few; it is
    never asked for others. With `encoding` jpeg, files are about a third as large, and pixels outside a mask are
    nearly, not exactly, the photo's. `offline` never contacts the hub.
    """

    about: str = ""
    licence: str = ""
    model: str
    revision: str | None = None
    variant: str | None = None
    unet: Weights | None = None
    inpaint_unet: Weights | None = None
    fp16_vae: Weights | None = None
    loras: tuple[Lora, ...] = ()
    scheduler: Scheduler | None = None
    size: tuple[int, int] = (1024, 1024)
    t2i: Words | None = None
    i2i: FromPhoto | None = None
    inpaint: Inpainting | None = None
    mask: MaskSpec = MaskSpec()
    prompts: PromptSpec = PromptSpec()
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    batch_size: int = Field(default=4, ge=1)
    encoding: Literal["png", "jpeg"] = "png"
    offline: bool = False
    classes: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> DiffusionConfig:
        if not self.settings:
            raise ValueError("no setting: give the numbers of t2i, i2i or inpaint")
        if any(side < MULTIPLE or side % MULTIPLE for side in self.size):
            raise ValueError(f"size {self.size[0]} x {self.size[1]}: both must be multiples of {MULTIPLE}")
        if self.loras and self.inpaint_unet is not None:
            raise ValueError(
                "loras belong to one UNet: with an inpaint_unet it is unclear which. Leave one of them out"
            )
        without = [s for s in self.settings if self.numbers(s).guidance <= 1]
        if self.prompts.negative and without:
            raise ValueError(
                f"the negative prompt does nothing in {', '.join(without)}, where guidance is 1 or less. Leave it out"
            )
        if self.offload != "none" and self.device in ("cpu", "mps"):
            raise ValueError(f"offload moves weights off a GPU; the device is {self.device}")
        return self

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(s for s in SETTINGS if getattr(self, s) is not None)

    def numbers(self, setting: Setting) -> Words:
        """Steps, guidance and, starting from a photo, strength; the setting must be one of `settings`."""
        found: Words = getattr(self, setting)
        return found

    def far_from_asked(self) -> dict[Setting, FromPhoto]:
        """The settings whose few steps are run at a strength far from the one asked for."""
        numbers = {s: n for s in self.settings if isinstance(n := self.numbers(s), FromPhoto)}
        return {s: n for s, n in numbers.items() if n.strength - n.strength_run > FAR + 1e-9}

    def changed(self, **values: Any) -> DiffusionConfig:
        """The configuration with those values replaced that are not None; mappings change only what they name. Raises
        VsreError if the result is invalid."""
        return PRESETS.changed(self, values)

    def only(self, settings: Sequence[str]) -> DiffusionConfig:
        """The configuration with only these settings. Raises VsreError for one that it does not have."""
        if missing := [s for s in settings if s not in self.settings]:
            raise VsreError(f"{', '.join(missing)}: the painter has {', '.join(self.settings)}.")
        return self.model_copy(update={s: None for s in self.settings if s not in settings})

    def with_numbers(self, **values: float | None) -> DiffusionConfig:
        """The configuration with these steps, guidance and strength in every setting that has them; None leaves a
        number unchanged. Raises VsreError."""
        given = {k: v for k, v in values.items() if v is not None}
        fields = {s: type(self.numbers(s)).model_fields for s in self.settings}
        return self.changed(**{s: {k: v for k, v in given.items() if k in fields[s]} for s in self.settings})


PRESETS = Presets(
    DiffusionConfig,
    "vsre.repaint",
    "painter",
    "model, t2i, i2i, inpaint",
    of_a_model=("revision", "variant", "about", "licence"),
    beside=("scene",),
)
load_config = PRESETS.load
