"""One thing placed in a scene: of a class, at a depth, in some direction."""

from __future__ import annotations

import math
from random import Random

from vsre.sources.scenes.scene import Placed, ground
from vsre.sources.scenes.sprites import SPRITES, extent

EDGE = 0.01
SMALLEST = 0.17
"""Things are drawn no smaller than this (root of the area), or they could not be recognised."""


def fresh(rng: Random, name: str, z: float, *, scale: float = 1.0, **changes: object) -> Placed:
    """A thing of a class with random sprite, flip and direction, standing on the ground at x = 0.5."""
    variant = rng.randrange(len(SPRITES[name]))
    sprite = SPRITES[name][variant]
    flip = rng.random() < 0.5
    placed = Placed(
        name=name,
        x=0.5,
        y=ground(z),
        z=round(z, 3),
        size=stepped(max(sprite.size * scale / z, SMALLEST)),
        variant=variant,
        flip=flip,
        open=sprite.opening is not None and sprite.opening.kind == "door" and rng.random() < 0.4,
    )
    if sprite.turns:
        placed = aligned(placed, rng.choice((0, 45, 90, 135)))
    return placed.moved(**changes) if changes else placed


def stepped(size: float) -> float:
    """The next smaller size on a ladder of sizes 3 % apart, so that drawn sprites can be kept and used again."""
    return 1.03 ** math.floor(math.log(size, 1.03) + 1e-6)


def aligned(placed: Placed, axis: float) -> Placed:
    """The thing turned so that its long side has this direction (degrees)."""
    now = placed.axis
    return placed if now is None else placed.moved(angle=(placed.angle + axis - now) % 360)


def fits(*placed: Placed) -> bool:
    """Whether all are entirely inside the picture."""
    return all(
        x0 >= EDGE and y0 >= EDGE and x1 <= 1 - EDGE and y1 <= 1 - EDGE for x0, y0, x1, y1 in (p.box for p in placed)
    )


def width_of(placed: Placed) -> float:
    """Width of its box, as a fraction of the picture."""
    return extent(placed.sprite, placed.flip, placed.angle)[0] * placed.size


def height_of(placed: Placed) -> float:
    """Height of its box, as a fraction of the picture."""
    return extent(placed.sprite, placed.flip, placed.angle)[1] * placed.size


def looking(placed: Placed, way: int) -> Placed:
    """The thing with its front to the left (-1) or right (1)."""
    return placed if placed.facing == way else placed.moved(flip=not placed.flip)


def anywhere(rng: Random, name: str) -> Placed:
    """One thing at a random place; things farther away leave more room."""
    z = 1.05 * math.exp(rng.uniform(0, 0.6))
    placed = fresh(rng, name, z)
    if placed.sprite.flies and rng.random() < 0.5:
        placed = placed.moved(y=rng.uniform(height_of(placed) + 0.02, placed.y - 0.1), link="air")
    half = min(width_of(placed) / 2 + EDGE, 0.5)
    return placed.moved(x=rng.uniform(half, 1 - half))
