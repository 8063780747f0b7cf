"""Arrangements of two things: side by side, one behind the other, stacked, contained, hanging above, and so on.

An arrangement draws (subject, object) placed in an otherwise empty scene, or None if these classes or this draw do not
allow it. It only proposes: whether a statement is true of the result is up to `relations.geometry`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from numpy.typing import NDArray

from vsre.sources.scenes.place import (
    EDGE,
    SMALLEST,
    aligned,
    anywhere,
    fits,
    fresh,
    height_of,
    looking,
    stepped,
    width_of,
)
from vsre.sources.scenes.scene import Placed
from vsre.sources.scenes.sprites import SPRITES, extent, solid

Two = tuple[Placed, Placed]
Arrangement = Callable[[Random, str, str], Two | None]


def _checked(a: Placed, b: Placed) -> Two | None:
    return (a, b) if fits(a, b) else None


def _abreast(rng: Random, a: Placed, b: Placed, gap: float) -> Two | None:
    """Put two things side by side, in either order, with a gap between their boxes."""
    wa, wb = width_of(a), width_of(b)
    total = wa + wb + gap
    if total > 1 - 2 * EDGE:
        return None
    start = rng.uniform(EDGE, 1 - EDGE - total)
    if rng.random() < 0.5:
        return _checked(a.moved(x=start + wa / 2), b.moved(x=start + wa + gap + wb / 2))
    return _checked(a.moved(x=start + wb + gap + wa / 2), b.moved(x=start + wb / 2))


def side(least: float, most: float, *, nearest: float = 1.05, farthest: float = 1.5) -> Arrangement:
    """Side by side on one base line, with a gap of `least` to `most` (fractions of the picture)."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(nearest, farthest)
        return _abreast(rng, fresh(rng, a, z), fresh(rng, b, z), rng.uniform(least, most))

    return arrange


def facing(toward: bool, *, both: bool = False, least: float = 0.03, most: float = 0.3) -> Arrangement:
    """Side by side, the subject looking at the object (or away from it); `both`: each looking at the other."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.15, 1.6)
        two = _abreast(rng, fresh(rng, a, z), fresh(rng, b, z), rng.uniform(least, most))
        if two is None or not two[0].facing:
            return None
        way = 1 if two[1].x > two[0].x else -1
        looker = looking(two[0], way if toward else -way)
        other = two[1]
        if both:
            if not other.facing:
                return None
            other = looking(other, -way)
        return looker, other

    return arrange


def queue(least: float = 0.02, most: float = 0.15) -> Arrangement:
    """One after the other, both looking the same way."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.15, 1.6)
        two = _abreast(rng, fresh(rng, a, z), fresh(rng, b, z), rng.uniform(least, most))
        if two is None or not two[0].facing or not two[1].facing:
            return None
        way = rng.choice((-1, 1))
        return looking(two[0], way), looking(two[1], way)

    return arrange


def _profile(placed: Placed, right: bool, size: int = 192) -> tuple[NDArray[np.float64], int]:
    """The outermost x (fractions) of a thing on one side, per row of the picture, and its first row."""
    x0, y0, x1, y1 = placed.box
    w, h = max(2, round((x1 - x0) * size)), max(2, round((y1 - y0) * size))
    shape = solid(placed.sprite, placed.flip, placed.angle, w, h)
    columns = np.arange(w)
    edge = np.where(shape, columns, -9999).max(axis=1) if right else np.where(shape, columns, 9999).min(axis=1)
    return edge / size, round(y1 * size) - h


def touching(rng: Random, a: str, b: str) -> Two | None:
    """Side by side and touching: pushed together until the drawn outlines meet."""
    z = rng.uniform(1.05, 1.5)
    two = _abreast(rng, fresh(rng, a, z), fresh(rng, b, z), 0.0)
    if two is None:
        return None
    left, right = sorted(two, key=lambda p: p.x)
    (ends, top_left), (starts, top_right) = _profile(left, True), _profile(right, False)
    first, last = max(top_left, top_right), min(top_left + len(ends), top_right + len(starts))
    if last - first < 4:
        return None
    space = starts[first - top_right : last - top_right] - ends[first - top_left : last - top_left]
    shift = float(space.min()) + (right.x - width_of(right) / 2) - (left.x - width_of(left) / 2) - 1.5 / 192
    if not 0 <= shift <= 0.35 * min(width_of(left), width_of(right)):
        return None
    moved_right = right.moved(x=right.x - shift)
    first_placed, second = (left, moved_right) if two[0] is left else (moved_right, left)
    return _checked(first_placed.moved(link="touches", host=1), second)


