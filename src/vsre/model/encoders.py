"""Runs one frozen encoder on frames and lays out what is taken from it on the picture.

Whatever an encoder gives (tokens with or without CLS and registers, maps with channels first or last), its features
leave here as (B, tokens, channels), rows from the top, each from the left, or, if the adapter takes a map, as
(B, channels, n, n).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from vsre.errors import VsreError
from vsre.model.adapters import ADAPTERS
from vsre.model.frame import encoder_pixels
from vsre.model.specs import EncoderSpec


def on_device(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on a part's device. An offloaded part says "meta"; accelerate takes its inputs from where they are."""
    return tensor if device.type == "meta" else tensor.to(device)


def as_map(features: torch.Tensor) -> torch.Tensor:
    """Features of a square grid as a map (B, C, n, n); a map stays as it is."""
    if features.ndim == 4:
        return features
    n = math.isqrt(features.shape[1])
    return features.transpose(1, 2).unflatten(2, (n, n))  # (B, n * n, C) -> (B, C, n, n)


def as_tokens(cells: torch.Tensor) -> torch.Tensor:
    """A map (B, C, n, n) as (B, n * n, C), in reading order."""
    return cells.flatten(2).transpose(1, 2)


def resample(cells: torch.Tensor, n: int) -> torch.Tensor:
    """A map (B, C, m, m) on another grid: (B, C, n, n), bilinear, averaging (antialiased) where n is smaller.

    Every new cell is centred on its own place. With adaptive average pooling it is not unless n divides m: from 27 to
    24 cells per side, its windows are up to 0.44 cells off.
    """
    if cells.shape[-1] == n:
        return cells
    # Antialiasing does not support half precision on a CPU.
    new = F.interpolate(cells.float(), size=(n, n), mode="bilinear", antialias=True, align_corners=False)
    return new.to(cells.dtype)


def select_features(output: Any, spec: EncoderSpec) -> torch.Tensor:
    """What a spec takes from its encoder's output, resampled to its token budget: (B, tokens, channels), or
    (B, channels, n, n) for an adapter that takes a map.

    Raises VsreError if the output does not have the spec's grid and channels.
    """
    features = output.last_hidden_state if spec.layer == -1 else output.hidden_states[spec.layer]
    g, channels = spec.grid, spec.hidden_size
    if features.ndim == 4:
        before, cells = None, features if features.shape[1] == channels else features.permute(0, 3, 1, 2)
    else:
        extra = max(0, features.shape[1] - g * g)  # CLS and registers come before the grid
        before, tokens = features[:, :extra], features[:, extra:]
        cells = as_map(tokens) if tokens.shape[1] == g * g and (extra > 0) == (spec.cls != "none") else tokens
    if tuple(cells.shape[1:]) != (channels, g, g):
        raise VsreError(
            f"Encoder {spec.name}: its features have the shape {tuple(features.shape)}, not {g}x{g} places of "
            f"{channels} channels. Correct its spec (image_size, patch_size, hidden_size, layer, cls), or its entry in "
            "vsre.model.encoder_families.FAMILIES."
        )
    cells = resample(cells, spec.feature_grid)
    if ADAPTERS[spec.adapter].takes_map:
        return cells
    tokens = as_tokens(cells)
    return torch.cat([before[:, :1], tokens], dim=1) if before is not None and spec.cls == "keep" else tokens


def frozen_features(encoder: Any, frames: torch.Tensor, spec: EncoderSpec) -> torch.Tensor:
    """An encoder's features of frames (B, 3, S, S), uint8 or float in [0, 1], as `select_features` gives them."""
    # (B, 3, S, S) -> (B, 3, s, s)
    pixels = encoder_pixels(on_device(encoder.device, frames), spec).to(encoder.dtype)
    layers = False if spec.layer == -1 else spec.layer
    return select_features(encoder(**spec.inputs(pixels), output_hidden_states=layers), spec)
