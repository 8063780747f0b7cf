"""What looking at pictures gives: pictures, boxes with scores, and the interface of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vsre.repaint.verify import iou
from vsre.triplets import Box

FLOOR = 0.01
"""Boxes with lower scores are dropped."""


@dataclass(frozen=True)
class Picture:
    """A picture to look at; `image` is None if only its name is known."""

    name: str
    image: Image.Image | None

    @property
    def shown(self) -> Image.Image:
        assert self.image is not None, "models look at pictures that could be opened"
        return self.image


@dataclass(frozen=True, slots=True)
class Detection:
    """A box (fractions of the picture) and how sure a detector is of it, 0 to 1."""

    box: Box
    score: float


Seen = Mapping[str, tuple[Detection, ...]] | None
"""Class -> its boxes in a picture, surest first; None if the detector cannot tell, because it gave no numbers or there
is no annotation."""


class Detector(Protocol):
    """Finds things of named classes."""

    name: str

    def knows(self, name: str) -> bool:
        """Whether it can look for the class."""
        ...

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[Seen]:
        """What is seen of these classes (all of them known) in each picture."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON that changes with anything that changes what it sees; known before anything is loaded."""
        ...

    def about(self) -> dict[str, Any]:
        """Its model and revision, as JSON for people."""
        ...


def detections(boxes: Any, scores: Any, size: tuple[int, int], duplicates: float) -> tuple[Detection, ...]:
    """Detections from (n, 4) boxes in pixels of a picture of `size` (width, height) and their (n,) scores.

    Boxes are clipped to the picture (OWLv2's extend beyond its shorter side); those that are then empty, not finite or
    below FLOOR are dropped. Of boxes that overlap by more than `duplicates` (intersection over union) the surest stays.
    """
    width, height = size
    pixels = np.asarray(boxes, float).reshape(-1, 4)
    fractions = (pixels / (width, height, width, height)).clip(0, 1)
    kept: list[Detection] = []
    for index in np.argsort(-np.asarray(scores, float), kind="stable"):
        (x0, y0, x1, y1), score = map(float, fractions[index]), float(scores[index])
        if not (np.isfinite(pixels[index]).all() and score >= FLOOR and x0 < x1 and y0 < y1):
            continue
        box = (x0, y0, x1, y1)
        if all(iou(box, other.box) <= duplicates for other in kept):
            kept.append(Detection(box, score))
    return tuple(kept)
