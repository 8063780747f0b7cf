"""What can be measured of two things in a photograph: from their boxes and, where known, masks and a depth map.

`MEASURES` is the vocabulary of the rules in `photo_rules.yaml`. Boxes and lengths are fractions of the image's own
width and height: the thresholds were chosen on such fractions, whatever the image's shape. A measure is None if it
needs a mask or a depth map that is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.errors import VsreError
from vsre.relations.things import Pair, Thing

Mask = NDArray[np.bool_]

FEWEST_PIXELS = 16
"""A thing's depth is not measured if fewer of its pixels are known."""

_SAMPLE = 4096  # pixels per thing whose depths are compared: the measure is a share, its error below 0.01
_VISIBLE = 0.25  # share of a box that must lie outside the other for its depth to be read only there
_REACH = 3  # pixels within which masks count as meeting, at 640 pixels along the longer side


@dataclass(frozen=True, slots=True)
class DepthMap:
    """Depth at each pixel of the image, (H, W), on any scale that keeps the order; not finite where unknown.

    Values grow with the distance from the viewer (metres); with `inverse` they grow towards the viewer, like the
    disparity of Depth Anything's relative models.
    """

    values: NDArray[np.floating[Any]]
    inverse: bool = False

    def __post_init__(self) -> None:
        if np.ndim(self.values) != 2:
            raise VsreError(f"a depth map has height and width, this one is of shape {np.shape(self.values)}.")


class PhotoPair:
    """A subject and an object in a photograph, as the measures read them."""

    def __init__(
        self, subject: Thing, object: Thing, depth: DepthMap | None = None, *, boxes: Pair | None = None
    ) -> None:
        self.subject, self.object, self.depth = subject, object, depth
        self.boxes = boxes or Pair(_bare(subject), _bare(object), None)

    @cached_property
    def swapped(self) -> PhotoPair:
        """The same two with subject and object exchanged."""
        return PhotoPair(self.object, self.subject, self.depth, boxes=self.boxes.swapped)

    @cached_property
    def mirrored(self) -> PhotoPair:
        """The same two in the mirrored image."""
        depth = self.depth and DepthMap(self.depth.values[:, ::-1], self.depth.inverse)
        return PhotoPair(_mirror(self.subject), _mirror(self.object), depth)

    @cached_property
    def masks(self) -> tuple[Mask, Mask] | None:
        """Both masks, if both are known and not empty."""
        a, b = self.subject.mask, self.object.mask
        if a is None or b is None:
            return None
        a, b = np.asarray(a) > 0, np.asarray(b) > 0
        if a.ndim != 2 or a.shape != b.shape:
            raise VsreError(f"masks are (height, width) of the whole image; these are {a.shape} and {b.shape}.")
        return (a, b) if a.any() and b.any() else None

    @cached_property
    def border(self) -> tuple[float, Mask, Mask] | None:
        """Pixels between the masks (0 if they meet), and each mask's pixels within reach of the other."""
        if self.masks is None:
            return None
        from scipy.ndimage import distance_transform_edt  # type: ignore[import-untyped]

        (a, b), reach = self.masks, _reach(self.masks[0])
        to_b, to_a = (distance_transform_edt(~m) for m in (b, a))
        return max(float(to_b[a].min()) - 1, 0.0), a & (to_b <= reach), b & (to_a <= reach)

    def depths(self, which: str) -> NDArray[np.floating[Any]] | None:
        """The known depths of "subject" or "object", growing with distance; None if too few are known.

        Read inside the mask; without one, inside the box but outside the other's box if enough of it is left, since the
        area that two boxes share belongs to the nearer thing.
        """
        if self.depth is None:
            return None
        thing, other = (self.subject, self.object) if which == "subject" else (self.object, self.subject)
        values = self.depth.values
        inside = np.asarray(thing.mask) > 0 if thing.mask is not None else _filled(thing, values.shape)
        if inside.shape != values.shape:
            raise VsreError(f"the mask is {inside.shape}, the depth map {values.shape}: both are of the whole image.")
        if thing.mask is None:
            alone = inside & ~_filled(other, values.shape)
            inside = alone if alone.sum() >= _VISIBLE * inside.sum() else inside
        known = values[inside & np.isfinite(values)].astype(float)
        return None if known.size < FEWEST_PIXELS else -known if self.depth.inverse else known

    @cached_property
    def lead(self) -> float | None:
        """How often a pixel of the subject is nearer than one of the object, minus how often it is farther.

        Cliff's delta, -1 to 1: positive if the subject is nearer more often than farther, 1 if no pixel of the object
        is as near. It needs only the order of depths, so any monotone scale gives the same.
        """
        a, b = self.depths("subject"), self.depths("object")
        if a is None or b is None:
            return None
        a, b = (v[:: math.ceil(v.size / _SAMPLE)] for v in (a, np.sort(b)))
        in_front, up_to = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")  # of each subject's pixel
        return float((b.size - up_to - in_front).mean() / b.size)

    @cached_property
    def step(self) -> float | None:
        """How far apart the depths are where the masks meet, over the range of the whole map (5th to 95th
        percentile)."""
        if self.border is None or self.depth is None:
            return None
        values = self.depth.values
        if self.border[1].shape != values.shape:
            raise VsreError(f"the masks are {self.border[1].shape}, the depth map {values.shape}.")
        sides = [values[zone & np.isfinite(values)] for zone in self.border[1:]]
        finite = values[np.isfinite(values)]
        if not all(side.size for side in sides):
            return None
        low, high = np.percentile(finite, (5, 95))
        apart = abs(float(np.median(sides[0])) - float(np.median(sides[1])))
        return apart / (high - low) if high > low else 0.0

    @cached_property
    def supported(self) -> float | None:
        """The share of the columns covered by the subject's mask with the object right under its lowest pixel."""
        if self.masks is None:
            return None
        (a, b), reach = self.masks, _reach(self.masks[0])
        columns = np.flatnonzero(a.any(axis=0))
        lowest = a.shape[0] - 1 - a[::-1, columns].argmax(axis=0)
        below = [b[np.minimum(lowest + step, a.shape[0] - 1), columns] for step in range(1, reach + 1)]
        return float(np.logical_or.reduce(below).mean())


