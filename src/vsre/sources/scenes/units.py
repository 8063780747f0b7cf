"""Units: two scenes of the same classes, and the captions that are true of one and false of the other.

As in VSR, every caption has one true and one false image; both belong to one unit and so to the same side of every
split. Whatever text alone says about a caption is therefore true and false equally often: a blind model is at chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from vsre.errors import VsreError
from vsre.relations.geometry import Verdict, judge_pair
from vsre.sources.scenes.compose import DRAWABLE, RECIPES, draw_scene_for
from vsre.sources.scenes.render import Shape, shapes
from vsre.sources.scenes.scene import Scene
from vsre.sources.scenes.sprites import CLASSES, SPRITES

SPLITS = ("train", "dev", "test")
PROTOCOLS = ("caption-disjoint", "concept-disjoint")

RARE = frozenset(
    {
        "across from",
        "ahead of",
        "at the back of",
        "at the edge of",
        "enclosed by",
        "in the middle of",
        "off",
        "on",
        "on top of",
        "opposite to",
        "out of",
        "outside",
        "parallel to",
        "perpendicular to",
        "surrounding",
    }
)
"""Relations that few units show unless drawn for them."""

TURNS = (*DRAWABLE, *sorted(RARE))
"""The relations for which units are drawn, in turn; the rare ones twice per round."""

ObjectRange = tuple[int, int]
"""The minimum and maximum number of things in a scene."""

MOST_OBJECTS = 6
"""There is room for this many; with seven, most relations can no longer be drawn."""

_SHARES = (0.7, 0.1)
_LEAST_VISIBLE = 0.5
_LEAST_SIDE = 0.07

Statement = tuple[str, str, str]
"""Subject, relation, object."""


def _chance(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


@lru_cache(maxsize=8192)
def split_of_pair(a: str, b: str) -> str:
    """The split to which all captions of two classes belong in the caption-disjoint world."""
    share = _chance("/".join(sorted((a, b))))
    return "train" if share < _SHARES[0] else "dev" if share < sum(_SHARES) else "test"


def _ability(name: str) -> str:
    sprites = SPRITES[name]
    abilities = {
        "container": any(s.opening for s in sprites),
        "support": any(s.top for s in sprites),
        "long": any(s.turns for s in sprites),
        "front": any(s.facing for s in sprites),
    }
    return next((ability for ability, has in abilities.items() if has), "plain")


@lru_cache(maxsize=1)
def concept_splits() -> dict[str, str]:
    """Class -> split in the concept-disjoint world; every split has some of each kind (containers, supports ...)."""
    splits: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for name in sorted(CLASSES, key=lambda n: (_chance(n), n)):
        groups.setdefault(_ability(name), []).append(name)
    pattern = ("train", "test", "train", "dev", "train", "test", "train", "train")
    for members in groups.values():
        splits.update({name: pattern[i % len(pattern)] for i, name in enumerate(members)})
    return splits


@dataclass(frozen=True)
class World:
    """Which classes and which pairs of classes a split may show and speak of."""

    protocol: str
    split: str

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS or self.split not in SPLITS:
            raise VsreError(
                f"{self.protocol!r} / {self.split!r}: a world is {' or '.join(PROTOCOLS)}, "
                f"its splits are {', '.join(SPLITS)}."
            )

    def classes(self) -> tuple[str, ...]:
        """The classes whose pictures may appear."""
        if self.protocol == "caption-disjoint":
            return CLASSES
        return tuple(c for c in CLASSES if concept_splits()[c] == self.split)

    def speaks_of(self, a: str, b: str) -> bool:
        """Whether a caption may name these two together."""
        if self.protocol == "caption-disjoint":
            return split_of_pair(a, b) == self.split
        return concept_splits()[a] == concept_splits()[b] == self.split


@dataclass(frozen=True)
class Unit:
    """Two scenes, their masks, and the statements decided in both with opposite truth (here: the truth in the first).

    `target` is the statement for which the unit was drawn; it comes first.
    """

    scenes: tuple[Scene, Scene]
    shapes: tuple[list[Shape], list[Shape]]
    statements: tuple[tuple[Statement, bool], ...]

    @property
    def target(self) -> Statement:
        return self.statements[0][0]


def decided(scene: Scene) -> dict[Statement, bool]:
    """Everything that can be said about a scene without dispute: statement -> truth."""
    facts: dict[Statement, bool] = {}
    for a, b, pair in scene.pairs():
        for relation in DRAWABLE:
            verdict = judge_pair(relation, pair).verdict
            if verdict is not Verdict.UNDECIDED:
                facts[(scene.names[a], relation, scene.names[b])] = verdict is Verdict.PASS
    return facts


def _seen(scene: Scene) -> list[Shape] | None:
    """The shapes, or None if something in the scene is too small or too hidden to be recognised."""
    found = shapes(scene)
    for placed, shape in zip(scene.objects, found, strict=True):
        x0, y0, x1, y1 = placed.box
        if shape.visible_share < _LEAST_VISIBLE or min(x1 - x0, y1 - y0) < _LEAST_SIDE:
            return None
    return found


def check_objects(objects: ObjectRange) -> ObjectRange:
    """The same range; raises VsreError if no scene can have it."""
    least, most = objects
    if not 2 <= least <= most <= MOST_OBJECTS:
        raise VsreError(
            f"objects {least} to {most}: a scene has from 2 to {MOST_OBJECTS} things, and the least comes first."
        )
    return objects


def draw_unit(
    world: World, seed: int, index: int, *, size: int = 192, attempts: int = 400, objects: ObjectRange | None = None
) -> Unit | None:
    """Unit number `index` of a split: the same arguments give the same unit.

    Relations take turns; if the split's classes cannot show the relation whose turn it is, the next one is tried. Both
    scenes have equally many things, every number in `objects` being equally likely; the default is 2 to 5, most often 3
    or 4. If there is no room for them, the unit is drawn again with as many. None if nothing could be drawn.
    """
    rng = Random(f"unit/{world.protocol}/{world.split}/{seed}/{index}")
    # Drawn once and separately: attempts that fail for lack of room must not make crowded scenes rarer than asked.
    count = objects and Random(f"objects/{world.protocol}/{world.split}/{seed}/{index}").randint(
        *check_objects(objects)
    )
    tries = attempts if count is None else 4 * attempts  # else relations that need room would give way to others
    turn = index % len(TURNS)
    for relation in (*TURNS[turn:], *TURNS[:turn]):
        for _ in range(tries):
            unit = _try_unit(world, rng, relation, size, count)
            if unit is not None:
                return unit
    return None


def _try_unit(world: World, rng: Random, relation: str, size: int, count: int | None) -> Unit | None:
    classes = world.classes()
    subject, object = rng.sample(classes, 2)
    if not world.speaks_of(subject, object) or not _possible(rng, subject, relation, object):
        return None
    if count is None:
        extras = _extras(world, rng, subject, object, rng.choice((0, 1, 1, 2, 2, 3)))
    else:
        extras = _extras(world, rng, subject, object, count - 2)
        if len(extras) < count - 2:
            return None
    drawn = []
    for label in (True, False):
        for _ in range(4):
            scene = draw_scene_for(subject, relation, object, label, rng, extras=extras, size=size)
            found = _seen(scene) if scene else None
            if scene and found:
                drawn.append((scene, found))
                break
        else:
            return None
    if rng.random() < 0.5:
        drawn.reverse()
    (first, first_shapes), (second, second_shapes) = drawn
    truth, other = decided(first), decided(second)
    target = (subject, relation, object)
    chosen = [s for s in truth if s in other and truth[s] != other[s] and s != target and world.speaks_of(s[0], s[2])]
    rng.shuffle(chosen)
    statements = tuple((s, truth[s]) for s in (target, *chosen))
    return Unit((first, second), (first_shapes, second_shapes), statements)


def _possible(rng: Random, subject: str, relation: str, object: str) -> bool:
    """A quick look at whether these classes can make the statement true and false at all."""
    true, false = RECIPES[relation]
    return all(any(a(rng, subject, object) for a in arrangements for _ in range(3)) for arrangements in (true, false))


def _extras(world: World, rng: Random, subject: str, object: str, count: int) -> Sequence[str]:
    """Further classes, only those that the split may speak of together with the subject or the object."""
    others = [c for c in world.classes() if c not in (subject, object)]
    related = [c for c in others if world.speaks_of(c, subject) or world.speaks_of(c, object)]
    return rng.sample(related, min(count, len(related)))
