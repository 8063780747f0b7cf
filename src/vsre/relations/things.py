"""Two things in an image and the measures of one against the other, as read by the predicates of `geometry`.

Lengths are fractions of the image's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.triplets import Box


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


class Contact(StrEnum):
    """How the subject touches the object."""

    NONE = "none"
    TOUCHES = "touches"
    ON = "on"
    CARRIES = "carries"
    IN = "in"
    HOLDS = "holds"
    SHELTERED = "sheltered"
    SHELTERS = "shelters"

    @property
    def inverse(self) -> Contact:
        """How the object touches the subject."""
        return _INVERSE.get(self, self)


_INVERSE = {
    Contact.ON: Contact.CARRIES,
    Contact.CARRIES: Contact.ON,
    Contact.IN: Contact.HOLDS,
    Contact.HOLDS: Contact.IN,
    Contact.SHELTERED: Contact.SHELTERS,
    Contact.SHELTERS: Contact.SHELTERED,
}


@dataclass(frozen=True, slots=True)
class Thing:
    """What is known of one object in an image.

    `mask` is a boolean or 0/1 array of the whole image; `depth` grows with the distance from the viewer, on any scale
    whose ratios mean something (metres); `facing` is -1 if its front points to the image's left, 1 if to the right, 0
    if it points to the viewer or there is no front, None if unknown; `axis` is the direction of the long side of a long
    thing, in degrees counter-clockwise from the image's horizontal. `crowd` marks a box around many things of the
    class: it says that there are more, not where any one of them is.
    """

    box: Box
    mask: NDArray[np.generic] | None = None
    depth: float | None = None
    facing: int | None = None
    axis: float | None = None
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and how far beyond its nearest threshold the evidence lies (0 when undecided).

    `rule` names the rule that decided, such as "above: pass 1", and `reason` says why there is no verdict; only the
    rules for photographs (`photo_rules`) fill them in.
    """

    verdict: Verdict
    margin: float
    rule: str = ""
    reason: str = ""


def together(things: Sequence[Thing]) -> Thing:
    """Several things as the one group that a plural names: the box and the mask around all of them.

    The mask is known if all masks are. Raises VsreError for an empty group.
    """
    if not things:
        raise VsreError("a group of no things has no box.")
    x0, y0, x1, y1 = zip(*(t.box for t in things), strict=True)
    masks = [np.asarray(t.mask) > 0 for t in things if t.mask is not None]
    mask = np.logical_or.reduce(masks) if len(masks) == len(things) else None
    return Thing((min(x0), min(y0), max(x1), max(y1)), mask)


NO = -math.inf


class Pair:
    """The measures of a subject against an object, as read by the predicates."""

    def __init__(self, subject: Thing, object: Thing, contact: Contact | None, swapped: Pair | None = None) -> None:
        self.subject, self.object = subject, object
        ax0, ay0, ax1, ay1 = subject.box
        bx0, by0, bx1, by1 = object.box
        aw, ah, bw, bh = ax1 - ax0, ay1 - ay0, bx1 - bx0, by1 - by0
        self.dx = (ax0 + ax1 - bx0 - bx1) / 2
        self.dy = (ay0 + ay1 - by0 - by1) / 2
        self.rdx = self.dx / max(aw + bw, 1e-6)
        across, down = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
        self.overlap_x = max(across, 0.0) / max(min(aw, bw), 1e-6)
        self.overlap_y = max(down, 0.0) / max(min(ah, bh), 1e-6)
        self.gap_x, self.gap_y = -across, -down
        self.gap = math.hypot(max(-across, 0.0), max(-down, 0.0))
        self.cover = max(across, 0.0) * max(down, 0.0) / max(aw * ah, 1e-9)
        self.size = (math.sqrt(max(aw * ah, 1e-9)) + math.sqrt(max(bw * bh, 1e-9))) / 2
        self.bases = ay1 - by1
        self.off_centre = abs(self.dx) / max(bw, 1e-6)
        self.wider = bw / max(aw, 1e-6)
        self.object_aspect = bw / max(bh, 1e-6)
        self.foot = (ay1 - by0) / max(bh, 1e-6)
        known_depth = subject.depth is not None and object.depth is not None
        self.nearer = math.log(object.depth / subject.depth) if known_depth else None  # type: ignore[operator]
        self.same_depth = 0.15 - abs(self.nearer) if self.nearer is not None else 0.05 - abs(self.bases)
        # Boxes that lie apart contradict any contact that is claimed.
        self.contact = contact if contact is not None and self.gap <= 0.02 else _contact(self)
        self.free = 1.0 if self.contact in (Contact.NONE, Contact.TOUCHES) else NO
        self._swapped = swapped

    @property
    def swapped(self) -> Pair:
        """The pair with subject and object exchanged; its own swapped pair is this one."""
        if self._swapped is None:
            self._swapped = Pair(self.object, self.subject, self.contact and self.contact.inverse, self)
        return self._swapped

    def has(self, *contacts: Contact) -> float:
        return 1.0 if self.contact in contacts else NO


def _contact(pair: Pair) -> Contact | None:
    """NONE if the boxes rule contact out, the contact that masks and depth together show; otherwise None (unknown)."""
    if pair.gap > 0.02:
        return Contact.NONE
    a, b = pair.subject.mask, pair.object.mask
    if a is None or b is None or pair.nearer is None:
        return None
    if abs(pair.nearer) > 0.25:
        return Contact.NONE
    inside, outside = np.asarray(a) > 0, np.asarray(b) > 0
    reach = max(1, round(0.01 * inside.shape[0]))
    grown = inside.copy()
    for step in range(1, reach + 1):
        for axis in (0, 1):
            grown |= np.roll(inside, step, axis) | np.roll(inside, -step, axis)
    rows = np.nonzero((grown & outside).any(axis=1))[0]
    if not len(rows):
        return Contact.NONE
    if pair.overlap_x < 0.25 and pair.overlap_y > 0.5:
        return Contact.TOUCHES
    where = float(rows.mean()) / inside.shape[0]
    (_, ay0, _, ay1), (_, by0, _, by1) = pair.subject.box, pair.object.box
    if pair.overlap_x > 0.8 and where > ay1 - 0.25 * (ay1 - ay0) and where < by0 + 0.4 * (by1 - by0):
        return Contact.ON
    if pair.overlap_x > 0.8 and where > by1 - 0.25 * (by1 - by0) and where < ay0 + 0.4 * (ay1 - ay0):
        return Contact.CARRIES
    return None
