"""What a detector is trained on: scenes as it may see them, with the exact boxes of what is still visible.

A detector that verifies pictures looks at JPEG files of several sizes, at what a small diffusion model paints, and at
pictures into which something was painted. So a view is a scene of the pool, perhaps with a thing or a region of another
scene laid over it, cropped and mirrored, then softened, recoloured, made noisy and compressed at some resolution. View
number i depends on (seed, i) alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vsre.zoo.pool import Pool

LEAST_SHARE = 0.35
"""A thing is no longer named if less than this share of what was visible of it in its scene is left."""
LEAST_SIDE = 0.05
"""Nor is a thing named whose visible box is narrower than this fraction of the picture."""

_SIZES = (64, 80, 96, 96, 112, 128)
_FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class View:
    """image uint8 (S, S, 3); boxes float32 (n, 4), x0 y0 x1 y1 in fractions; names of the n things."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    names: tuple[str, ...]


def visible_things(objects: NDArray[np.uint8]) -> dict[int, tuple[tuple[int, int, int, int], int]]:
    """Number in a map (H, W) of numbered things -> (its box in pixels, x1 and y1 exclusive; its pixels)."""
    found = {}
    counts = np.bincount(objects.ravel())
    for k in np.nonzero(counts)[0]:
        if k == 0:
            continue
        mask = objects == k
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        found[int(k)] = (box, int(counts[k]))
    return found


def plain_view(pool: Pool, i: int, size: int) -> View:
    """Scene i of the pool as it is, at another size."""
    height, width = pool.objects[i].shape
    seen = visible_things(pool.objects[i])
    boxes = np.array([b for b, _ in seen.values()], np.float32).reshape(-1, 4) / (width, height, width, height)
    image = Image.fromarray(pool.images[i]).resize((size, size), Image.Resampling.BILINEAR)
    return View(np.asarray(image), boxes.astype(np.float32), tuple(pool.facts[i][k - 1].name for k in seen))


def training_view(pool: Pool, i: int, size: int, seed: int = 0) -> View:
    """View number i: scene i (modulo the size of the pool) with everything above drawn at random."""
    rng = np.random.default_rng([11, seed, i])
    here = i % len(pool)
    image, objects = np.array(pool.images[here]), np.array(pool.objects[here])
    names = [fact.name for fact in pool.facts[here]]
    whole = [0, *np.bincount(objects.ravel(), minlength=len(names) + 1)[1:].tolist()]
    while rng.random() < 0.35:
        _lay_over(rng, pool, image, objects, names, whole)
    image, objects = _cropped(rng, image, objects)
    height, width = objects.shape
    boxes, kept = [], []
    for k, ((x0, y0, x1, y1), area) in visible_things(objects).items():
        box = (x0 / width, y0 / height, x1 / width, y1 / height)
        if area >= LEAST_SHARE * whole[k] and min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE:
            boxes.append(box)
            kept.append(names[k - 1])
    pixels = _seen_through(rng, Image.fromarray(image), size)
    return View(pixels, np.array(boxes, np.float32).reshape(-1, 4), tuple(kept))


def _lay_over(
    rng: np.random.Generator,
    pool: Pool,
    image: NDArray[np.uint8],
    objects: NDArray[np.uint8],
    names: list[str],
    whole: list[int],
) -> None:
    """Lay a thing of another scene somewhere, or a region of it in its place, over the picture (in place)."""
    other = int(rng.integers(len(pool)))
    theirs, pixels = pool.objects[other], pool.images[other]
    areas = np.bincount(theirs.ravel(), minlength=len(pool.facts[other]) + 1)
    size = len(objects)
    if rng.random() < 0.6:  # one thing, moved
        k = int(rng.choice(np.nonzero(areas[1:])[0])) + 1
        ((x0, y0, x1, y1), _) = visible_things(np.where(theirs == k, 1, 0))[1]
        left, top = (int(rng.integers(0, size - side + 1)) for side in (x1 - x0, y1 - y0))
        place = (slice(top, top + y1 - y0), slice(left, left + x1 - x0))
        source = (slice(y0, y1), slice(x0, x1))
        mask = theirs[source] == k
    else:  # a soft-edged ellipse or a rectangle, as an inpainted region has
        w, h = (int(v) for v in rng.uniform(0.15, 0.5, 2) * size)
        left, top = int(rng.integers(0, size - w + 1)), int(rng.integers(0, size - h + 1))
        place = source = (slice(top, top + h), slice(left, left + w))
        y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        mask = x**2 + y**2 < 1 if rng.random() < 0.5 else np.ones((h, w), bool)
    soft = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.5))))
    alpha = np.where(mask, np.asarray(soft, np.float32) / 255, 0)[..., None]
    image[place] = np.rint(alpha * pixels[source] + (1 - alpha) * image[place]).astype(np.uint8)
    there = theirs[source]
    objects[place] = np.where(mask, np.where(there > 0, there + len(names), 0), objects[place])
    names += [fact.name for fact in pool.facts[other]]
    whole += areas[1:].tolist()


def _cropped(
    rng: np.random.Generator, image: NDArray[np.uint8], objects: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Perhaps a part of the picture, of another shape, and perhaps its mirror image."""
    if rng.random() < 0.35:
        size = len(objects)
        w, h = (int(v) for v in rng.uniform(0.7, 1.0, 2) * size)
        left, top = int(rng.integers(0, size - w + 1)), int(rng.integers(0, size - h + 1))
        image, objects = image[top : top + h, left : left + w], objects[top : top + h, left : left + w]
    if rng.random() < 0.5:
        image, objects = image[:, ::-1], objects[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(objects)


def _seen_through(rng: np.random.Generator, image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The picture at some resolution, as cameras, codecs and autoencoders leave it, then at `size`."""
    side = int(rng.choice(_SIZES))
    image = image.resize((side, side), _FILTERS[rng.integers(len(_FILTERS))])
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.3)) * side / 128))
    if rng.random() < 0.3:  # fine detail lost in part, as behind an autoencoder's bottleneck
        small = image.resize((side // 2, side // 2), Image.Resampling.BOX)
        image = Image.blend(image, small.resize((side, side), Image.Resampling.BICUBIC), float(rng.uniform(0.3, 1.0)))
    if rng.random() < 0.6:
        image = _recoloured(rng, image)
    if rng.random() < 0.4:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(30, 96)))
        image = Image.open(buffer).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _recoloured(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Other light, contrast and saturation, with noise in fine and in coarse grains."""
    pixels = np.asarray(image, np.float32)
    grey = pixels.mean(2, keepdims=True)
    pixels = grey + (pixels - grey) * np.float32(rng.uniform(0.6, 1.3))
    pixels = (pixels - 128) * np.float32(rng.uniform(0.75, 1.2)) + 128 + np.float32(rng.uniform(-22, 22))
    pixels = pixels * rng.uniform(0.92, 1.08, 3).astype(np.float32)
    if rng.random() < 0.5:
        pixels = pixels + rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(2, 12))
    if rng.random() < 0.4:
        coarse = rng.normal(128, rng.uniform(3, 12), (8, 8, 3)).clip(0, 255).astype(np.uint8)
        blotches = Image.fromarray(coarse).resize(image.size, Image.Resampling.BICUBIC)
        pixels = pixels + np.asarray(blotches, np.float32) - 128
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
