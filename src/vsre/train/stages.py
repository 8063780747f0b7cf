"""Training stages as data: what trains, on which questions, with which settings; an ordered list in YAML.

    - name: align
      train: [adapters]
      data: [{triplets: data/painted, questions: data/painted-questions}]
    - name: expert
      train: [adapters, llm]
      data: [{triplets: data/vsr/train, questions: data/turn-g}]

Any number of stages may follow one another; the paper (arXiv 2412.18224, section 5) also trains turn-s last.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vsre.errors import VsreError

Group = Literal["encoders", "adapters", "llm"]

ALIGN_DEFAULTS: dict[str, Any] = {"lr": 1e-3, "batch_images": 256}
"""LLaVA-1.5's pre-training, where only the projector trains (hyperparameter table of arXiv 2310.03744)."""

TUNE_DEFAULTS: dict[str, Any] = {"lr": 2e-5, "batch_images": 128}
"""LLaVA-1.5's visual instruction tuning (the same table); used for every stage that trains more than
adapters.
"""

LORA_DEFAULTS: dict[str, Any] = {"lr": 2e-4, "adapters_lr": 2e-5, "batch_images": 128}
"""LLaVA-1.5's tuning with LoRA (scripts/v1_5/finetune_lora.sh of its repository): the projector learns more slowly."""

IMMATERIAL = frozenset({"micro_batch_images", "gradient_checkpointing", "save_every", "keep_checkpoints"})
"""What may change between two calls of a run: it affects memory, time and what is kept, not what is learnt."""


class Strict(BaseModel):
    """Base class: frozen, and an unknown key is an error that suggests the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values.keys() - cls.model_fields.keys():
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(cls.model_fields)}."
                raise ValueError(f"unknown key {key!r}. {hint}")
        return values


class DataSource(Strict):
    """A folder of triplets (Parquet with images) and one of questions about them, joined by triplet key."""

    triplets: Path
    questions: Path


class Lora(Strict):
    """Low-rank layers added to the language model's linear ones (arXiv 2106.09685), which train in place of its weights
    and are merged into them at the end of the stage. Values left out are those of LLaVA-1.5's finetune_lora.sh.

    rank, alpha   the layers' inner width; what they add is scaled by alpha / rank
    dropout       share of a layer's inputs that is dropped
    targets       names of linear layers, such as [q_proj, v_proj], or all-linear: all but the output layer
    quantise      4bit holds the frozen weights in NF4 (QLoRA, arXiv 2305.14314; needs bitsandbytes and a GPU)
    """

    rank: Annotated[int, Field(ge=1)] = 128
    alpha: Annotated[float, Field(gt=0)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    quantise: Literal["none", "4bit"] = "none"


class Stage(Strict):
    """One stage of training. If `lr` or `batch_images` is left out, LLaVA-1.5's value for what trains is
    used.

    shares               proportions in which the images shown come from the entries of `data`: [9, 1]. Left out, each
                         entry comes as often as it has questions
    adapters_lr          learning rate of the adapters, if it is not `lr`
    lora                 train low-rank layers in place of the language model's weights
    batch_images         images in one optimizer step, over all devices and accumulated passes
    micro_batch_images   images in one forward pass of one device; None: the device's whole share at once
    questions_per_image  the most questions about an image that share its prefix in one sequence; the rest of
                         its questions come in further sequences of the same epoch
    epochs, max_steps    every question is asked once per epoch (without `shares`); max_steps, if given, takes
                         precedence
    optimizer            adamw, or muon: Muon for matrices of hidden layers and AdamW for the rest (optimizer.py)
    warmup               share of the steps over which the learning rate rises
    save_every           steps between full-state checkpoints; the last step always makes one
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    train: Annotated[tuple[Group, ...], Field(min_length=1)]
    data: Annotated[tuple[DataSource, ...], Field(min_length=1)]
    shares: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = None
    lr: Annotated[float, Field(gt=0)]
    adapters_lr: Annotated[float, Field(gt=0)] | None = None
    lora: Lora | None = None
    batch_images: Annotated[int, Field(ge=1)]
    micro_batch_images: Annotated[int, Field(ge=1)] | None = None
    questions_per_image: Annotated[int, Field(ge=1)] = 12
    epochs: Annotated[float, Field(gt=0)] = 1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    bf16: bool = False
    gradient_checkpointing: bool = False
    save_every: Annotated[int, Field(ge=1)] = 500
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="before")
    @classmethod
    def _published_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        train = list(values.get("train", ()))
        defaults = ALIGN_DEFAULTS if train == ["adapters"] else TUNE_DEFAULTS
        if values.get("lora") is not None:
            defaults = LORA_DEFAULTS
            # A given lr applies to everything, and Muon takes only one.
            if values.get("lr") is not None or "adapters" not in train or values.get("optimizer") == "muon":
                defaults = {k: v for k, v in defaults.items() if k != "adapters_lr"}
        return {**defaults, **{k: v for k, v in values.items() if not (k in defaults and v is None)}}

    @model_validator(mode="after")
    def _fits_what_trains(self) -> Stage:
        if self.shares is not None and len(self.shares) != len(self.data):
            raise ValueError(f"shares has {len(self.shares)} numbers for {len(self.data)} entries of data")
        if self.lora and "llm" not in self.train:
            raise ValueError("lora trains layers in the language model: put llm into train, or take lora out")
        if self.adapters_lr is not None and ("adapters" not in self.train or self.optimizer == "muon"):
            raise ValueError("adapters_lr needs adapters in train and the optimizer adamw")
        return self

    def micro_batch(self, devices: int = 1) -> tuple[int, int]:
        """(images per forward pass of one device, passes accumulated per step); times `devices`, this is the batch."""
        micro = self.micro_batch_images or max(1, self.batch_images // devices)
        passes, rest = divmod(self.batch_images, micro * devices)
        if rest or not passes:
            raise VsreError(
                f"stage {self.name}: batch_images {self.batch_images} is not a multiple of "
                f"micro_batch_images {micro} x {devices} device(s). Change one of them."
            )
        return micro, passes


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg'].removeprefix('Value error, ')}" if where else error["msg"]


def parse_stages(items: Sequence[dict[str, Any] | Stage], where: str = "stages") -> tuple[Stage, ...]:
    """Check a list of stages, as read from YAML. Raises VsreError naming the stage and the key at fault."""
    stages: list[Stage] = []
    for number, item in enumerate(items, 1):
        try:
            stages.append(item if isinstance(item, Stage) else Stage.model_validate(item))
        except ValidationError as error:
            name = item.get("name", number) if isinstance(item, dict) else number
            faults = "; ".join(_sentence(e).removeprefix("Value error, ") for e in error.errors())
            raise VsreError(f"{where}: stage {name}: {faults}") from None
    names = [s.name for s in stages]
    if not stages:
        raise VsreError(f"{where}: no stage here. Give at least one.")
    if twice := {n for n in names if names.count(n) > 1}:
        raise VsreError(f"{where}: two stages are called {', '.join(sorted(twice))}. Rename one.")
    return tuple(stages)


def load_stages(path: Path | str) -> tuple[Stage, ...]:
    """Read an ordered list of stages from YAML: the list itself, or a mapping with a key `stages`."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VsreError(f"{path}: cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise VsreError(f"{path}: not valid YAML: {error}") from error
    items = content.get("stages") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise VsreError(f"{path}: a list of stages is expected, each with name, train and data.")
    return parse_stages(items, str(path))
