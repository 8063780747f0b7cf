"""Photos on a canvas that a diffusion model can paint: whole, in their own shape, with sides that are multiples of 8.

The library crops nothing here, but it rounds: image-to-image takes a photo of 80 x 60 as 80 x 56, and inpainting
without sizes squashes any photo to a square. So every photo is resized as a whole beforehand, and the library is always
given sizes. Boxes are fractions of width and height, so they hold on the canvas unchanged.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEAST_SIDE = 16
"""Pixels: a photo with a shorter side shows nothing that could be repainted."""

MOST_ASPECT = 4.0
"""Longer shapes would leave the short side too few pixels for the model."""

_LEAST_SHARE = 0.8
"""A canvas uses at least this share of the pixels it may have."""


class NoCanvas(Exception):
    """The photo fits no canvas; carries the reason, one of a few fixed sentences."""


TOO_FEW_PIXELS = "the source picture has too few pixels"
TOO_LONG = "the source picture is too long and narrow"


def canvas_size(width: int, height: int, pixels: int, multiple: int = 8) -> tuple[int, int]:
    """Width and height for a photo: multiples of `multiple`, at most `pixels` pixels in all, in the photo's shape.

    Of the sizes that use most of the pixels, the one whose shape is closest to the photo's, and the largest of several:
    640 x 480 on 1024 x 1024 pixels gives 1152 x 864, exactly 4:3. Raises NoCanvas.
    """
    if min(width, height) < LEAST_SIDE:
        raise NoCanvas(TOO_FEW_PIXELS)
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise NoCanvas(TOO_LONG)
    if width < height:
        return _landscape(height, width, pixels, multiple)[::-1]
    return _landscape(width, height, pixels, multiple)


@lru_cache(maxsize=4096)
def _landscape(width: int, height: int, pixels: int, multiple: int) -> tuple[int, int]:
    shape = width / height
    best, least = (multiple, multiple), (math.inf, 0)
    for across in range(multiple, math.isqrt(int(pixels * MOST_ASPECT)) + 1, multiple):
        down = min(round(across / shape / multiple), pixels // across // multiple) * multiple
        if down < multiple or across * down < _LEAST_SHARE * pixels:
            continue
        # Shapes that differ by less than a pixel are the same.
        off = round(abs(math.log(across / down / shape)) * across)
        if (off, -across * down) < least:
            best, least = (across, down), (off, -across * down)
    return best


def on_canvas(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The whole picture, resized."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def as_picture(values: NDArray[np.floating]) -> Image.Image | None:
    """The picture of [height, width, 3] values between 0 and 1; None if some are not finite, as when float16
    overflows."""
    if not np.isfinite(values).all():
        return None
    return Image.fromarray(np.round(values.clip(0, 1) * 255).astype(np.uint8))


def is_blank(image: Image.Image) -> bool:
    """Whether the picture is all one colour, such as black: nothing was painted."""
    return all(high - low <= 2 for low, high in image.convert("RGB").getextrema())  # type: ignore[misc]