def depth(subject_near: bool, *, overlap: tuple[float, float] = (0.1, 0.7)) -> Arrangement:
    """One in front of the other, the nearer hiding a part of the farther."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.0, 1.12)
        far = z * rng.uniform(1.4, 1.7)
        near = fresh(rng, a if subject_near else b, z, scale=0.92, x=rng.uniform(0.25, 0.75))
        back = fresh(rng, b if subject_near else a, far, scale=1.2)
        reach = (width_of(near) + width_of(back)) / 2
        back = back.moved(x=near.x + rng.choice((-1, 1)) * reach * (1 - rng.uniform(*overlap)))
        if not fits(near, back):
            return None
        (nx0, ny0, nx1, ny1), (bx0, by0, bx1, by1) = near.box, back.box
        hidden = max(0, min(nx1, bx1) - max(nx0, bx0)) * max(0, min(ny1, by1) - max(ny0, by0))
        if hidden > 0.55 * (bx1 - bx0) * (by1 - by0):
            return None
        return (near, back) if subject_near else (back, near)

    return arrange


def stacked(subject_up: bool, *, where: tuple[float, float] = (0.0, 1.0), ends: bool = False) -> Arrangement:
    """One on the other. `where`: the part of the support's length used; `ends`: its very ends instead."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.02, 1.35)
        upper, lower = (a, b) if subject_up else (b, a)
        base = fresh(rng, lower, z, scale=1.2, x=rng.uniform(0.25, 0.75))
        if base.sprite.top is None or SPRITES[upper][0].height > 2.5 * base.sprite.height:
            return None
        x0, x1, y = base.sprite.top
        left, line, right, _ = base.region(x0, y, x1, y)
        item = fresh(rng, upper, z, scale=rng.uniform(0.62, 0.85))
        width = width_of(item)
        room = right - left - 0.7 * width
        if room < 0:
            return None
        start = left + 0.35 * width
        at = start + room * (rng.choice((0.0, 1.0)) if ends else rng.uniform(*where))
        item = item.moved(x=at, y=line + 0.008, link="on", host=1 if subject_up else 0)
        return _checked(item, base) if subject_up else _checked(base, item)

    return arrange


def contained(subject_inside: bool) -> Arrangement:
    """One inside the other."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.0, 1.25)
        inner, outer = (a, b) if subject_inside else (b, a)
        box = fresh(rng, outer, z, scale=1.3, x=rng.uniform(0.3, 0.7), open=True)
        shape = box.sprite.opening
        if shape is None or SPRITES[inner][0].height > 1.3 * box.sprite.height:
            return None
        x0, y0, x1, y1 = box.region(shape.x0, shape.y0, shape.x1, shape.y1)
        item = fresh(rng, inner, z)
        unit_w, unit_h = extent(item.sprite, item.flip, item.angle)
        if shape.kind == "door":
            size = min(0.9 * (x1 - x0) / unit_w, 0.9 * (y1 - y0) / unit_h)
            base = y1 - 0.03 * (y1 - y0)
        else:
            size = min(0.62 * (x1 - x0) / unit_w, 1.6 * (box.box[3] - box.box[1]) / unit_h)
            base = y1 + 0.22 * size * unit_h
            base = min(base, box.box[3] - 0.02)
        size = stepped(min(size, item.size))
        if size < 0.96 * SMALLEST:
            return None
        slack = (x1 - x0 - size * unit_w) / 2
        at = (x0 + x1) / 2 + rng.uniform(-0.6, 0.6) * max(slack, 0)
        item = item.moved(x=at, y=base, size=size, link="in", host=1 if subject_inside else 0)
        return _checked(item, box) if subject_inside else _checked(box, item)

    return arrange


def sheltered(subject_below: bool) -> Arrangement:
    """One standing between the legs of the other."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.0, 1.2)
        lower, upper = (a, b) if subject_below else (b, a)
        roof = fresh(rng, upper, z, scale=1.45, x=rng.uniform(0.3, 0.7))
        if roof.sprite.canopy is None or SPRITES[lower][0].height > 2 * roof.sprite.height:
            return None
        x0, x1, y = roof.sprite.canopy
        left, top, right, _ = roof.region(x0, y, x1, y)
        item = fresh(rng, lower, z)
        unit_w, unit_h = extent(item.sprite, item.flip, item.angle)
        base = roof.y - 0.012
        size = stepped(min(item.size, 0.95 * (base - top) / unit_h, 0.8 * (right - left) / unit_w))
        if size < 0.85 * SMALLEST:
            return None
        slack = (right - left - size * unit_w) / 2
        at = (left + right) / 2 + rng.uniform(-0.7, 0.7) * slack
        item = item.moved(x=at, y=base, size=size, link="sheltered", host=1 if subject_below else 0)
        return _checked(item, roof) if subject_below else _checked(roof, item)

    return arrange


def hanging(subject_up: bool, *, shift: float = 0.25) -> Arrangement:
    """One in the air, or on a shelf when it cannot fly, above the other."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.05, 1.4)
        upper, lower = (a, b) if subject_up else (b, a)
        base = fresh(rng, lower, z, scale=0.88, x=rng.uniform(0.2, 0.8))
        item = fresh(rng, upper, z, scale=0.82)
        gap = rng.uniform(0.05, 0.16)
        item = item.moved(
            x=base.x + rng.uniform(-shift, shift) * (width_of(base) + width_of(item)) / 2,
            y=base.y - height_of(base) - gap,
            link="air" if item.sprite.flies else "shelf",
        )
        return _checked(item, base) if subject_up else _checked(base, item)

    return arrange


def angled(parallel: bool) -> Arrangement:
    """Two long things, side by side, in one direction or at a right angle."""

    def arrange(rng: Random, a: str, b: str) -> Two | None:
        z = rng.uniform(1.05, 1.35)
        first, second = fresh(rng, a, z), fresh(rng, b, z)
        one, other = first.axis, second.axis
        if one is None or other is None:
            return None
        bend = 0 if parallel else 90
        if second.sprite.turns:
            second = aligned(second, (one + bend) % 180)
        elif first.sprite.turns:
            first = aligned(first, (other + bend) % 180)
        return _abreast(rng, first, second, rng.uniform(0.02, 0.25))

    return arrange


def scattered(rng: Random, a: str, b: str) -> Two | None:
    """Anywhere on the ground, or in the air for what flies."""
    return _checked(anywhere(rng, a), anywhere(rng, b))
