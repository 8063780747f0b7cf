"""Whether a relation holds between two things: from boxes and, where known, masks, depth, facing and contact.

Every predicate weighs the evidence that people would call the statement true against the evidence that they would call
it false. PASS and FAIL are given only if exactly one of the two is positive, so that nobody would dispute the answer;
everything in between, and everything that needs evidence that is missing, is UNDECIDED. Left and right are those of the
image; in front of means nearer to the viewer and in the way.

`PREDICATES` has it all: relation -> predicate. Lengths are fractions of the image's side.
"""

from __future__ import annotations

from collections.abc import Callable

from vsre.relations.ontology import relation as known
from vsre.relations.things import NO, Contact, Judgement, Pair, Thing, Verdict

Evidence = tuple[float, float]
Predicate = Callable[[Pair], Evidence]

_HELD = (Contact.ON, Contact.CARRIES, Contact.IN, Contact.HOLDS)
_ANY_HOLD = (*_HELD, Contact.SHELTERED, Contact.SHELTERS)


def swap(predicate: Predicate) -> Predicate:
    """The same predicate with subject and object exchanged."""
    return lambda p: predicate(p.swapped)


def negate(predicate: Predicate) -> Predicate:
    """True where the predicate is false, and the other way round."""
    return lambda p: predicate(p)[::-1]


def also(predicate: Predicate, condition: Callable[[Pair], float]) -> Predicate:
    """The same predicate, true only if a further condition holds; the evidence that it is false stays."""

    def narrowed(p: Pair) -> Evidence:
        true, false = predicate(p)
        return min(true, condition(p)), false

    return narrowed


# Pieces of evidence: positive if they hold, and by how much.
def _hover(p: Pair, overlap: float) -> float:
    """The subject hangs in the air above the object, at its depth."""
    level = 1.0 if p.nearer is None else p.same_depth
    return min(p.gap_y - 0.02, -p.dy, p.overlap_x - overlap, level, p.has(Contact.NONE))


def _level(p: Pair) -> float:
    """Both stand on one base line."""
    return min(p.overlap_y - 0.5, 0.06 - abs(p.bases), p.same_depth, p.free)


def _abreast(p: Pair) -> float:
    """Side by side on one base line, with air between them."""
    return min(p.gap_x - 0.01, _level(p))


def _before(p: Pair) -> float:
    """The subject is nearer and in the way of the object."""
    if p.nearer is None or p.contact not in (None, Contact.NONE):
        return NO
    return min(p.nearer - 0.25, p.overlap_x - 0.3, p.bases - 0.03, 0.03 - p.gap)


def _ahead(p: Pair, direction: int | None) -> float:
    """The object lies in the direction that a thing facing that way looks."""
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
    away = max(p.gap - 0.03, p.has(Contact.HOLDS, Contact.CARRIES, Contact.TOUCHES), _before(p), _before(p.swapped))
    return p.has(Contact.IN), max(away, min(p.has(Contact.ON), 0.2 - p.foot))


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


def _aside(p: Pair) -> float:
    """Neither before nor behind. Never positive if the object has its own front: depth does not show where that is."""
    return NO if p.object.facing != 0 else min(p.gap_x - 0.05, p.same_depth, p.has(Contact.NONE))


def _front(p: Pair) -> Evidence:
    return _before(p), max(_before(p.swapped), _aside(p))


def _behind(p: Pair) -> Evidence:
    return _before(p.swapped), max(_before(p), _aside(p))


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
    true = min(0.1 - p.gap_x, p.gap_x + 0.02, abs(p.rdx) - 0.4, _level(p))
    return true, max(stacked, min(p.gap - 0.33, p.gap / p.size - 0.9))


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


def _central(p: Pair) -> float:
    """In the middle of what holds it, or of a long thing it rests on."""
    long = min(p.has(Contact.ON), p.object_aspect - 1.4)
    return min(max(long, p.has(Contact.IN)), 0.1 - p.off_centre, p.wider - 1.8)


def _middle(p: Pair) -> Evidence:
    return _central(p), max(_edge(p)[0], p.gap - 0.05, p.has(Contact.TOUCHES))


def _edge(p: Pair) -> Evidence:
    at_end = min(p.has(Contact.ON), p.object_aspect - 1.4, p.off_centre - 0.3, p.wider - 1.8)
    return at_end, max(_central(p), p.gap - 0.15)


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
    "at the left side of": also(_left, lambda p: 0.3 - p.gap),
    "at the right side of": also(swap(_left), lambda p: 0.3 - p.gap),
    "at the side of": _beside,
    "adjacent to": also(_beside, lambda p: 0.07 - p.gap),
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
    """Whether `relation` holds between subject and object. `contact`: how the subject touches the object, if known.

    Raises VsreError if the relation is not one of VSR's.
    """
    known(relation)
    return judge_pair(relation, Pair(subject, object, contact))
