"""What each encoder's features say about space, before projection, after it, and merged: probes, alignment, relations.

- probes: class at a place, position, left/above and nearer/farther, by ridge regressions fitted on scenes of one pool
  and measured on another (`vsre.zoo.probes`);
- alignment: unbiased linear CKA between encoders on the same objects, before and after projection. Encoders whose
  projected features align speak the same language to the language model;
- tokens: norms of the projected tokens against those of the language model's own word embeddings, and how many
  directions they use. A norm far from that of words is a misalignment that the language model has to absorb;
- relations: distances within and between relations (arXiv 2412.18224, Table 4), of true statements with boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsre.errors import VsreError
from vsre.features.measures import class_distances, effective_rank, linear_cka
from vsre.features.stages import as_vectors, stage_maps
from vsre.model.encoders import resample
from vsre.model.frame import box_in_frame
from vsre.sources.images import load_image
from vsre.triplets import Box, Triplet, read_triplets
from vsre.zoo.encoders import images_of
from vsre.zoo.pool import Pool
from vsre.zoo.probes import Seen, batches, probe_seen

TABLE_4 = ("above", "next to", "behind", "inside", "on top of", "under", "on")
"""The relations of the paper's table."""


@dataclass(frozen=True)
class Inside:
    """`figures` as JSON; for a plot, the relation of each drawn statement and, by stage, its features (n, C)."""

    figures: dict[str, Any]
    relations: tuple[str, ...] = ()
    vectors: dict[str, NDArray[Any]] = field(default_factory=dict)


def inside(
    model: Any,
    processor: Any,
    train: Pool,
    test: Pool,
    *,
    triplets: Path | str | None = None,
    relations: Sequence[str] = TABLE_4,
    per_relation: int = 200,
    seed: int = 0,
) -> Inside:
    """Look into a VSRE model: probes fitted on the scenes of `train` and measured on those of `test`, and distances
    between up to `per_relation` true statements of each of `relations` in `triplets`, drawn by `seed`.

    Raises VsreError for a model that is no VSRE, and unless `triplets` has pictures and boxes for two of the relations.
    """
    fitted, asked = _look(model, train), _look(model, test)
    figures: dict[str, Any] = {
        "probes": {name: probe_seen(fitted.seen[name], asked.seen[name]) for name in fitted.seen},
        "alignment": _alignment(asked.coarse),
        "tokens": _tokens(model, asked),
        "scenes": {"fitted": len(train), "measured": len(test)},
    }
    if triplets is None:
        return Inside(figures)
    chosen = draw_statements(read_triplets(triplets), relations, per_relation, Random(seed))
    vectors = statement_vectors(model, processor, chosen)
    names = tuple(t.relation for t in chosen)
    figures["relations"] = {name: class_distances(found, names) for name, found in vectors.items()}
    return Inside(figures, names, vectors)


@dataclass(frozen=True)
class _Looked:
    """What is kept, by stage, of a pool's maps, which are gigabytes: what is seen on the stage's own grid, the things'
    features on the coarsest grid (o, C), the norm of each cell's features, and up to `SAMPLED` of these features."""

    seen: dict[str, Seen]
    coarse: dict[str, NDArray[Any]]
    norms: dict[str, NDArray[Any]]
    sample: dict[str, NDArray[Any]]


SAMPLED = 4096
"""How many features the rank is computed from: a sample is enough, and the decomposition is cubic."""


def _look(model: Any, pool: Pool) -> _Looked:
    rng = np.random.default_rng(0)
    seen, coarse, norms = (defaultdict[str, list[Any]](list) for _ in range(3))
    wanted: dict[str, NDArray[Any]] = {}
    sample: dict[str, NDArray[Any]] = {}
    for part in batches(len(pool), pool.images.shape[1]):
        maps = stage_maps(model, images_of(pool, part))
        coarsest = min(cells.shape[1] for cells in maps.values())
        for name, cells in maps.items():
            own = Seen.of(cells, pool, part.start)
            seen[name].append(own)
            if cells.shape[1] > coarsest:
                on_coarsest = resample(cells.permute(0, 3, 1, 2), coarsest).permute(0, 2, 3, 1)
                own = Seen.of(on_coarsest, pool, part.start)
            coarse[name].append(own.objects)
            vectors = as_vectors(cells).numpy()
            norms[name].append(np.linalg.norm(vectors, axis=1))
            a_scene = cells.shape[1] ** 2
            if name not in wanted:
                wanted[name] = rng.permutation(len(pool) * a_scene)[:SAMPLED]
                sample[name] = np.empty((len(wanted[name]), vectors.shape[1]), vectors.dtype)
            at = wanted[name] - part.start * a_scene
            here = (at >= 0) & (at < len(vectors))
            sample[name][here] = vectors[at[here]]
    return _Looked(
        {name: Seen.joined(parts) for name, parts in seen.items()},
        {name: np.concatenate(parts) for name, parts in coarse.items()},
        {name: np.concatenate(parts) for name, parts in norms.items()},
        sample,
    )


