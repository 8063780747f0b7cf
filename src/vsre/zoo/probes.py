"""What linear models can read about space from a frozen encoder's features, compared with an untrained twin's.

Features are taken as VSRE takes them (layer, CLS, grid of the encoder spec), before any projector; those of SAM's neck
are averaged to the grid of its adapter. All probes are ridge regressions, fitted on scenes of one pool and
measured on scenes of another:

- class_at_place  which class covers a patch, over the patches of which one object covers at least half
- position        where an object's middle is, from the mean of its patches: the share of variance explained (R2)
- relation        whether an object is left of another, and whether above it, from the means of both
- depth           whether an object is nearer than another, from the means of both
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, set_seed

from vsre.model.build import load_encoder
from vsre.model.encoders import as_map, frozen_features
from vsre.model.specs import EncoderSpec, spec_from_checkpoint
from vsre.zoo.encoders import images_of
from vsre.zoo.evaluate import Figures
from vsre.zoo.pool import Pool

BATCH = 64
"""How many pictures of up to 224 pixels are encoded together."""
COVERED = 0.5
"""The share of a patch that an object must cover to count as what is there."""
APART = 0.08
"""Objects whose middles are closer than this share of the picture are neither left of nor above each other."""

Array = NDArray[Any]


def at_once(size: int) -> int:
    """How many pictures of `size` x `size` pixels are encoded together: fewer if they are larger."""
    return min(BATCH, max(1, BATCH * 224**2 // size**2))


@torch.no_grad()
def grid_features(encoder: Any, spec: EncoderSpec, images: torch.Tensor) -> torch.Tensor:
    """Frozen features of pictures uint8 (n, 3, S, S) on the grid of visual tokens: (n, g, g, channels), float32, in
    main memory."""
    found = []
    for some in images.split(at_once(spec.image_size)):
        cells = F.adaptive_avg_pool2d(as_map(frozen_features(encoder, some, spec)), spec.token_grid)  # (n, C, g, g)
        found.append(cells.float().permute(0, 2, 3, 1).cpu())
    return torch.cat(found)


def cell_shares(objects: Array, k: int, g: int) -> Array:
    """The share of each cell of a grid (g, g) that object `k` of a picture's `objects` (S, S) covers.

    A cell's side is a g-th of the picture's, whether or not g divides S; a pixel on an edge counts in parts.
    """
    parts = _parts(objects.shape[0], g)
    return np.asarray(parts @ (objects == k) @ parts.T / objects.shape[0] ** 2)


@cache
def _parts(size: int, g: int) -> Array:
    """How much of each pixel lies in each of g cells along a side, (g, size), in g-ths of a pixel.

    Whole numbers, so that a cell that is exactly half covered has the share 0.5.
    """
    cells, pixels = np.arange(g)[:, None], np.arange(size)[None]
    high, low = np.minimum((cells + 1) * size, (pixels + 1) * g), np.maximum(cells * size, pixels * g)
    return np.maximum(high - low, 0).astype(np.float64)


@dataclass(frozen=True)
class Seen:
    """A pool as the probes need it: patches (p, C) with the class of each; objects (o, C) with their middles (o, 2), as
    shares of the picture, and the scene of each."""

    patches: Array
    classes: Array
    objects: Array
    middles: Array
    scenes: Array

    @classmethod
    def of(cls, features: torch.Tensor, pool: Pool, start: int = 0) -> Seen:
        """From grid features (n, g, g, C) of the pool's scenes from `start` on."""
        g, width = features.shape[1], features.shape[-1]
        patches, objects = [np.empty((0, width), np.float32)], []
        classes: list[str] = []
        middles, scenes = [], []
        for i, own in enumerate(features, start):
            drawn = np.asarray(pool.objects[i])
            for k, fact in enumerate(pool.facts[i], start=1):
                share = cell_shares(drawn, k, g)
                if not share.any():
                    continue
                mine = own[torch.from_numpy(share >= COVERED)].numpy()
                patches.append(mine)
                classes += [fact.name] * len(mine)
                weight = torch.from_numpy(share.astype(np.float32))
                objects.append((own * weight[..., None]).sum((0, 1)).numpy() / share.sum())
                middles.append((fact.x, fact.y))
                scenes.append(i)
        return cls(
            np.concatenate(patches),
            np.array(classes, str),
            np.array(objects).reshape(-1, width),
            np.array(middles).reshape(-1, 2),
            np.array(scenes, int),
        )

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """One Seen of a pool whose scenes were taken in parts, in order."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def pairs(self) -> tuple[Array, Array]:
        """Ordered pairs of objects of one scene, as indices (q,), (q,)."""
        a, b = np.nonzero((self.scenes[:, None] == self.scenes) & ~np.eye(len(self.scenes), dtype=bool))
        return a, b


def probe(encoder: Any, spec: EncoderSpec, train: Pool, test: Pool, *, scenes: int = 1500) -> Figures:
    """The probes of an encoder, fitted on up to `scenes` scenes of one pool and measured on all of another."""

    def seen(pool: Pool, n: int) -> Seen:
        parts = batches(n, spec.image_size)  # a map of all scenes would be gigabytes
        return Seen.joined([Seen.of(grid_features(encoder, spec, images_of(pool, p)), pool, p.start) for p in parts])

    return probe_seen(seen(train, min(scenes, len(train))), seen(test, len(test)))


def batches(n: int, size: int) -> list[range]:
    """The indices of n pictures of `size` pixels, in the batches that are encoded together."""
    return [range(start, min(start + at_once(size), n)) for start in range(0, n, at_once(size))]


def probe_maps(fitted_maps: torch.Tensor, train: Pool, asked_maps: torch.Tensor, test: Pool) -> Figures:
    """The probes of features (n, g, g, C) of a pool's first n scenes, fitted on those of one pool and measured on those
    of another."""
    return probe_seen(Seen.of(fitted_maps, train), Seen.of(asked_maps, test))


def probe_seen(fitted: Seen, asked: Seen) -> Figures:
    """The probes, fitted on what is seen of one pool and measured on what is seen of another."""
    return {
        "class_at_place": _classified(fitted.patches, fitted.classes, asked.patches, asked.classes),
        "position": round(
            float(_ridge(Ridge(1.0)).fit(fitted.objects, fitted.middles).score(asked.objects, asked.middles)), 4
        ),
        "relation": _relation(fitted, asked),
        "depth": _depth(fitted, asked),
        "patches": float(len(asked.classes)),
        "objects": float(len(asked.objects)),
    }


def probe_checkpoint(checkpoint: str, train: Pool, test: Pool) -> dict[str, Figures]:
    """`probe` of a checkpoint (zoo:NAME, a folder, a hub id) as "trained", and of its twin as "untrained"."""
    spec = spec_from_checkpoint(checkpoint)
    encoder = load_encoder(spec, torch.float32).eval()
    return {
        "trained": probe(encoder, spec, train, test),
        "untrained": probe(untrained_twin(encoder), spec, train, test),
    }


def untrained_twin(encoder: Any, seed: int = 0) -> Any:
    """The same architecture with transformers' random initial weights."""
    set_seed(seed)
    return AutoModel.from_config(encoder.config).eval()


def _ridge(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


def _classified(features: Array, labels: Array, asked: Array, truth: Array) -> float:
    return round(float(_ridge(RidgeClassifier(1.0)).fit(features, labels).score(asked, truth)), 4)


def _relation(fitted: Seen, asked: Seen) -> float:
    """Mean accuracy of "is left of" and "is above", each over pairs whose middles are apart in that direction."""
    scores = []
    for axis in (0, 1):
        sides = []
        for seen in (fitted, asked):
            a, b = seen.pairs()
            gap = seen.middles[a, axis] - seen.middles[b, axis]
            clear = np.abs(gap) > APART
            a, b = a[clear], b[clear]
            sides += [np.concatenate([seen.objects[a], seen.objects[b]], 1), gap[clear] < 0]
        scores.append(_classified(*sides))
    return round(float(np.mean(scores)), 4)


def _depth(fitted: Seen, asked: Seen) -> float:
    """Accuracy of "is nearer"; a scene's objects are listed nearest first."""
    sides = []
    for seen in (fitted, asked):
        a, b = seen.pairs()
        sides += [np.concatenate([seen.objects[a], seen.objects[b]], 1), a < b]
    return _classified(*sides)
