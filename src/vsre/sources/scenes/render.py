"""From a scene to pixels, exact boxes and exact masks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vsre.sources.scenes.backgrounds import background
from vsre.sources.scenes.scene import Placed, Scene, ground
from vsre.sources.scenes.sprites import drawn, solid

if TYPE_CHECKING:
    from vsre.triplets import Box

Mask = NDArray[np.bool_]
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Shape:
    """One object in pixels: boolean masks of the whole picture, with and without what hides it."""

    whole: Mask
    visible: Mask

    @property
    def visible_share(self) -> float:
        return float(self.visible.sum()) / max(float(self.whole.sum()), 1.0)


def _place(placed: Placed, size: int) -> tuple[int, int, int, int]:
    """Width, height and upper left corner in pixels."""
    x0, y0, x1, y1 = placed.box
    width, height = max(2, round((x1 - x0) * size)), max(2, round((y1 - y0) * size))
    return width, height, round(x0 * size), round(y1 * size) - height


@lru_cache(maxsize=512)
def _shadow(width: int, height: int) -> Image.Image:
    """A soft dark ellipse as an alpha channel (L)."""
    pad = max(2, height // 2)
    image = Image.new("L", (width + 2 * pad, height + 2 * pad), 0)
    ImageDraw.Draw(image).ellipse((pad, pad, pad + width, pad + height), fill=105)
    return image.filter(ImageFilter.GaussianBlur(pad / 2))


def _cast_shadow(canvas: Image.Image, placed: Placed, size: int) -> None:
    x0, _, x1, _ = placed.box
    airborne = placed.link in ("air", "shelf")
    base = ground(placed.z) if airborne else placed.y
    width = max(4, round((x1 - x0) * size * (0.7 if airborne else 0.94)))
    height = max(3, round(width * (0.14 if placed.link != "on" else 0.08)))
    alpha = _shadow(width, height)
    if airborne:
        alpha = alpha.point(lambda a: a * 6 // 10)
    at = (round((x0 + x1) / 2 * size - alpha.width / 2), round(base * size - alpha.height / 2))
    canvas.paste((20, 20, 30), at, alpha)


def _draw_shelf(canvas: Image.Image, placed: Placed, size: int) -> None:
    x0, _, x1, y1 = (v * size for v in placed.box)
    thick = max(2, round(0.022 * size))
    over = (x1 - x0) * 0.06
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((x0 - over, y1 - 1, x1 + over, y1 + thick), fill=(150, 104, 66))
    draw.rectangle((x0 - over, y1 + thick - 1, x1 + over, y1 + thick), fill=(112, 76, 48))


def opening(placed: Placed) -> Box | None:
    """The region in which things inside a container are seen; None if it holds nothing."""
    shape = placed.sprite.opening
    return placed.region(shape.x0, shape.y0, shape.x1, shape.y1) if shape else None


def _draw_door(canvas: Image.Image, placed: Placed, size: int) -> None:
    box = opening(placed)
    if not placed.open or box is None or placed.sprite.opening.kind != "door":  # type: ignore[union-attr]
        return
    x0, y0, x1, y1 = (round(v * size) for v in box)
    draw = ImageDraw.Draw(canvas)
    edge = max(1, size // 96)
    draw.rounded_rectangle(
        (x0, y0, x1 - 1, y1 - 1), max(2, size // 48), fill=(66, 58, 60), outline=(240, 240, 236), width=edge
    )
    floor = max(2, round((y1 - y0) * 0.16))
    draw.rectangle((x0 + edge, y1 - floor - edge, x1 - 1 - edge, y1 - 1 - edge), fill=(96, 86, 84))


def _front_of_rim(host: Placed, size: int) -> Mask:
    """The pixels below the front edge of a bowl's rim: they hide what is in it."""
    box = opening(host)
    assert box is not None
    x0, y0, x1, y1 = (v * size for v in box)
    y, x = np.mgrid[0:size, 0:size] + 0.5
    across = np.clip((x - (x0 + x1) / 2) / ((x1 - x0) / 2), -1, 1)
    middle = (y0 + y1) / 2
    return y > middle + (y1 - middle) * np.sqrt(1 - across**2)