def _alignment(objects: dict[str, NDArray[Any]]) -> dict[str, dict[str, float]]:
    """ "encoder" and "projected" -> "clip ~ sam" -> CKA on the objects of a pool, all on the coarsest grid."""
    result: dict[str, dict[str, float]] = {}
    for stage in ("encoder", "projected"):
        own = [name for name in objects if name.endswith(f", {stage}")]
        result[stage] = {
            f"{a.split(',')[0]} ~ {b.split(',')[0]}": round(linear_cka(objects[a], objects[b]), 4)
            for a, b in combinations(own, 2)
        }
    return result


def _tokens(model: Any, looked: _Looked) -> dict[str, Any]:
    words = model.get_input_embeddings().weight.detach().float().norm(dim=1)
    found: dict[str, Any] = {"words": {"norm": round(float(words.mean()), 4), "norm_sd": round(float(words.std()), 4)}}
    for name, norms in looked.norms.items():
        found[name] = {
            "norm": round(float(norms.mean()), 4),
            "norm_sd": round(float(norms.std()), 4),
            "rank": round(effective_rank(looked.sample[name]), 1),
            "width": looked.sample[name].shape[1],
        }
    return found


def draw_statements(
    triplets: Iterable[Triplet], relations: Sequence[str], per_relation: int, rng: Random
) -> list[Triplet]:
    """Up to `per_relation` true statements of each relation that have picture and boxes, drawn at random."""
    found: defaultdict[str, list[Triplet]] = defaultdict(list)
    met: defaultdict[str, int] = defaultdict(int)
    wanted = set(relations)
    for triplet in triplets:
        usable = triplet.image is not None and triplet.subject_box and triplet.object_box
        if not (triplet.label and triplet.relation in wanted and usable):
            continue
        mine = found[triplet.relation]
        met[triplet.relation] += 1
        if len(mine) < per_relation:
            mine.append(triplet)
        elif (place := rng.randrange(met[triplet.relation])) < per_relation:
            mine[place] = triplet
    if sum(len(mine) > 1 for mine in found.values()) < 2:
        raise VsreError(
            f"Fewer than two of the relations {', '.join(relations)} have two true statements with picture and boxes "
            "here. Name others, or give more triplets."
        )
    return [triplet for name in relations for triplet in found.get(name, ())]


def statement_vectors(model: Any, processor: Any, triplets: Sequence[Triplet]) -> dict[str, NDArray[Any]]:
    """By stage (n, 2 C): the mean features in the subject's box, then those in the object's, each of length 1.

    A cell is weighted by the share of it that the box covers.
    """
    found: defaultdict[str, list[NDArray[Any]]] = defaultdict(list)
    for triplet in triplets:
        picture = load_image(triplet.image or b"", name=triplet.image_name)
        frame = torch.as_tensor(processor.image_processor([picture], return_tensors="pt")["pixel_values"])
        for name, cells in stage_maps(model, frame).items():
            both = []
            for box in (triplet.subject_box, triplet.object_box):
                assert box is not None
                mean = box_mean(cells[0], box_in_frame(box, *picture.size))
                both.append(mean / (np.linalg.norm(mean) or 1.0))
            found[name].append(np.concatenate(both))
    return {name: np.stack(rows) for name, rows in found.items()}


def box_mean(cells: torch.Tensor, box: Box) -> NDArray[Any]:
    """The mean of features (g, g, C) in a box (fractions of the frame), each cell weighted by the share of it that is
    covered; for a box without area, the cell it lies in."""
    g = cells.shape[0]
    edges = torch.arange(g + 1, dtype=torch.float64) / g

    def cover(low: float, high: float) -> torch.Tensor:
        shares = (torch.clamp(edges[1:], max=high) - torch.clamp(edges[:-1], min=low)).clamp(min=0)
        if shares.sum() == 0:
            shares[min(g - 1, max(0, int(low * g)))] = 1.0
        return shares

    weight = cover(box[1], box[3])[:, None] * cover(box[0], box[2])[None]  # (g, g)
    return ((cells.double() * weight[..., None]).sum((0, 1)) / weight.sum()).numpy()
