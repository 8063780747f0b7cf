"""Scenes of which a given statement is true, or false, beyond dispute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

from vsre.errors import VsreError
from vsre.relations.geometry import PREDICATES, Verdict, judge_pair
from vsre.sources.scenes.arrange import (
    Arrangement,
    Two,
    angled,
    contained,
    depth,
    facing,
    hanging,
    queue,
    scattered,
    sheltered,
    side,
    stacked,
    touching,
)
from vsre.sources.scenes.backgrounds import BACKGROUNDS
from vsre.sources.scenes.place import anywhere
from vsre.sources.scenes.scene import Placed, Scene
from vsre.sources.scenes.sprites import CLASSES

if TYPE_CHECKING:
    from vsre.triplets import Box

Recipe = tuple[tuple[Arrangement, ...], tuple[Arrangement, ...]]

_CLOSE = side(0.015, 0.06)
_APART = side(0.07, 0.3)
# As small as things far apart must be, so that size does not give nearness away.
_CLOSE_SMALL = side(0.015, 0.06, nearest=1.5, farthest=2.0)
_FAR = side(0.36, 0.6, nearest=1.5, farthest=2.0)
_ON, _CARRIES = stacked(True), stacked(False)
_IN, _HOLDS = contained(True), contained(False)
_UNDER, _OVER = sheltered(True), sheltered(False)
_ABOVE, _BELOW = hanging(True), hanging(False)
_NEARER, _FARTHER = depth(True), depth(False)

_SIDEWAYS: Recipe = ((_CLOSE, _APART, touching), (_CLOSE, _APART, touching, hanging(True, shift=0.05)))
_HANGS: Recipe = ((_ABOVE,), (_BELOW, _BELOW, _APART))
_HANGS_UNDER: Recipe = ((_BELOW,), (_ABOVE, _ABOVE, _APART))
_UNDERNEATH: Recipe = ((_BELOW, _UNDER, _CARRIES), (_ABOVE, _ON, _CLOSE, _OVER))
_RESTS: Recipe = ((_ON,), (_CARRIES, _CLOSE, touching, _ABOVE, _UNDER))
_INSIDE: Recipe = ((_IN,), (_CLOSE, _NEARER, _NEARER, _FARTHER, _ON, _HOLDS))
_HOLDING: Recipe = ((_HOLDS,), (_CLOSE, _FARTHER, _FARTHER, _NEARER, _CARRIES, _IN))
_AROUND: Recipe = ((_HOLDS,), (_CLOSE, _APART, _IN))
_WITHOUT: Recipe = ((_CLOSE, _APART), (_IN,))
_BEFORE: Recipe = ((_NEARER,), (_FARTHER, _FARTHER, _APART))
_BEHIND: Recipe = ((_FARTHER,), (_NEARER, _NEARER, _APART))
_NEXT: Recipe = ((_CLOSE, _CLOSE_SMALL, touching), (_FAR, _FAR, _ON, _CARRIES, _IN, _HOLDS, _ABOVE, _BELOW))
_NEAR: Recipe = ((_CLOSE_SMALL, _CLOSE_SMALL, _CLOSE, touching), (_FAR,))
_DISTANT: Recipe = ((_FAR,), (_CLOSE_SMALL, _CLOSE_SMALL, _CLOSE, touching, _ON, _IN))
_LOOKS: Recipe = ((facing(True),), (facing(False),))
_ACROSS: Recipe = (
    (facing(True, both=True, least=0.09, most=0.4),),
    (queue(0.0, 0.05), _ON, _CARRIES, _IN, _HOLDS),
)

RECIPES: dict[str, Recipe] = {
    "left of": _SIDEWAYS,
    "right of": _SIDEWAYS,
    "at the left side of": _SIDEWAYS,
    "at the right side of": _SIDEWAYS,
    "above": _HANGS,
    "over": _HANGS,
    "below": _HANGS_UNDER,
    "under": _UNDERNEATH,
    "beneath": _UNDERNEATH,
    "on": _RESTS,
    "on top of": _RESTS,
    "in front of": _BEFORE,
    "behind": _BEHIND,
    "at the back of": _BEHIND,
    "beyond": ((_FARTHER,), (_NEARER,)),
    "in the middle of": ((stacked(True, where=(0.42, 0.58)), _IN), (stacked(True, ends=True), _CLOSE)),
    "at the edge of": ((stacked(True, ends=True),), (stacked(True, where=(0.42, 0.58)), _APART)),
    "beside": _NEXT,
    "at the side of": _NEXT,
    "adjacent to": _NEXT,
    "alongside": _NEXT,
    "next to": _NEXT,
    "ahead of": ((queue(),), (queue(),)),
    "against": ((touching,), (_APART, _FAR)),
    "away from": _DISTANT,
    "far from": _DISTANT,
    "far away from": _DISTANT,
    "near": _NEAR,
    "close to": _NEAR,
    "by": _NEAR,
    "off": ((_CLOSE, _APART, _FAR), (_ON,)),
    "across from": _ACROSS,
    "opposite to": _ACROSS,
    "toward": _LOOKS,
    "facing": _LOOKS,
    "facing away from": ((facing(False),), (facing(True),)),
    "parallel to": ((angled(True),), (angled(False),)),
    "perpendicular to": ((angled(False),), (angled(True),)),
    "touching": ((touching, _ON, _CARRIES), (_APART, _FAR)),
    "in": _INSIDE,
    "inside": _INSIDE,
    "within": _INSIDE,
    "enclosed by": ((_IN,), (_CLOSE, _APART, _HOLDS)),
    "contains": _HOLDING,
    "surrounding": _AROUND,
    "outside": _WITHOUT,
    "out of": _WITHOUT,
    "detached from": ((_APART, _FAR), (_ON, _CARRIES, _IN, _HOLDS)),
}
"""Relation -> (arrangements that may make it true, arrangements that may make it false)."""

DRAWABLE: tuple[str, ...] = tuple(sorted(RECIPES))
"""The relations for which scenes are drawn and captions emitted."""

assert set(RECIPES) == set(PREDICATES)


def draw_scene_for(
    subject: str,
    relation: str,
    object: str,
    label: bool,
    rng: Random,
    n_extra: int = 1,
    *,
    extras: Sequence[str] | None = None,
    kind: str | None = None,
    size: int = 192,
    tries: int = 24,
) -> Scene | None:
    """A scene of which "SUBJECT RELATION OBJECT" is plainly true (`label`) or plainly false.

    None if these classes do not allow it (nothing is inside an apple) or none of `tries` draws succeeded. `extras` are
    the classes of the other things, drawn at random by default; if no free place is found for one, the draw fails.
    Raises VsreError if the relation cannot be drawn.
    """
    if relation not in RECIPES:
        raise VsreError(f"{relation!r} cannot be drawn. The embedded world knows {', '.join(DRAWABLE)}.")
    wanted = Verdict.PASS if label else Verdict.FAIL
    arrangements = list(RECIPES[relation][0 if label else 1])
    for _ in range(tries):
        two = rng.choice(arrangements)(rng, subject, object)
        if two is None:
            continue
        scene = Scene(kind or rng.choice(BACKGROUNDS), rng.randrange(1 << 30), two, size)
        if judge_pair(relation, scene.pair(0, 1)).verdict is not wanted:
            continue
        names = extras if extras is not None else _other_names(rng, two, n_extra)
        objects = with_extras(rng, two, names)
        if objects is not None:
            return Scene(scene.kind, scene.seed, objects, size)
    return None


def _other_names(rng: Random, two: Two, count: int) -> list[str]:
    return rng.sample([c for c in CLASSES if c not in (two[0].name, two[1].name)], count)


def with_extras(rng: Random, placed: Sequence[Placed], names: Sequence[str]) -> tuple[Placed, ...] | None:
    """The things and further ones at free places, or None if there is no room."""
    objects = list(placed)
    for name in names:
        extra = _free_place(rng, name, objects)
        if extra is None:
            return None
        objects.append(extra)
    return tuple(objects)


def _free_place(rng: Random, name: str, objects: Sequence[Placed], *, draws: int = 4, places: int = 7) -> Placed | None:
    for _ in range(draws):
        extra = anywhere(rng, name)
        x0, y0, x1, y1 = extra.box
        for _ in range(places):
            left = rng.uniform(0.01, max(0.99 - (x1 - x0), 0.01))
            box = (left, y0, left + x1 - x0, y1)
            if box[2] <= 0.99 and y0 >= 0.01 and all(_clear(box, extra.z, o.box, o.z) for o in objects):
                return extra.moved(x=left + (x1 - x0) / 2)
    return None


def _clear(a: Box, a_depth: float, b: Box, b_depth: float) -> bool:
    """Whether neither hides much of the other and, if they overlap, one is plainly behind the other."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return True
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height < 0.22 * smaller and max(a_depth, b_depth) > 1.2 * min(a_depth, b_depth)