def _hidden_by_host(scene: Scene, placed: Placed, size: int) -> Mask | None:
    """The pixels of the picture where the thing's container hides it, or None."""
    if placed.link != "in" or placed.host is None:
        return None
    host = scene.objects[placed.host]
    shape, box = host.sprite.opening, opening(host)
    if shape is None or box is None:
        return None
    if shape.kind == "rim":
        return _front_of_rim(host, size)
    hidden = np.ones((size, size), dtype=bool)
    x0, y0, x1, y1 = (round(v * size) for v in box)
    hidden[y0:y1, x0:x1] = False
    return hidden


def paint(scene: Scene, size: int | None = None) -> NDArray[np.uint8]:
    """The picture as (size, size, 3) uint8; `size` defaults to the scene's own."""
    size = size or scene.size
    canvas = Image.fromarray(background(scene.kind, scene.seed, size))
    for index in scene.order:
        placed = scene.objects[index]
        if placed.link != "in":
            _cast_shadow(canvas, placed, size)
        if placed.link == "shelf":
            _draw_shelf(canvas, placed, size)
        width, height, left, top = _place(placed, size)
        image = drawn(placed.sprite, placed.flip, placed.angle, width, height)
        hidden = _hidden_by_host(scene, placed, size)
        if hidden is None:
            canvas.paste(image, (left, top), image)
        else:
            alpha = Image.new("L", (size, size), 0)
            alpha.paste(image.getchannel("A"), (left, top))
            layer = Image.new("RGB", (size, size))
            layer.paste(image.convert("RGB"), (left, top))
            canvas.paste(layer, (0, 0), Image.fromarray(np.where(hidden, 0, np.asarray(alpha)).astype(np.uint8)))
        _draw_door(canvas, placed, size)
    return np.asarray(canvas)


def render(scene: Scene, size: int | None = None) -> Image.Image:
    """The picture (RGB, square); the same scene gives the same pixels."""
    return Image.fromarray(paint(scene, size))


def encode(scene: Scene, size: int | None = None) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    render(scene, size).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def shapes(scene: Scene, size: int | None = None) -> list[Shape]:
    """The masks of the objects, in the order of `scene.objects`."""
    size = size or scene.size
    covered = np.zeros((size, size), dtype=bool)
    result: dict[int, Shape] = {}
    for index in reversed(scene.order):
        placed = scene.objects[index]
        width, height, left, top = _place(placed, size)
        whole = np.zeros((size, size), dtype=bool)
        alpha = solid(placed.sprite, placed.flip, placed.angle, width, height)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + alpha.shape[1], size), min(top + alpha.shape[0], size)
        if x0 < x1 and y0 < y1:
            whole[y0:y1, x0:x1] = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
        hidden = _hidden_by_host(scene, placed, size)
        visible = whole & ~covered if hidden is None else whole & ~covered & ~hidden
        covered |= visible
        result[index] = Shape(whole, visible)
    return [result[i] for i in range(len(scene.objects))]


def masks(scene: Scene, size: int | None = None) -> NDArray[np.uint8]:
    """What is visible of each object: (objects, size, size) uint8, 0 or 1."""
    return np.stack([s.visible for s in shapes(scene, size)]).astype(np.uint8)


def mask_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 in pixels (x1 and y1 exclusive) of a mask; None if it is empty."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def run_lengths(mask: Mask) -> list[int]:
    """COCO's uncompressed run lengths: column by column, beginning with the zeros."""
    flat = np.asarray(mask, dtype=np.int8).ravel(order="F")
    edges = np.nonzero(np.diff(flat))[0] + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs
