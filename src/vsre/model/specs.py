"""Encoder specs: what is taken from each vision encoder, and where it lies on the picture.

The merged vision encoder of arXiv 2412.18224 reads four frozen encoders. One rule each:

- CLIP: the penultimate layer, as LLaVA-1.5 does; the CLS token is dropped (576 tokens at 336 pixels).
- SigLIP: the last layer after its final norm; it has no CLS token (729 tokens at 384 pixels).
- DINOv2: the last layer after its final norm, at 224 pixels with interpolated position embeddings; the CLS
  token is dropped (256 tokens). The checkpoint's own 518 pixels would give 1,369.
- SAM: the neck's output, 64x64x256 at 1,024 pixels, brought to 16x16 by its adapter (256 tokens).

Together 1,817 visual tokens; `EncoderSpec.with_cls` keeps both CLS tokens (577 and 257), 1,819. `EncoderSpec.at` gives
an encoder another input size or a budget of visual tokens.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.image_processing_auto import get_image_processor_config

from vsre.errors import VsreError
from vsre.model.adapters import ADAPTERS
from vsre.model.checkpoints import encoder_name, load_config
from vsre.model.encoder_families import (
    FAMILIES,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    OPENAI_MEAN,
    OPENAI_STD,
    Channels,
    Family,
)


@dataclass(frozen=True)
class EncoderSpec:
    """One vision encoder: checkpoint, input, layer, CLS token, grid and adapter.

    `hidden_size` is the width of the features (for SAM the neck's channels). `layer` counts as Python does:
    -1 is the encoder's output after its final norm, -2 the hidden state before the last block. `cls` says
    whether the features begin with a CLS token and what becomes of it. `token_budget` is the most visual tokens the
    encoder may contribute: its features are averaged to the largest square grid within it. Raises VsreError for a
    name, grid, size or budget that cannot work.
    """

    name: str
    checkpoint: str
    model_type: str
    image_size: int
    patch_size: int
    hidden_size: int
    layer: int
    cls: Literal["none", "drop", "keep"]
    mean: Channels
    std: Channels
    adapter: Literal["projector", "llava", "sam"]
    token_budget: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", self.name):
            raise VsreError(
                f"Encoder spec {self.name!r}: a name starts with a letter and has letters, digits, - and _ "
                "only, because it names the encoder's weights. Give another name."
            )
        if self.grid < 1:
            raise VsreError(
                f"Encoder spec {self.name}: {self.image_size} pixels hold no patch of {self.patch_size}. "
                "Give a larger image_size."
            )
        if self.token_budget is not None:
            if self.token_grid < 1:
                raise VsreError(
                    f"Encoder spec {self.name}: a budget of {self.token_budget} tokens leaves none for the picture. "
                    f"Give at least {1 + (self.cls == 'keep')}."
                )
        elif self.grid % self.reduction:
            raise VsreError(
                f"Encoder spec {self.name}: its grid of {self.grid}x{self.grid} is not divisible by "
                f"{self.reduction}, which the SAM adapter's two stride-2 convolutions need. Choose image_size and "
                f"patch_size so that image_size / patch_size is a multiple of {self.reduction}, or give a budget of "
                "tokens, to which the grid is resampled."
            )

    @property
    def family(self) -> Family:
        """The family of encoders that it belongs to. Raises VsreError if FAMILIES does not have it."""
        if self.model_type not in FAMILIES:
            raise VsreError(
                f"Encoder spec {self.name}: vision encoders of the kind {self.model_type!r} are not known here. There "
                f"are {', '.join(FAMILIES)}; add an entry to vsre.model.encoder_families.FAMILIES."
            )
        return FAMILIES[self.model_type]

    @property
    def grid(self) -> int:
        """Patches along one side of the encoder's input."""
        return self.image_size // self.patch_size

    @property
    def usable(self) -> int:
        """Pixels along one side that patches cover (378 of SigLIP's 384); the picture lies inside them."""
        return self.grid * self.patch_size

    @property
    def reduction(self) -> int:
        """Places along one side of the features that its adapter turns into one visual token."""
        return ADAPTERS[self.adapter].reduction

    @property
    def token_grid(self) -> int:
        """Visual tokens along one side, after the adapter."""
        most = self.grid // self.reduction
        if self.token_budget is None:
            return most
        return min(most, math.isqrt(max(0, self.token_budget - (self.cls == "keep"))))

    @property
    def feature_grid(self) -> int:
        """Places along one side of the adapter's input: the patches, or fewer if there is a budget."""
        return self.token_grid * self.reduction

    @property
    def tokens(self) -> int:
        """Visual tokens the encoder contributes to a picture."""
        return self.token_grid**2 + (self.cls == "keep")

    def with_cls(self) -> EncoderSpec:
        """The same spec with its CLS token kept, where it has one."""
        return dataclasses.replace(self, cls="keep") if self.cls == "drop" else self

    def at(self, *, image_size: int | None = None, tokens: int | None = None) -> EncoderSpec:
        """The same spec with another input size in pixels, or a budget of visual tokens; None keeps what is there."""
        return dataclasses.replace(
            self,
            image_size=self.image_size if image_size is None else image_size,
            token_budget=self.token_budget if tokens is None else tokens,
        )

    def inputs(self, pixels: torch.Tensor) -> dict[str, Any]:
        """The encoder's arguments for its pixels (B, 3, s, s)."""
        return self.family.inputs(pixels, self.patch_size)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; without a budget that field is missing, as in checkpoints older than budgets."""
        fields = dataclasses.asdict(self)
        if self.token_budget is None:
            del fields["token_budget"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EncoderSpec:
        """The spec that `to_dict` wrote."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


ENCODERS: dict[str, EncoderSpec] = {
    "clip": EncoderSpec(
        name="clip",
        checkpoint="openai/clip-vit-large-patch14-336",
        model_type="clip_vision_model",
        image_size=336,
        patch_size=14,
        hidden_size=1024,
        layer=-2,
        cls="drop",
        mean=OPENAI_MEAN,
        std=OPENAI_STD,
        adapter="projector",
    ),
    "siglip": EncoderSpec(
        name="siglip",
        checkpoint="google/siglip-so400m-patch14-384",
        model_type="siglip_vision_model",
        image_size=384,
        patch_size=14,
        hidden_size=1152,
        layer=-1,
        cls="none",
        mean=HALF,
        std=HALF,
        adapter="projector",
    ),
    "dinov2": EncoderSpec(
        name="dinov2",
        checkpoint="facebook/dinov2-base",
        model_type="dinov2",
        image_size=224,
        patch_size=14,
        hidden_size=768,
        layer=-1,
        cls="drop",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        adapter="projector",
    ),
    "sam": EncoderSpec(
        name="sam",
        checkpoint="facebook/sam-vit-base",
        model_type="sam_vision_model",
        image_size=1024,
        patch_size=16,
        hidden_size=256,
        layer=-1,
        cls="none",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        adapter="sam",
    ),
}
"""The paper's four encoders; add an entry to add one."""


def vision_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The vision part of a checkpoint's config: itself, or `vision_config` of a full CLIP, SigLIP or SAM."""
    part = config if config.model_type in FAMILIES else getattr(config, "vision_config", None)
    if part is None or part.model_type not in FAMILIES:
        raise VsreError(
            f"{config.name_or_path or config.model_type}: no vision encoder of a known kind (model_type "
            f"{config.model_type!r}). Use one of {', '.join(FAMILIES)}, or add an entry to "
            "vsre.model.encoder_families.FAMILIES."
        )
    return part


def spec_from_config(config: PreTrainedConfig, name: str, checkpoint: str) -> EncoderSpec:
    """The spec that follows from a vision config by the rule of its family."""
    vision = vision_config(config)
    family = FAMILIES[vision.model_type]
    widths = getattr(vision, family.width)
    stages = list(widths) if isinstance(widths, list | tuple) else [widths]
    patch_size = _side(getattr(vision, "patch_size", family.patch_size), name) * 2 ** (len(stages) - 1)
    # NaFlex encoders have no size of their own, only the number of patches they were trained with.
    own = getattr(vision, "image_size", None) or math.isqrt(vision.num_patches) * patch_size
    image_size = _side(own, name)
    return EncoderSpec(
        name=name,
        checkpoint=checkpoint,
        model_type=vision.model_type,
        image_size=min(image_size, family.largest_input or image_size),
        patch_size=patch_size,
        hidden_size=stages[-1],
        layer=family.layer,
        cls=family.cls,
        mean=family.mean,
        std=family.std,
        adapter=family.adapter,
    )


def _side(value: Any, name: str) -> int:
    """The side in pixels of a size that a config gives as one number or as two."""
    sides = {*value} if isinstance(value, list | tuple) else {value}
    if len(sides) != 1:
        raise VsreError(f"Encoder {name}: its pictures or patches are {value} pixels, and only squares can be placed.")
    return int(sides.pop())


def spec_from_checkpoint(checkpoint: str | Path, *, name: str | None = None) -> EncoderSpec:
    """The spec of any checkpoint of a known family: a folder, `zoo:NAME` or a hub id.

    Reads its config and, where there is one, the mean and std of its image processor; no weights. The name
    defaults to the checkpoint's last part. Raises VsreError when the checkpoint or its family is unknown.
    """
    config, path = load_config(checkpoint)
    spec = spec_from_config(config, name or encoder_name(checkpoint), str(checkpoint))
    pixels = get_image_processor_config(path)
    return dataclasses.replace(
        spec,
        mean=tuple(pixels.get("image_mean") or spec.mean),
        std=tuple(pixels.get("image_std") or spec.std),
    )


def check_spec(spec: EncoderSpec, config: PreTrainedConfig) -> None:
    """Raise VsreError if a spec contradicts the config of its checkpoint."""
    found = spec_from_config(config, spec.name, spec.checkpoint)
    for field in ("model_type", "patch_size", "hidden_size"):
        if getattr(spec, field) != getattr(found, field):
            raise VsreError(
                f"Encoder spec {spec.name}: {field} is {getattr(spec, field)!r}, but the checkpoint "
                f"{spec.checkpoint} has {getattr(found, field)!r}. Correct the spec, or take it from "
                "spec_from_checkpoint."
            )
    if spec.image_size != found.image_size and not spec.family.any_size:
        raise VsreError(
            f"Encoder spec {spec.name}: image_size is {spec.image_size}, but the checkpoint {spec.checkpoint} takes "
            f"{found.image_size} pixels only: position embeddings of a {spec.model_type} are not interpolated. Leave "
            "image_size out, or give a budget of tokens to have fewer of them."
        )
