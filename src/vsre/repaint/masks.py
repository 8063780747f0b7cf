"""Where inpainting may paint: the subject's box, dilated, without the object, and feathered at its outer edge.

A mask is honest if what is painted can be the whole new subject and cannot be the end of the object. Boxes show when
that is hopeless, and such rows are set aside with the reason:

- the subject takes up less than 1 % or more than 60 % of the picture;
- it covers more than half of the object's box (in 28 % of VSR's rows);
- with the object's pixels removed, less than half of the subject's box is left.

If the object's box covers over half of the subject's (a dog on a couch), removing all of it would leave too little to
paint on. Then the subject's whole box is painted (`surrounded: paint`), provided that the dilated mask leaves half of
the object's box, or the row is set aside (`surrounded: refuse`); the object's mask, if known, is the better answer.

Of VSR's 10,972 rows, with COCO's boxes and the defaults here, 444 are too small, 2,040 too large and 1,303 cover the
object, which leaves 7,185 (65 %). In 5,070 of them the object is removed or apart, in 1,802 the whole subject is
painted, and 313 cover the object once dilated: 6,872 (63 %) are usable, 5,070 (46 %) with `surrounded: refuse`. `vsre
repaint masks` counts the same for any triplets.

Boxes are fractions of the picture. A feathered mask is 255 over the subject's box, 0 outside the dilated one, and
always 0 where the object was removed: there the old pixels stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from vsre.errors import VsreError
from vsre.triplets import Box, Triplet

NO_BOXES = "the boxes of subject and object are not both known"
OUTSIDE = "a box lies outside the picture or has no area"
TOO_SMALL = "the subject is too small a part of the picture"
TOO_LARGE = "the subject is too large a part of the picture"
COVERS = "the subject covers too much of the object"
NOTHING_LEFT = "without the object too little of the subject's box is left to paint"
NO_PIXEL = "the mask is empty at the picture's size"

_SLACK = 0.005
"""COCO's boxes extend over the edge by fractions of a pixel."""

Mode = Literal["apart", "minus object", "minus object mask", "whole subject"]


class NoMask(Exception):
    """There is no honest mask; carries the reason, one of a few fixed sentences."""


class MaskSpec(BaseModel):
    """How a mask is made. `dilation` is a fraction of the box's width and height, on each side (5 to 10 % are
    published); `feather` a fraction of the picture's longer side (8 to 16 pixels of 1,024 are)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dilation: float = Field(default=0.075, ge=0, le=1)
    feather: float = Field(default=0.012, ge=0, le=0.2)
    least_area: float = Field(default=0.01, ge=0, le=1)
    most_area: float = Field(default=0.60, gt=0, le=1)
    most_cover: float = Field(default=0.50, ge=0, le=1)
    least_left: float = Field(default=0.50, ge=0, le=1)
    surrounded: Literal["paint", "refuse"] = "paint"


@dataclass(frozen=True)
class Mask:
    """Where to paint: the subject's box, that box dilated, and what is removed from it (a box, or a mask of the whole
    picture at any resolution)."""

    subject: Box
    dilated: Box
    hole: Box | NDArray[np.bool_] | None
    mode: Mode
    feather: float

    @property
    def painted(self) -> Box:
        """The smallest box around all that is painted: the dilated one, less any sides that were removed completely."""
        if self.hole is None:
            return self.dilated
        if isinstance(self.hole, tuple):
            return _less(self.dilated, self.hole)
        height, width = self.hole.shape
        inside = _inside(self.dilated, width, height) & ~self.hole
        if not inside.any():
            return self.dilated
        x, y = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
        edges = x[0] / width, y[0] / height, (x[-1] + 1) / width, (y[-1] + 1) / height
        a, b = self.dilated, tuple(map(float, edges))
        return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])

    def hard(self, width: int, height: int) -> Image.Image:
        """Mode L, 255 where the model paints and 0 elsewhere. Raises NoMask if no pixel is left."""
        inside = _inside(self.dilated, width, height) & ~self._taken_out(width, height)
        if not inside.any():
            raise NoMask(NO_PIXEL)
        return Image.fromarray(inside.astype(np.uint8) * 255)

    def soft(self, width: int, height: int) -> Image.Image:
        """Mode L, the new picture's share (of 255): a ramp from the dilated box's edge inwards, over `feather` or
        whatever room there is. The picture's own edge has no ramp. Raises NoMask like `hard`."""
        reach = self.feather * max(width, height)
        across = _ramp(self.dilated[0], self.dilated[2], self.subject[0], self.subject[2], width, reach)
        down = _ramp(self.dilated[1], self.dilated[3], self.subject[1], self.subject[3], height, reach)
        share = np.minimum(down[:, None], across[None, :])
        share[np.asarray(self.hard(width, height)) == 0] = 0
        return Image.fromarray(np.round(255 * share).astype(np.uint8))

    def _taken_out(self, width: int, height: int) -> NDArray[np.bool_]:
        if self.hole is None:
            return np.zeros((height, width), bool)
        if isinstance(self.hole, tuple):
            return _inside(self.hole, width, height)
        return np.asarray(Image.fromarray(self.hole).resize((width, height), Image.Resampling.NEAREST))


