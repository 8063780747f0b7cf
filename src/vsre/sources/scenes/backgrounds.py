"""Backgrounds of the embedded world: a ground plane in perspective up to the horizon, and what is behind it.

A background is a kind and a seed; the seed chooses tints, light and texture, so that a scene drawn again with
another seed shows the same things elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HORIZON = 0.4
"""Height of the horizon, as a fraction of the picture from the top, in every background."""

Pixels = NDArray[np.float32]
_TILE = 256


@lru_cache(maxsize=4)
def _noise(softness: float) -> Pixels:
    """A seamless tile of noise at several scales, (256, 256), mean 0, standard deviation 1; 2 is cloud, 1 is sand."""
    rng = np.random.default_rng(7)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_TILE), np.fft.fftfreq(_TILE)))
    spectrum = np.fft.fft2(rng.standard_normal((_TILE, _TILE))) / np.maximum(frequency, 1 / _TILE) ** softness
    spectrum[0, 0] = 0
    tile = np.real(np.fft.ifft2(spectrum))
    return (tile / tile.std()).astype(np.float32)


@lru_cache(maxsize=8)
def _ground_grid(size: int) -> tuple[Pixels, Pixels, Pixels]:
    """For the rows below the horizon: (u, v) on the ground, where v is distance, and nearness 0..1; each (rows,
    size)."""
    first = round(HORIZON * size)
    t = ((np.arange(first, size, dtype=np.float32) + 0.5) / size - HORIZON) / (1 - HORIZON)
    distance = (1 / (t + 0.12)).astype(np.float32)
    x = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    u = (x[None, :] * distance[:, None]).astype(np.float32)
    v = np.broadcast_to(distance[:, None], u.shape)
    near = np.broadcast_to(t.astype(np.float32)[:, None], u.shape)
    return u, v, near


def _grain(rng: random.Random, u: Pixels, v: Pixels, scale: float, softness: float = 0.9) -> Pixels:
    rows = (v * scale + rng.random() * _TILE).astype(np.int32) % _TILE
    columns = (u * scale + rng.random() * _TILE).astype(np.int32) % _TILE
    return _noise(softness)[rows, columns]


def _tint(rng: random.Random, *choices: tuple[int, int, int]) -> Pixels:
    base = rng.choice(choices)
    return np.array([c + rng.uniform(-12, 12) for c in base], dtype=np.float32)


def _plain(size: int, rows: int, colour: Pixels, end: Pixels | None = None) -> Pixels:
    """A vertical blend of two colours, (rows, size, 3)."""
    end = colour if end is None else end
    t = np.linspace(0, 1, max(rows, 1), dtype=np.float32)[:rows, None, None]
    return np.broadcast_to(colour * (1 - t) + end * t, (rows, size, 3)).copy()


def _sky(rng: random.Random, size: int, rows: int) -> Pixels:
    top = _tint(rng, (120, 178, 230), (150, 196, 236), (176, 200, 224), (236, 190, 150), (110, 150, 210))
    low = _tint(rng, (214, 232, 246), (232, 236, 240), (246, 226, 204))
    sky = _plain(size, rows, top, low)
    y, x = np.mgrid[0:rows, 0:size].astype(np.float32) / size
    clouds = np.clip(_grain(rng, x, y * 2.2, 110, 1.7) - 0.3, 0, 1.2)
    return sky + (255 - sky) * (clouds * 0.45)[..., None]


def _ground(rng: random.Random, size: int, colour: Pixels, grain: float, scale: float) -> Pixels:
    u, v, near = _ground_grid(size)
    shade = 0.86 + 0.14 * near + grain * _grain(rng, u, v, scale) * (0.35 + 0.65 * near)
    return colour * shade[..., None]


def _room(rng: random.Random, size: int, rows: int) -> tuple[Pixels, Pixels]:
    colour = _tint(rng, (226, 214, 196), (200, 214, 222), (214, 224, 206), (228, 206, 204), (206, 202, 222))
    wall = _plain(size, rows, colour * 0.97, colour * 1.03)
    y, x = np.mgrid[0:rows, 0:size].astype(np.float32) / size
    wall *= (1 + 0.012 * _grain(rng, x, y, 120))[..., None]
    if rng.random() < 0.4:
        stripe = (np.floor(x * rng.choice((9, 13, 17))) % 2) * 0.035
        wall *= (1 - stripe)[..., None]
    wall[rows - max(2, size // 40) :] *= 0.82
    floor = _tint(rng, (188, 150, 112), (160, 122, 92), (176, 168, 160), (206, 190, 166), (150, 140, 150))
    ground = _ground(rng, size, floor, 0.035, 26)
    u, v, _ = _ground_grid(size)
    planks = (u * 3.2 + 100) % 1 < 0.045
    tiles = ((u * 2 + 100) % 1 < 0.035) | ((v * 1.1) % 1 < 0.05)
    seam = planks if rng.random() < 0.5 else tiles
    ground *= np.where(seam, 0.9, 1.0).astype(np.float32)[..., None]
    return wall, ground


def _meadow(rng: random.Random, size: int, rows: int) -> tuple[Pixels, Pixels]:
    grass = _tint(rng, (128, 176, 92), (148, 184, 100), (110, 164, 104), (172, 182, 104))
    return _sky(rng, size, rows), _ground(rng, size, grass, 0.09, 70)


def _beach(rng: random.Random, size: int, rows: int) -> tuple[Pixels, Pixels]:
    above = _sky(rng, size, rows)
    sea = max(3, round(rows * 0.16))
    above[rows - sea :] = _plain(size, sea, _tint(rng, (84, 150, 190), (96, 170, 186)))
    return above, _ground(rng, size, _tint(rng, (230, 208, 164), (216, 196, 160)), 0.045, 60)


def _road(rng: random.Random, size: int, rows: int) -> tuple[Pixels, Pixels]:
    asphalt = _tint(rng, (142, 144, 150), (156, 152, 148), (128, 132, 142))
    ground = _ground(rng, size, asphalt, 0.05, 80)
    u, v, _ = _ground_grid(size)
    dashes = (np.abs(u - rng.uniform(-0.2, 0.2)) < 0.035) & ((v * 1.3) % 1 < 0.55)
    ground[dashes] = ground[dashes] * 0.35 + 240 * 0.65
    kerb = max(2, round(size * 0.02))
    ground[:kerb] = ground[:kerb] * 0.4 + 200 * 0.6
    return _sky(rng, size, rows), ground


def _snow(rng: random.Random, size: int, rows: int) -> tuple[Pixels, Pixels]:
    return _sky(rng, size, rows), _ground(rng, size, _tint(rng, (226, 232, 240), (216, 226, 238)), 0.025, 50)


_KINDS: dict[str, Callable[[random.Random, int, int], tuple[Pixels, Pixels]]] = {
    "room": _room,
    "meadow": _meadow,
    "beach": _beach,
    "road": _road,
    "snow": _snow,
}

BACKGROUNDS: tuple[str, ...] = tuple(_KINDS)


@lru_cache(maxsize=32)
def background(kind: str, seed: int, size: int) -> NDArray[np.uint8]:
    """The empty background, (size, size, 3) uint8; the same kind and seed give the same picture at every size."""
    rng = random.Random(f"{kind}/{seed}")
    light = np.array([rng.uniform(0.93, 1.05)] * 3, dtype=np.float32)
    warmth = rng.uniform(-0.03, 0.03)
    light *= np.array([1 + warmth, 1, 1 - warmth], dtype=np.float32)
    above, ground = _KINDS[kind](rng, size, round(HORIZON * size))
    return np.clip(np.concatenate([above, ground]) * light, 0, 255).astype(np.uint8)
