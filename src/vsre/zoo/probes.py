"""What a frozen encoder's features tell of space, read off by linear models, beside an untrained twin.

Features are taken as VSRE takes them (layer, CLS, grid of the encoder spec), before any projector; those of SAM's neck
are averaged to the grid of its adapter. All probes are ridge regressions, fitted on scenes of one pool and
measured on scenes of another:

- class_at_place  which class covers a patch, of patches of which one object covers at least half
- position        where an object's middle is, from the mean of its patches: the share of variance explained (R2)
- relation        whether an object is left of another, and whether above it, from the means of both
- depth           whether an object is nearer than another, from the means of both
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, set_seed

from vsre.model.checkpoints import load_weights, resolve_checkpoint
from vsre.model.encoders import as_map, frozen_features
from vsre.model.specs import EncoderSpec, spec_from_checkpoint
from vsre.zoo.encoders import images_of
from vsre.zoo.evaluate import Figures
from vsre.zoo.pool import Pool

BATCH = 64
COVERED = 0.5
"""The share of a patch that an object must cover to be what is there."""
APART = 0.08
"""Middles of objects nearer than this, as a share of the picture, are neither left of nor above each other."""

Array = NDArray[Any]


@torch.no_grad()
def grid_features(encoder: Any, spec: EncoderSpec, images: torch.Tensor) -> torch.Tensor:
    """Frozen features of pictures uint8 (n, 3, S, S) on the grid of visual tokens: (n, g, g, channels), float32."""
    found = []
    for some in images.split(BATCH):
        cells = F.adaptive_avg_pool2d(as_map(frozen_features(encoder, some, spec)), spec.token_grid)  # (n, C, g, g)
        found.append(cells.float().permute(0, 2, 3, 1))
    return torch.cat(found)


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
    def of(cls, features: torch.Tensor, pool: Pool) -> Seen:
        """From grid features (n, g, g, C) of the pool's first n scenes."""
        n, g = features.shape[:2]
        cell = pool.objects.shape[1] // g
        patches, classes, objects, middles, scenes = [], [], [], [], []
        for i in range(n):
            # (g, cell, g, cell), the ragged edge of a size that g does not divide left out
            cover = np.asarray(pool.objects[i][: g * cell, : g * cell]).reshape(g, cell, g, cell)
            for k, fact in enumerate(pool.facts[i], start=1):
                share = (cover == k).mean((1, 3))  # (g, g)
                if not share.any():
                    continue
                mine = features[i][torch.from_numpy(share >= COVERED)].numpy()
                patches.append(mine)
                classes += [fact.name] * len(mine)
                weight = torch.from_numpy(share.astype(np.float32))
                objects.append((features[i] * weight[..., None]).sum((0, 1)).numpy() / share.sum())
                middles.append((fact.x, fact.y))
                scenes.append(i)
        return cls(np.concatenate(patches), np.array(classes), np.array(objects), np.array(middles), np.array(scenes))

    def pairs(self) -> tuple[Array, Array]:
        """Ordered pairs of objects of one scene, as indices (q,), (q,)."""
        a, b = np.nonzero((self.scenes[:, None] == self.scenes) & ~np.eye(len(self.scenes), dtype=bool))
        return a, b


def probe(encoder: Any, spec: EncoderSpec, train: Pool, test: Pool, *, scenes: int = 1500) -> Figures:
    """The probes of an encoder, fitted on up to `scenes` scenes of one pool and measured on all of another."""
    fitted, asked = (
        grid_features(encoder, spec, images_of(pool, range(min(n, len(pool)))))
        for pool, n in ((train, scenes), (test, len(test)))
    )
    return probe_maps(fitted, train, asked, test)


def probe_maps(fitted_maps: torch.Tensor, train: Pool, asked_maps: torch.Tensor, test: Pool) -> Figures:
    """The probes of features (n, g, g, C) of a pool's first n scenes, fitted on those of one pool and measured on those
    of another."""
    fitted, asked = Seen.of(fitted_maps, train), Seen.of(asked_maps, test)
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
    encoder = load_weights(AutoModel, resolve_checkpoint(checkpoint), torch.float32).eval()
    return {
        "trained": probe(encoder, spec, train, test),
        "untrained": probe(untrained_twin(encoder), spec, train, test),
    }


def untrained_twin(encoder: Any, seed: int = 0) -> Any:
    """The same architecture as transformers draws it for training."""
    set_seed(seed)
    return AutoModel.from_config(encoder.config).eval()


def _ridge(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


def _classified(features: Array, labels: Array, asked: Array, truth: Array) -> float:
    return round(float(_ridge(RidgeClassifier(1.0)).fit(features, labels).score(asked, truth)), 4)


def _relation(fitted: Seen, asked: Seen) -> float:
    """Mean accuracy of "is left of" and "is above", each of pairs whose middles lie apart that way."""
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
    """Accuracy of "is nearer"; a scene's things come nearest first."""
    sides = []
    for seen in (fitted, asked):
        a, b = seen.pairs()
        sides += [np.concatenate([seen.objects[a], seen.objects[b]], 1), a < b]
    return _classified(*sides)