def make_mask(
    subject: Box | None, object: Box | None, spec: MaskSpec, *, object_mask: NDArray[np.generic] | None = None
) -> Mask:
    """The mask for replacing the subject; raises NoMask if there is no honest one.

    `object_mask` is a boolean or 0/1 array of the whole picture; if given, it is removed instead of the object's box.
    Raises VsreError if its shape is not (height, width).
    """
    if subject is None or object is None:
        raise NoMask(NO_BOXES)
    subject, object = _within(subject), _within(object)
    area = _area(subject)
    if area < spec.least_area:
        raise NoMask(TOO_SMALL)
    if area > spec.most_area:
        raise NoMask(TOO_LARGE)
    if _overlap(subject, object) > spec.most_cover * _area(object):
        raise NoMask(COVERS)
    dilated = _dilated(subject, spec.dilation)
    if object_mask is not None:
        taken = np.asarray(object_mask) > 0
        if taken.ndim != 2 or not taken.size:
            raise VsreError(f"The object's mask has the shape {taken.shape}; expected (height, width).")
        inside = _inside(subject, taken.shape[1], taken.shape[0])
        if (inside & ~taken).sum() < spec.least_left * inside.sum():
            raise NoMask(NOTHING_LEFT)
        return Mask(subject, dilated, taken, "minus object mask", spec.feather)
    if not _overlap(dilated, object):
        return Mask(subject, dilated, None, "apart", spec.feather)
    if area - _overlap(subject, object) >= spec.least_left * area:
        return Mask(subject, dilated, object, "minus object", spec.feather)
    if spec.surrounded == "refuse":
        raise NoMask(NOTHING_LEFT)
    if _overlap(dilated, object) > spec.most_cover * _area(object):
        raise NoMask(COVERS)
    return Mask(subject, dilated, None, "whole subject", spec.feather)


def count_masks(triplets: Iterable[Triplet], spec: MaskSpec | None = None) -> dict[str, dict[str, int]]:
    """How many triplets have an honest mask, by mode, and how many are set aside, by reason."""
    usable: Counter[str] = Counter()
    aside: Counter[str] = Counter()
    for triplet in triplets:
        try:
            usable[make_mask(triplet.subject_box, triplet.object_box, spec or MaskSpec()).mode] += 1
        except NoMask as reason:
            aside[str(reason)] += 1
    return {"usable": dict(usable.most_common()), "set_aside": dict(aside.most_common())}


def _within(box: Box) -> Box:
    x0, y0, x1, y1 = box
    # Written so that NaN is refused too.
    if not (-_SLACK <= x0 < x1 <= 1 + _SLACK and -_SLACK <= y0 < y1 <= 1 + _SLACK):
        raise NoMask(OUTSIDE)
    inside = max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise NoMask(OUTSIDE)
    return inside


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: Box, b: Box) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _less(box: Box, hole: Box) -> Box:
    """The smallest box around what a hole leaves of a box."""
    x0, y0, x1, y1 = box
    if hole[0] <= x0 and hole[2] >= x1:
        y0 = hole[3] if hole[1] <= y0 < hole[3] < y1 else y0
        y1 = hole[1] if y0 < hole[1] < y1 <= hole[3] else y1
    elif hole[1] <= y0 and hole[3] >= y1:
        x0 = hole[2] if hole[0] <= x0 < hole[2] < x1 else x0
        x1 = hole[0] if x0 < hole[0] < x1 <= hole[2] else x1
    return x0, y0, x1, y1


def _dilated(box: Box, by: float) -> Box:
    across, down = by * (box[2] - box[0]), by * (box[3] - box[1])
    return max(box[0] - across, 0.0), max(box[1] - down, 0.0), min(box[2] + across, 1.0), min(box[3] + down, 1.0)


def _inside(box: Box, width: int, height: int) -> NDArray[np.bool_]:
    """[height, width]: the pixels whose centres lie in the box."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    return ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None, :]


def _ramp(low: float, high: float, core_low: float, core_high: float, side: int, reach: float) -> NDArray[np.float64]:
    """[side]: 0 at the outer edges, 1 on the core; an edge of the picture itself has no ramp."""
    at = np.arange(side) + 0.5
    share = np.ones(side)
    for distance, room, edge in (
        (at - low * side, (core_low - low) * side, low <= 0),
        (high * side - at, (high - core_high) * side, high >= 1),
    ):
        width = min(reach, room)
        if not edge and width > 0:
            share = np.minimum(share, np.clip(distance / width, 0, 1))
    return share
