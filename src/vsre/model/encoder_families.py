"""Families of vision encoders: what all checkpoints of one `config.model_type` have in common, as data.

`FAMILIES` is the table; add an entry to add one. Everything else about an encoder follows from its checkpoint's config.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

Channels = tuple[float, float, float]

OPENAI_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
HALF: Channels = (0.5, 0.5, 0.5)


def as_picture(pixels: torch.Tensor, patch_size: int) -> dict[str, Any]:
    """The input of most encoders: pixels (B, 3, s, s)."""
    return {"pixel_values": pixels}


def interpolated(pixels: torch.Tensor, patch_size: int) -> dict[str, Any]:
    """The same for encoders that interpolate position embeddings if asked to; at their own size they do not."""
    return {"pixel_values": pixels, "interpolate_pos_encoding": True}


def as_patches(pixels: torch.Tensor, patch_size: int) -> dict[str, Any]:
    """Pixels (B, 3, s, s) as patches (B, g * g, p * p * 3) in reading order, as NaFlex encoders take them."""
    g, p = pixels.shape[-1] // patch_size, patch_size
    cut = pixels[..., : g * p, : g * p].unflatten(3, (g, p)).unflatten(2, (g, p))  # (B, 3, g, p, g, p)
    return {
        "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2),
        "pixel_attention_mask": None,  # no place is padding
        # The encoder reads these numbers one by one; on another device it would have to wait for each.
        "spatial_shapes": torch.tensor([[g, g]] * len(pixels), device="cpu"),
    }


@dataclass(frozen=True)
class Family:
    """What all checkpoints of one `config.model_type` have in common."""

    layer: int
    cls: Literal["none", "drop"]
    """Whether there are tokens before those of the grid (a CLS token, registers)."""
    mean: Channels
    std: Channels
    adapter: Literal["projector", "sam"] = "projector"
    width: str = "hidden_size"
    """The config's field with the features' width. If it is a list, one width per stage, the last is taken, and each
    stage after the first halves the grid."""
    patch_size: int | None = None
    """The side of a patch in pixels, if the config does not say."""
    any_size: bool = False
    """Whether pictures may have a size other than the checkpoint's own."""
    largest_input: int | None = None
    """By default inputs above this many pixels are reduced to it."""
    inputs: Callable[[torch.Tensor, int], dict[str, Any]] = as_picture
    """The encoder's arguments for pixels (B, 3, s, s) and its patch size."""


_CONVNEXT = Family(
    layer=-1, cls="none", mean=IMAGENET_MEAN, std=IMAGENET_STD, width="hidden_sizes", patch_size=4, any_size=True
)

FAMILIES: dict[str, Family] = {
    "clip_vision_model": Family(
        layer=-2, cls="drop", mean=OPENAI_MEAN, std=OPENAI_STD, any_size=True, inputs=interpolated
    ),
    "siglip_vision_model": Family(layer=-1, cls="none", mean=HALF, std=HALF, any_size=True, inputs=interpolated),
    "siglip2_vision_model": Family(layer=-1, cls="none", mean=HALF, std=HALF, any_size=True, inputs=as_patches),
    "dinov2": Family(layer=-1, cls="drop", mean=IMAGENET_MEAN, std=IMAGENET_STD, any_size=True, largest_input=224),
    "sam_vision_model": Family(
        layer=-1, cls="none", mean=IMAGENET_MEAN, std=IMAGENET_STD, adapter="sam", width="output_channels"
    ),
    "convnext": _CONVNEXT,
    "convnextv2": _CONVNEXT,
    # Its features begin with their mean, in place of a CLS token.
    "dinov3_convnext": Family(
        layer=-1,
        cls="drop",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        width="hidden_sizes",
        patch_size=4,
        any_size=True,
    ),
}
"""By `model_type`; add an entry to add a family of encoders."""
