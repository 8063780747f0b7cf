"""A model's features on the picture's grid at three stages: from the encoder, after its adapter, and merged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration
from vsre.model.encoders import as_map, as_tokens, resample
from vsre.model.fusion import WHOLE
from vsre.zoo.probes import at_once

MERGED = "merged"
Maps = dict[str, torch.Tensor]
"""Name of the stage -> (n, g, g, C), float32, in main memory."""


def stage_names(model: VsreForConditionalGeneration) -> list[str]:
    """The stages that `stage_maps` gives for a model: "clip, encoder", ..., "clip, projected", ..., "merged"."""
    own = [names[0] for names in _owners(model) if len(names) == 1]
    before = [f"{spec.name}, encoder" for spec in model.specs]
    return [*before, *(f"{name}, projected" for name in own), MERGED]


@torch.no_grad()
def stage_maps(model: Any, frames: torch.Tensor) -> Maps:
    """The features of frames uint8 (n, 3, S, S) at every stage.

    CLS tokens have no place on the grid and are left out. "merged" concatenates all projected tokens of a cell,
    resampled to the finest grid: what can be read at a place from all encoders together. Many frames take much memory
    (a picture's merged map is 48 MB at the paper's size): pass `at_once` of them. Raises VsreError for a model that is
    no VSRE.
    """
    if not isinstance(model, VsreForConditionalGeneration):
        raise VsreError(f"{type(model).__name__}: only VSRE models say which token is whose. Convert or train one.")
    found: dict[str, list[torch.Tensor]] = {name: [] for name in stage_names(model)}
    for some in frames.split(at_once(frames.shape[-1])):
        for name, cells in _maps(model, some):
            found[name].append(cells.float().cpu())  # where the probes are fitted
    return {name: torch.cat(parts) for name, parts in found.items()}


def _maps(model: VsreForConditionalGeneration, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    features = model.encode(frames)
    for spec in model.specs:
        own = features[spec.name]
        if own.ndim == 3 and spec.cls == "keep":
            own = own[:, 1:]
        cells = resample(as_map(own), spec.token_grid)  # SAM's 64x64 neck to its adapter's 16x16
        yield f"{spec.name}, encoder", cells.permute(0, 2, 3, 1)
    tokens = model.project(features)  # (B, N, width)
    projected = {}
    for owners, places in _owners(model).items():
        cells = as_map(tokens[:, places])
        projected[owners] = cells
        if len(owners) == 1:
            yield f"{owners[0]}, projected", cells.permute(0, 2, 3, 1)
    finest = max(cells.shape[-1] for cells in projected.values())
    merged = torch.cat([resample(cells, finest) for cells in projected.values()], dim=1)
    yield MERGED, merged.permute(0, 2, 3, 1)


def _owners(model: VsreForConditionalGeneration) -> dict[tuple[str, ...], list[int]]:
    """Encoders -> the indices of the tokens that hold their features, in reading order."""
    found: dict[tuple[str, ...], list[tuple[float, float, int]]] = {}
    for index, place in enumerate(model.fusion.places(model.specs)):
        if place.box != WHOLE or len(model.fusion.places(model.specs)) == 1:
            x, y = place.box[:2]
            found.setdefault(place.encoders, []).append((y, x, index))
    owners = {names: [index for *_, index in sorted(places)] for names, places in found.items()}
    for names, indices in owners.items():
        if math.isqrt(len(indices)) ** 2 != len(indices):
            raise VsreError(f"{', '.join(names)}: {len(indices)} tokens do not form a square grid.")
    return owners


def as_vectors(maps: torch.Tensor) -> torch.Tensor:
    """Features (n, g, g, C) as one vector per cell: (n * g * g, C)."""
    return as_tokens(maps.permute(0, 3, 1, 2)).flatten(0, 1)
