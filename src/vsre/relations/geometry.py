"""Whether a relation holds between two things, from their boxes and, where known, masks, depth, facing and
contact.

Every predicate weighs two things: the evidence that people would call the statement true, and the evidence
that they would call it false. PASS and FAIL are given only where exactly one of the two is positive, so that
nobody would dispute the answer; everything between, and everything that needs evidence not at hand, is
UNDECIDED. Left and right are those of the image; in front of means nearer to the viewer and in the way.

`PREDICATES` is the whole of it: relation -> predicate. Lengths are fractions of the image's side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from vsre.relations.ontology import relation as known
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

    `mask` is a boolean or 0/1 array of the whole image; `depth` grows with the distance from the viewer, on
    any scale whose ratios mean something (metres); `facing` is -1 where its front points to the image's left,
    1 right, 0 where it points to the viewer or there is no front, None where that is unknown; `axis` is the
    direction in degrees, counter- clockwise from the image's horizontal, of the long side of a long thing.
    """

    box: Box
    mask: NDArray[np.generic] | None = None
    depth: float | None = None
    facing: int | None = None
    axis: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and how far beyond its nearest threshold the evidence lies (0 when undecided)."""

    verdict: Verdict
    margin: float


NO = -math.inf


class Pair:
    """The measures of a subject against an object that the predicates read."""

    def __init__(
        self, subject: Thing, object: Thing, contact: Contact | None, swapped: Pair | None = None
    ) -> None:
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
        self.foot = (ay1 - by0) / max(bh, 1e-6)
        known_depth = subject.depth is not None and object.depth is not None
        self.nearer = math.log(object.depth / subject.depth) if known_depth else None  # type: ignore[operator]
        self.same_depth = 0.15 - abs(self.nearer) if self.nearer is not None else 0.05 - abs(self.bases)
        self.contact = contact if contact is not None else _contact(self)
        self.free = 1.0 if self.contact in (Contact.NONE, Contact.TOUCHES) else NO
        self.swapped = swapped or Pair(object, subject, self.contact and self.contact.inverse, self)

    def has(self, *contacts: Contact) -> float:
        return 1.0 if self.contact in contacts else NO


def _contact(pair: Pair) -> Contact | None:
    """Contact where the boxes rule it out, or masks and depth together show it; otherwise unknown."""
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


Evidence = tuple[float, float]
Predicate = Callable[[Pair], Evidence]

_HELD = (Contact.ON, Contact.CARRIES, Contact.IN, Contact.HOLDS)
_ANY_HOLD = (*_HELD, Contact.SHELTERED, Contact.SHELTERS)


def swap(predicate: Predicate) -> Predicate:
    """The same predicate said of the object and the subject."""
    return lambda p: predicate(p.swapped)


def negate(predicate: Predicate) -> Predicate:
    def negated(p: Pair) -> Evidence:
        true, false = predicate(p)
        return false, true

    return negated


def also(predicate: Predicate, condition: Callable[[Pair], float]) -> Predicate:
    """The same predicate, true only where a further condition holds; what makes it false stays."""

    def narrowed(p: Pair) -> Evidence:
        true, false = predicate(p)
        return min(true, condition(p)), false

    return narrowed


# Pieces of evidence: positive where they hold, by how much.
def _hover(p: Pair, overlap: float) -> float:
    """The subject hangs in the air above the object, at its depth."""
    level = 1.0 if p.nearer is None else p.same_depth
    return min(p.gap_y - 0.02, -p.dy, p.overlap_x - overlap, level, p.has(Contact.NONE))


def _abreast(p: Pair) -> float:
    """Both stand side by side on one base line."""
    return min(p.gap_x - 0.01, p.overlap_y - 0.5, 0.06 - abs(p.bases), p.same_depth, p.free)


def _before(p: Pair) -> float:
    """The subject is nearer and in the way of the object."""
    if p.nearer is None or p.contact not in (None, Contact.NONE):
        return NO
    return min(p.nearer - 0.25, p.overlap_x - 0.3, p.bases - 0.03, 0.03 - p.gap)


def _ahead(p: Pair, direction: int | None) -> float:
    """The object lies where a thing facing that way looks."""
    if not direction:
        return NO
    return min(-direction * p.dx, p.gap_x + 0.01, p.overlap_y - 0.35, p.same_depth, p.free)


# Predicates: (evidence that it is true, evidence that it is false).
def _left(p: Pair) -> Evidence:
    aside = min(abs(p.rdx) - 0.42, abs(p.dx) - abs(p.dy))
    centred = 0.08 - abs(p.rdx)
    return (aside, centred) if p.dx < 0 else (NO, max(aside, centred))


def _above(overlap: float) -> Predicate:
    def predicate(p: Pair) -> Evidence:
        below = max(_hover(p.swapped, 0.3), p.has(Contact.CARRIES, Contact.SHELTERED))
        return _hover(p, overlap), max(below, _abreast(p))

    return predicate


def _under(p: Pair) -> Evidence:
    true = max(_hover(p.swapped, 0.5), p.has(Contact.CARRIES, Contact.SHELTERED))
    return true, max(_hover(p, 0.3), p.has(Contact.ON, Contact.SHELTERS), _abreast(p))


def _on(p: Pair) -> Evidence:
    return p.has(Contact.ON), max(p.gap - 0.03, p.has(Contact.CARRIES, Contact.SHELTERED, Contact.TOUCHES))


def _on_top(p: Pair) -> Evidence:
    true = min(p.has(Contact.ON), 0.35 - p.foot)
    apart = p.gap - 0.03 if _hover(p, 0.0) <= 0 else NO
    return true, max(apart, p.has(Contact.CARRIES, Contact.SHELTERED, Contact.TOUCHES, Contact.IN))


def _in(p: Pair) -> Evidence:
    elsewhere = max(
        p.gap - 0.03, p.has(Contact.HOLDS, Contact.CARRIES, Contact.TOUCHES), _before(p), _before(p.swapped)
    )
    return p.has(Contact.IN), max(elsewhere, min(p.has(Contact.ON), 0.2 - p.foot))


def _enclosed(p: Pair) -> Evidence:
    return min(p.has(Contact.IN), p.cover - 0.95), max(p.gap - 0.03, p.has(Contact.HOLDS, Contact.CARRIES))


def _outside(p: Pair) -> Evidence:
    return p.gap - 0.04, p.has(Contact.IN)


def _detached(p: Pair) -> Evidence:
    return p.gap - 0.05, p.has(*_HELD)


def _touching(p: Pair) -> Evidence:
    return p.has(Contact.ON, Contact.CARRIES, Contact.TOUCHES), p.gap - 0.04


def _leaning(p: Pair) -> Evidence:
    return p.has(Contact.TOUCHES), p.gap - 0.06


def _front(p: Pair) -> Evidence:
    # A thing with a front of its own has places before and behind it that the image's depth does not tell.
    aside = NO if p.object.facing != 0 else min(p.gap_x - 0.05, p.same_depth, p.has(Contact.NONE))
    return _before(p), max(_before(p.swapped), aside)


def _behind(p: Pair) -> Evidence:
    aside = NO if p.object.facing != 0 else min(p.gap_x - 0.05, p.same_depth, p.has(Contact.NONE))
    return _before(p.swapped), max(_before(p), aside)


def _at_back(p: Pair) -> Evidence:
    return (_before(p.swapped) if p.object.facing == 0 else NO), _before(p)


def _beyond(p: Pair) -> Evidence:
    if p.nearer is None or p.contact is not Contact.NONE:
        return NO, NO
    return min(-p.nearer - 0.3, -p.bases - 0.05, 0.12 - p.gap), min(p.nearer - 0.2, p.bases - 0.03)


def _ahead_of(p: Pair) -> Evidence:
    way = p.object.facing
    if not way or p.subject.facing != way:
        return NO, NO
    return min(_ahead(p.swapped, way), 0.35 - p.gap), _ahead(p.swapped, -way)


def _near(reach: float) -> Predicate:
    def predicate(p: Pair) -> Evidence:
        return min(reach - p.gap, p.same_depth, p.free), min(p.gap - 0.33, p.gap / p.size - 0.9)

    return predicate


def _beside(p: Pair) -> Evidence:
    stacked = max(_hover(p, 0.3), _hover(p.swapped, 0.3), p.has(*_ANY_HOLD))
    true = min(0.1 - p.gap_x, p.gap_x + 0.02, abs(p.rdx) - 0.4, _abreast_or_touching(p))
    return true, max(stacked, min(p.gap - 0.33, p.gap / p.size - 0.9))


def _abreast_or_touching(p: Pair) -> float:
    return min(p.overlap_y - 0.5, 0.06 - abs(p.bases), p.same_depth, p.free)


def _far(reach: float, sizes: float) -> Predicate:
    def predicate(p: Pair) -> Evidence:
        close = max(min(0.1 - p.gap, p.same_depth, p.free), p.has(*_ANY_HOLD))
        return min(p.gap - reach, p.gap / p.size - sizes), close

    return predicate


def _away(p: Pair) -> Evidence:
    looking = _ahead(p, p.subject.facing) > 0
    return (NO if looking else min(p.gap - 0.3, p.gap / p.size - 0.9)), p.has(*_HELD, Contact.TOUCHES)


def _facing(p: Pair) -> Evidence:
    way = p.subject.facing
    return (_ahead(p, way), _ahead(p, -way)) if way else (NO, NO)


def _opposite(p: Pair) -> Evidence:
    a, b = p.subject.facing, p.object.facing
    true = min(_ahead(p, a), _ahead(p.swapped, b), p.gap_x - 0.06)
    tight = min(p.free, 0.06 - p.gap, p.same_depth) if a and a == b else NO
    return true, max(p.has(*_ANY_HOLD), tight)


def _parallel(p: Pair) -> Evidence:
    a, b = p.subject.axis, p.object.axis
    if a is None or b is None:
        return NO, NO
    angle = abs((a - b + 90) % 180 - 90)
    return (12 - angle) / 90, (angle - 78) / 90


def _middle(p: Pair) -> Evidence:
    true = min(p.has(Contact.ON, Contact.IN), 0.1 - p.off_centre, p.wider - 1.8)
    at_end = min(p.has(Contact.ON), p.off_centre - 0.3)
    return true, max(at_end, p.gap - 0.05, p.has(Contact.TOUCHES))


def _edge(p: Pair) -> Evidence:
    middle = min(p.has(Contact.ON, Contact.IN), 0.1 - p.off_centre, p.wider - 1.8)
    return min(p.has(Contact.ON), p.off_centre - 0.3, p.wider - 1.8), max(middle, p.gap - 0.15)


def _close_by(limit: float) -> Callable[[Pair], float]:
    return lambda p: limit - p.gap


PREDICATES: dict[str, Predicate] = {
    # projective
    "left of": _left,
    "right of": swap(_left),
    "above": _above(0.3),
    "below": swap(_above(0.3)),
    "over": _above(0.5),
    "under": _under,
    "beneath": _under,
    "on top of": _on_top,
    "in front of": _front,
    "behind": _behind,
    "beside": _beside,
    "in the middle of": _middle,
    # adjacency
    "at the left side of": also(_left, _close_by(0.3)),
    "at the right side of": also(swap(_left), _close_by(0.3)),
    "at the side of": _beside,
    "adjacent to": also(_beside, _close_by(0.07)),
    "alongside": _beside,
    "at the edge of": _edge,
    "ahead of": _ahead_of,
    "against": _leaning,
    "at the back of": _at_back,
    # directional
    "away from": _away,
    "off": negate(_on),
    "across from": _opposite,
    "toward": also(_facing, lambda p: p.gap - 0.02),
    # orientation
    "facing": _facing,
    "facing away from": negate(_facing),
    "parallel to": _parallel,
    "perpendicular to": negate(_parallel),
    # proximity
    "near": _near(0.1),
    "close to": _near(0.09),
    "by": _near(0.07),
    "far from": _far(0.33, 0.9),
    "far away from": _far(0.42, 1.2),
    # topological
    "touching": _touching,
    "on": _on,
    "in": _in,
    "inside": _in,
    "within": _in,
    "contains": swap(_in),
    "surrounding": swap(_enclosed),
    "outside": _outside,
    "out of": _outside,
    "detached from": _detached,
    # unallocated
    "next to": _beside,
    "opposite to": _opposite,
    "enclosed by": _enclosed,
    "beyond": _beyond,
}
"""The relations that geometry can decide; the others of the 66 are always UNDECIDED."""

_UNDECIDED = Judgement(Verdict.UNDECIDED, 0.0)


def judge_pair(relation: str, pair: Pair) -> Judgement:
    """`judge` for a pair already measured: one Pair serves all relations."""
    predicate = PREDICATES.get(relation)
    true, false = predicate(pair) if predicate else (NO, NO)
    if (true > 0) == (false > 0):
        return _UNDECIDED
    return Judgement(Verdict.PASS, true) if true > 0 else Judgement(Verdict.FAIL, false)


def judge(relation: str, subject: Thing, object: Thing, contact: Contact | None = None) -> Judgement:
    """Does `relation` hold of subject and object? `contact`: how the subject touches the object, where known.

    Raises VsreError when the relation is none of VSR's.
    """
    known(relation)
    return judge_pair(relation, Pair(subject, object, contact))
