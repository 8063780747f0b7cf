"""How good a detector is: average precision as COCO computes it, and precision and recall at one threshold.

For any detector of transformers, on pictures whose visible boxes are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vsre.triplets import Box
from vsre.zoo.pool import Pool
from vsre.zoo.views import View, plain_view, training_view

IOUS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""COCO's thresholds of intersection over union."""
FOUND_AT = 0.5
"""A thing counts as found if a box of its class overlaps its own this much (intersection over union)."""

Named = tuple[str, Box]
Scored = tuple[str, Box, float]


@torch.no_grad()
def detect(model: Any, processor: Any, images: Sequence[Image.Image], *, batch: int = 32) -> list[list[Scored]]:
    """All detections that a model's processor returns for each picture, boxes in fractions, best first."""
    found: list[list[Scored]] = []
    names = model.config.id2label
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        outputs = model(**processor(images=list(some), return_tensors="pt").to(model.device))
        sizes = [(1, 1)] * len(some)  # boxes stay fractions
        for row in processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes):
            order = row["scores"].argsort(descending=True).tolist()
            boxes, scores, labels = (row[k].tolist() for k in ("boxes", "scores", "labels"))
            found.append([(names[labels[i]], tuple(boxes[i]), scores[i]) for i in order])
    return found


def overlaps(a: Sequence[Box], b: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of every box with every other, (len(a), len(b))."""
    one, two = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    shared = np.maximum(np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2]), 0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (one, two)]
    union: NDArray[np.float64] = areas[0] + areas[1] - shared
    return shared / np.maximum(union, 1e-12)


def average_precision(
    found: Sequence[Sequence[Scored]], truth: Sequence[Sequence[Named]], ious: Iterable[float] = IOUS
) -> dict[str, dict[float, float]]:
    """Class -> IoU required -> average precision, for the classes that are in the truth.

    As in COCO: boxes of a class by score over all pictures, each matched to the best free box of the truth that it
    overlaps enough; precision made monotone and read at 101 recalls. No limits on number or size.
    """
    names = sorted({name for row in truth for name, _ in row})
    result = {}
    for name in names:
        scored = [(s, i, box) for i, row in enumerate(found) for n, box, s in row if n == name]
        scored.sort(key=lambda one: -one[0])
        boxes = [[box for n, box in row if n == name] for row in truth]
        tables = [overlaps([box], boxes[i])[0] for _, i, box in scored]
        total = sum(map(len, boxes))
        result[name] = {iou: _precision(scored, tables, boxes, total, iou) for iou in ious}
    return result


def _precision(scored: Any, tables: Any, boxes: Any, total: int, iou: float) -> float:
    free = [np.ones(len(some), bool) for some in boxes]
    hits = np.zeros(len(scored), bool)
    for rank, ((_, i, _), table) in enumerate(zip(scored, tables, strict=True)):
        usable = np.where(free[i], table, -1.0)
        if len(usable) and usable.max() >= iou:
            free[i][usable.argmax()] = False
            hits[rank] = True
    recall, precision = hits.cumsum() / total, hits.cumsum() / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101))
    return float(np.append(precision, 0.0)[np.minimum(at, len(precision))].mean())


@dataclass
class Presence:
    """How many of the boxes reported are right; how many of the things there are found, and how well boxed."""

    said: int = 0
    right: int = 0
    there: int = 0
    ious: list[float] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return self.right / self.said if self.said else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.there if self.there else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.said + self.there) if self.said + self.there else 1.0


def presence(
    found: Sequence[Sequence[Scored]], truth: Sequence[Sequence[Named]], threshold: float
) -> dict[str, Presence]:
    """Class -> how good boxes of at least this score are: a box is right if it overlaps (`FOUND_AT`) one of its class
    that no better box has taken; "" holds all classes together."""
    result: dict[str, Presence] = {"": Presence()}
    for row, known in zip(found, truth, strict=True):
        said = [(name, box) for name, box, score in row if score >= threshold]
        for name in {n for n, _ in (*said, *known)}:
            mine, theirs = [b for n, b in said if n == name], [b for n, b in known if n == name]
            table = overlaps(mine, theirs)
            for one in (result[""], result.setdefault(name, Presence())):
                one.said += len(mine)
                one.there += len(theirs)
            taken: set[int] = set()
            for line in table:
                best = max((j for j in range(len(theirs)) if j not in taken), key=line.__getitem__, default=None)
                if best is not None and line[best] >= FOUND_AT:
                    taken.add(best)
                    for one in (result[""], result[name]):
                        one.right += 1
                        one.ious.append(float(line[best]))
    return result


def choose_thresholds(found: Sequence[Sequence[Scored]], truth: Sequence[Sequence[Named]]) -> tuple[float, float]:
    """(the score from which a box counts, the score below which its class is taken to be absent), in steps of 0.01.

    The first has the best harmonic mean of precision and recall. The second is as high as it can be without denying
    more than two in a hundred of the things, not counting those whose class does not score at all.
    """
    steps = np.round(np.arange(0.05, 0.96, 0.01), 2).tolist()
    present = max(steps, key=lambda t: presence(found, truth, t)[""].f1)
    best = best_scores(found, truth)
    denied = {t: float((best < t).mean() - (best == 0).mean()) for t in steps if t <= present}
    return present, max(t for t in denied if denied[t] <= 0.02 or t == steps[0])


def best_scores(found: Sequence[Sequence[Scored]], truth: Sequence[Sequence[Named]]) -> NDArray[np.float64]:
    """For each class that is in each picture, the highest score of its boxes, wherever they are; 0 if there is none."""
    tops = [{name: score for name, _, score in sorted(row, key=lambda one: one[2])} for row in found]
    return np.array(
        [
            top.get(name, 0.0)
            for top, known in zip(tops, truth, strict=True)
            for name in dict.fromkeys(n for n, _ in known)
        ]
    )


def _truth(views: Sequence[View]) -> list[list[Named]]:
    return [[(n, tuple(map(float, b))) for n, b in zip(v.names, v.boxes, strict=True)] for v in views]  # type: ignore[misc]


def detector_figures(model: Any, processor: Any, pool: Pool, size: int) -> tuple[dict[str, float], dict[str, Any]]:
    """(the card's figures; those of each kind of view and of each class) on scenes that the model never saw.

    Thresholds are chosen on the scenes with even numbers as they are drawn; all figures at a threshold are from the odd
    ones.
    """
    ways: dict[str, dict[str, float]] = {}
    classes: dict[str, Any] = {}
    thresholds = (0.0, 0.0)
    for way in ("as drawn", "as in training"):
        views = [
            plain_view(pool, i, pool.images.shape[1]) if way == "as drawn" else training_view(pool, i, size, seed=1)
            for i in range(len(pool))
        ]
        truth = _truth(views)
        found = detect(model, processor, [Image.fromarray(v.image) for v in views])
        if not ways:
            thresholds = choose_thresholds(found[::2], truth[::2])
        each = average_precision(found, truth)
        there = presence(found[1::2], truth[1::2], thresholds[0])
        ways[way] = _of(each, there[""]) | {"without a box": round(float((best_scores(found, truth) == 0).mean()), 4)}
        classes = classes or _by_class(each, there)
    figures = {"threshold": thresholds[0], "threshold of absence": thresholds[1], **ways["as drawn"]}
    figures |= {f"{name}, as in training": ways["as in training"][name] for name in ("mAP .5", "precision", "recall")}
    return figures | {"scenes": len(pool)}, {"ways": ways, "classes": classes}


def _of(each: Mapping[str, Mapping[float, float]], every: Presence) -> dict[str, float]:
    return {
        "mAP .5:.95": _mean(ap for of in each.values() for ap in of.values()),
        "mAP .5": _mean(of[0.5] for of in each.values()),
        "precision": round(every.precision, 4),
        "recall": round(every.recall, 4),
        "mean IoU": _mean(every.ious),
    }


def _by_class(each: Mapping[str, Mapping[float, float]], there: Mapping[str, Presence]) -> dict[str, Any]:
    return {
        name: {
            "mAP .5:.95": _mean(each[name].values()),
            "precision": round(there[name].precision, 4) if name in there else None,
            "recall": round(there[name].recall, 4) if name in there else None,
            "things": there[name].there if name in there else 0,
        }
        for name in each
    }


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return round(float(np.mean(listed)), 4) if listed else 0.0