def _bare(thing: Thing) -> Thing:
    return thing if thing.mask is None else Thing(thing.box)


def _mirror(thing: Thing) -> Thing:
    x0, y0, x1, y1 = thing.box
    mask = None if thing.mask is None else np.asarray(thing.mask)[:, ::-1]
    return Thing((1 - x1, y0, 1 - x0, y1), mask, crowd=thing.crowd)


def _reach(mask: Mask) -> int:
    return max(2, round(_REACH / 640 * max(mask.shape)))


def _filled(thing: Thing, shape: tuple[int, ...]) -> Mask:
    (height, width), (x0, y0, x1, y1) = shape, thing.box
    filled = np.zeros(shape, bool)
    filled[math.floor(y0 * height) : math.ceil(y1 * height), math.floor(x0 * width) : math.ceil(x1 * width)] = True
    return filled


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: its value for a pair, what it needs ("boxes", "masks", "depth", "masks and depth") and its
    meaning."""

    value: Callable[[PhotoPair], float | None]
    needs: str
    text: str


def _smaller(p: PhotoPair, axis: int) -> float:
    """The smaller of the two boxes' extents along an axis (0 x, 1 y)."""
    return max(min(t.box[axis + 2] - t.box[axis] for t in (p.subject, p.object)), 1e-6)


def _side(axis: int, thing: Thing) -> float:
    return max(thing.box[axis + 2] - thing.box[axis], 1e-6)


def _area(thing: Thing) -> float:
    x0, y0, x1, y1 = thing.box
    return (x1 - x0) * (y1 - y0)


def _of_boxes(text: str, value: Callable[[PhotoPair], float]) -> Measure:
    return Measure(value, "boxes", text)


MEASURES: dict[str, Measure] = {
    "leftward": _of_boxes("how far the subject's centre lies left of the object's", lambda p: -p.boxes.dx),
    "ends_left": _of_boxes(
        "how far the subject's right edge lies left of the object's, in widths of the object",
        lambda p: (p.object.box[2] - p.subject.box[2]) / _side(0, p.object),
    ),
    "rightward": _of_boxes(
        "how far the subject's centre lies right of the object's, over the sum of widths (0.5: side by side)",
        lambda p: p.boxes.rdx,
    ),
    "aside": _of_boxes("the same without its sign", lambda p: abs(p.boxes.rdx)),
    "lower": _of_boxes(
        "how far the subject's centre lies below the object's, over the sum of heights (0.5: one under the other)",
        lambda p: p.boxes.dy / (_side(1, p.subject) + _side(1, p.object)),
    ),
    "bottom_above": _of_boxes(
        "how far the subject's bottom lies above the object's, in heights of the object",
        lambda p: -p.boxes.bases / _side(1, p.object),
    ),
    "bottoms_apart": _of_boxes("distance of the two bottoms", lambda p: abs(p.boxes.bases)),
    "overlap_x": _of_boxes("shared width over the smaller width", lambda p: p.boxes.overlap_x),
    "overlap_y": _of_boxes("shared height over the smaller height", lambda p: p.boxes.overlap_y),
    "apart_y": _of_boxes("height between the two over the smaller height", lambda p: p.boxes.gap_y / _smaller(p, 1)),
    "inside": _of_boxes("share of the subject's box that lies in the object's", lambda p: p.boxes.cover),
    "covers": _of_boxes("share of the object's box that the subject's covers", lambda p: p.boxes.swapped.cover),
    "nested": _of_boxes("the greater of the two", lambda p: max(p.boxes.cover, p.boxes.swapped.cover)),
    "wide": _of_boxes("width of the subject over the object's", lambda p: 1 / max(p.boxes.wider, 1e-6)),
    "gap": _of_boxes("distance between the boxes, 0 where they meet", lambda p: p.boxes.gap),
    "gap_in_sizes": _of_boxes(
        "the same over the mean of the two sizes (square roots of areas)", lambda p: p.boxes.gap / p.boxes.size
    ),
    "small": _of_boxes("area of the smaller box", lambda p: min(_area(p.subject), _area(p.object))),
    "mask_gap": Measure(
        lambda p: None if p.border is None else p.border[0] / max(p.border[1].shape),
        "masks",
        "distance between the masks over the longer side, 0 where they meet",
    ),
    "supported": Measure(
        lambda p: p.supported, "masks", "share of the subject's columns with the object right under them"
    ),
    "nearer": Measure(
        lambda p: p.lead, "depth", "how often the subject is nearer than the object, minus how often farther"
    ),
    "depth_apart": Measure(lambda p: None if p.lead is None else abs(p.lead), "depth", "the same without its sign"),
    "depth_step": Measure(
        lambda p: p.step, "masks and depth", "difference of depth where the masks meet, over the map's range"
    ),
}
"""Name -> measure."""
