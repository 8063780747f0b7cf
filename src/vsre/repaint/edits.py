"""What the scene painter does to scenes: finding what is visible, mirroring things, and substituting the subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from random import Random

from vsre.relations.geometry import Verdict, judge_pair
from vsre.sources.scenes import Placed, Scene, shapes
from vsre.sources.scenes.render import mask_box
from vsre.sources.scenes.sprites import extent, sprite
from vsre.triplets import Box, Triplet

LEAST_VISIBLE = 0.4
LEAST_SIDE = 0.07
"""A thing that is less visible than this, or smaller (fraction of the picture), may go unrecognised."""

_SHAPE = 1.5
"""A substitute's proportions differ from the subject's by at most this factor."""

_LOOK_ALIKES = (
    "bottle, cup, wine glass, bowl, vase",
    "bowl, spoon",
    "fork, knife, spoon, toothbrush",
    "couch, chair, bench, bed",
    "dining table, bench",
    "backpack, handbag, suitcase",
    "car, truck, bus, train",
    "bicycle, motorcycle",
    "horse, zebra, cow, sheep",
    "bear, teddy bear, dog",
    "orange, apple, sports ball",
    "frisbee, donut, bowl",
    "tv, laptop, microwave, oven, cell phone",
    "oven, refrigerator",
    "potted plant, vase, broccoli",
    "hot dog, sandwich, banana",
    "skateboard, skis",
    "cake, bowl",
    "person, tie",
)
_ALIKE = frozenset(frozenset(pair) for group in _LOOK_ALIKES for pair in combinations(group.split(", "), 2))


def alike(a: str, b: str) -> bool:
    """Whether a person might take one class for the other, so that its absence could be disputed."""
    return frozenset((a, b)) in _ALIKE


def visible_boxes(scene: Scene) -> dict[str, Box] | None:
    """Class -> box of its visible part (fractions); None if something cannot be recognised or is cut off."""
    size = scene.size
    boxes: dict[str, Box] = {}
    for placed, shape in zip(scene.objects, shapes(scene), strict=True):
        x0, y0, x1, y1 = placed.box
        if min(x0, y0, 1 - x1, 1 - y1) < 0 or min(x1 - x0, y1 - y0) < LEAST_SIDE:
            return None
        seen = mask_box(shape.visible)
        if seen is None or shape.visible_share < LEAST_VISIBLE:
            return None
        boxes[placed.name] = (seen[0] / size, seen[1] / size, seen[2] / size, seen[3] / size)
    return boxes


def truth_of(scene: Scene, subject: str, relation: str, object: str) -> bool | None:
    """Whether the statement is plainly true or plainly false of the scene; None if it could be disputed."""
    verdict = judge_pair(relation, scene.pair(scene.index(subject), scene.index(object))).verdict
    return None if verdict is Verdict.UNDECIDED else verdict is Verdict.PASS


def turned_round(scene: Scene, rng: Random, keep: Triplet) -> Scene:
    """The scene with about half of its things mirrored in place, but none that would change the truth of `keep`.

    Things that touch, hold or carry another stay as they are: their outlines and surfaces would no longer meet.
    """
    hosts = {o.host for o in scene.objects if o.host is not None}
    for index, placed in enumerate(scene.objects):
        fixed = index in hosts or placed.link == "touches" or placed.angle
        if fixed or rng.random() < 0.5:
            continue
        turned = _with(scene, index, placed.moved(flip=not placed.flip))
        if truth_of(turned, keep.subject, keep.relation, keep.object) is keep.label:
            scene = turned
    return scene


def apart(scene: Scene, index: int) -> Scene:
    """The scene with one thing no longer required to touch another: its substitute has another outline."""
    placed = scene.objects[index]
    return _with(scene, index, placed.released()) if placed.link == "touches" else scene


def substitutes(scene: Scene, index: int, classes: Sequence[str], rng: Random) -> Iterator[Scene]:
    """The scene with another class in place of one thing: classes of similar shape, in random order."""
    old = scene.objects[index]
    x0, y0, x1, y1 = old.box
    shape = (x1 - x0) / (y1 - y0)
    for name in rng.sample(classes, len(classes)):
        if name in scene.names or any(alike(name, other) for other in scene.names):
            continue
        width, height = extent(sprite(name), old.flip, 0.0)
        if max(width / height / shape, shape * height / width) <= _SHAPE:
            yield scene.swap_class(old.name, name)


def _with(scene: Scene, index: int, placed: Placed) -> Scene:
    return replace(scene, objects=(*scene.objects[:index], placed, *scene.objects[index + 1 :]))