def random_scene(rng: Random, classes: Sequence[str], *, count: int | None = None, size: int = 192) -> Scene:
    """A scene of 2 to 5 of these classes in any arrangement, for training on what is where."""
    while True:
        names = rng.sample(list(classes), min(count or rng.choice((2, 3, 3, 4, 4, 5)), len(classes)))
        true, false = RECIPES[rng.choice(DRAWABLE)]
        two = rng.choice((*true, *false, scattered, scattered))(rng, names[0], names[1])
        if two is None or (two[0].host is two[1].host is None and not _settled(*two)):
            continue
        objects = with_extras(rng, two, names[2:])
        if objects is not None:
            return Scene(rng.choice(BACKGROUNDS), rng.randrange(1 << 30), objects, size)


def _settled(a: Placed, b: Placed) -> bool:
    return _clear(a.box, a.z, b.box, b.z) or max(a.z, b.z) > 1.35 * min(a.z, b.z)


def scene_stream(
    seed: int, start: int = 0, split: str = "train", *, exclude: Sequence[str] = (), size: int = 192
) -> Iterator[Scene]:
    """Endless random scenes, number `start` onwards; the same seed, split and number give the same scene.

    No scene of a written data set is among them: those are drawn from other random numbers. `exclude`: classes that
    must not be seen, such as the test classes of a concept-disjoint world.
    """
    classes = [c for c in CLASSES if c not in set(exclude)]
    number = start
    while True:
        yield random_scene(Random(f"stream/{seed}/{split}/{number}"), classes, size=size)
        number += 1
