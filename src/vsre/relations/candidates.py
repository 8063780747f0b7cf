"""What a caller gives for a subject or an object (one or several boxes or things), as things in fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.errors import VsreError
from vsre.relations.things import Thing

Box = tuple[float, float, float, float]
Seen = Thing | Box | NDArray[Any] | Sequence[Thing | Box | NDArray[Any]]
"""One thing or several candidates, each a Thing or its box (x0, y0, x1, y1)."""

_PIXELS_NOT_FRACTIONS = 2.0


def candidates(seen: Seen, image_size: tuple[int, int] | None) -> tuple[list[Thing], str]:
    """The candidates as Things whose boxes are clipped fractions of the image; and, if there are none, why.

    Boxes are in pixels if `image_size` gives (width, height). A box that is outside the image, has no area or is not
    finite is left out. Raises VsreError for what is not a box, and for a box in pixels without an image size.
    """
    several: Any = [seen] if isinstance(seen, Thing) or _is_box(seen) else list(seen)
    found = [thing for one in several if (thing := _thing(one, image_size)) is not None]
    return found, "" if found else "no box in the image" if len(several) else "no box"


def _is_box(seen: Any) -> bool:
    return len(seen) == 4 and isinstance(seen[0], int | float | np.number)


def _thing(one: Any, image_size: tuple[int, int] | None) -> Thing | None:
    thing = one if isinstance(one, Thing) else Thing(tuple(one))
    if len(thing.box) != 4:
        raise VsreError(f"a box has four numbers (x0, y0, x1, y1), this one has {len(thing.box)}.")
    x0, y0, x1, y1 = map(float, thing.box)
    if image_size is not None:
        width, height = image_size
        if width < 1 or height < 1:
            raise VsreError(f"an image of {width} x {height} pixels holds no boxes.")
        x0, y0, x1, y1 = x0 / width, y0 / height, x1 / width, y1 / height
    if not math.isfinite(x0 + y0 + x1 + y1):
        return None
    if image_size is None and max(x1, y1) > _PIXELS_NOT_FRACTIONS:
        raise VsreError(f"the box {thing.box} is not in fractions of the image: give `image_size` for boxes in pixels.")
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
    if x0 >= x1 or y0 >= y1:
        return None
    return thing if (x0, y0, x1, y1) == thing.box else Thing((x0, y0, x1, y1), thing.mask, crowd=thing.crowd)
