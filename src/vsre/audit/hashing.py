"""Fingerprints of pictures, and which pictures of two sets are nearly the same.

The perceptual hash is the usual one: the picture in grey at 32 x 32, its cosine transform, the 63 lowest frequencies
after the mean, each above their median or not. Two saves of one photo differ in a few of these bits, two photos in
about 32. Drawn pictures with a lot of empty background come closer than photos do, so each candidate is confirmed on
its 16 x 16 grey picture: a thing that moved changes some cell a lot, another size or compression changes all cells a
little.

Pictures that were saved again, resized, made brighter or duller, turned to grey or mirrored are found; cropped, rotated
or redrawn ones are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import dctn  # type: ignore[import-untyped]

from vsre.sources.images import load_image

Array = np.ndarray[Any, np.dtype[Any]]

NEAR_BITS = 10
"""Bits (of 63) in which two near duplicates may differ."""

NEAR_TONES = 28.0
"""Grey levels (of 255) by which a cell of the 16 x 16 may differ once brightness and contrast are equalised."""

_SIDE, _KEPT, _CELLS = 32, 8, 16
_EMPTY = 3.0  # grey levels of spread below which a picture shows nothing
_BLOCK = 1 << 16  # pairs of hashes compared at a time: half a megabyte stays in the processor's cache
_CONFIRMED = 1 << 12  # candidates confirmed at a time: 8 MB


class Fingerprint(NamedTuple):
    """`bits` and `mirrored`: the hash of the picture and of its mirror image; `cells`: 16 x 16 grey levels, uint8."""

    bits: int
    mirrored: int
    cells: bytes


@dataclass(frozen=True)
class Prints:
    """Fingerprints of n pictures as arrays: bits and mirrored (n,) uint64, cells (n, 16, 16) uint8."""

    bits: Array
    mirrored: Array
    cells: Array

    @staticmethod
    def of(prints: list[Fingerprint]) -> Prints:
        cells = np.frombuffer(b"".join(p.cells for p in prints), np.uint8)
        return Prints(
            np.array([p.bits for p in prints], np.uint64),
            np.array([p.mirrored for p in prints], np.uint64),
            cells.reshape(-1, _CELLS, _CELLS),
        )


def fingerprint(data: bytes, *, name: str | None = None) -> Fingerprint:
    """Return the fingerprint of an encoded picture; raises VsreError for what `load_image` refuses."""
    grey = load_image(data, name=name).convert("L")
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    cells = small.reshape(_CELLS, 2, _CELLS, 2).mean((1, 3)).round().astype(np.uint8)
    return Fingerprint(_hash(small), _hash(small[:, ::-1]), cells.tobytes())


def near_pairs(
    first: Prints, second: Prints, *, bits: int = NEAR_BITS, tones: float = NEAR_TONES
) -> Iterator[tuple[int, int, bool]]:
    """Yield (index in first, index in second, whether one is the mirror image) of all near duplicates.

    All n x m pairs are compared, in blocks: a hundred thousand pictures against ten thousand take seconds.
    """
    if not len(first.bits) or not len(second.bits):
        return
    for mirror, hashes in ((False, first.bits), (True, first.mirrored)):
        for i, j in _candidates(hashes, second.bits, bits):
            cells = first.cells[i, :, ::-1] if mirror else first.cells[i]
            same = _largest_difference(cells, second.cells[j]) <= tones
            yield from ((int(a), int(b), mirror) for a, b in zip(i[same], j[same], strict=True))


def _candidates(first: Array, second: Array, bits: int) -> Iterator[tuple[Array, Array]]:
    """Yield indices into both of the pairs at most so many bits apart, some thousands at a time."""
    columns = min(len(second), 1 << 12)
    rows = max(1, _BLOCK // columns)
    for start in range(0, len(first), rows):
        for column in range(0, len(second), columns):
            block = first[start : start + rows, None] ^ second[None, column : column + columns]
            found, other = np.nonzero(_ones(block) <= bits)
            for at in range(0, len(found), _CONFIRMED):
                yield found[at : at + _CONFIRMED] + start, other[at : at + _CONFIRMED] + column


def near(first: Fingerprint, second: Fingerprint) -> bool:
    """Whether two pictures are near duplicates without mirroring."""
    return any(not mirror for *_, mirror in near_pairs(Prints.of([first]), Prints.of([second])))


def _largest_difference(a: Array, b: Array) -> Array:
    """Return the largest cell difference (n,), in grey levels, of pictures (n, 16, 16) of equalised tones."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    (plain_a, deep_a), (plain_b, deep_b) = _standard(a), _standard(b)
    difference = np.abs(plain_a - plain_b).max((1, 2)) * np.sqrt(deep_a * deep_b)
    # Empty pictures are compared as they are: once equalised, white and black would be the same picture.
    difference = np.where(np.maximum(deep_a, deep_b) < _EMPTY, np.abs(a - b).max((1, 2)), difference)
    # With far less contrast, the other one has lost content and is not just a duller copy.
    return np.where(np.maximum(deep_a, deep_b) > 3 * np.minimum(deep_a, deep_b), np.inf, difference)


def _standard(cells: Array) -> tuple[Array, Array]:
    """Return cells of mean 0 and spread 1, and the spread (n,) in grey levels."""
    depth = np.maximum(cells.std((1, 2)), 1.0)
    return (cells - cells.mean((1, 2), keepdims=True)) / depth[:, None, None], depth


def _hash(grey: Array) -> int:
    """Return 63 bits of a grey picture (32, 32): the mean says nothing and is left out."""
    low = dctn(grey)[:_KEPT, :_KEPT].ravel()[1:] / 4  # the cosines' plain sums; SciPy doubles them along each side
    low = low.round(6)  # an empty picture gives nothing but noise
    return int.from_bytes(np.packbits(low > np.median(low), bitorder="big").tobytes(), "big")


if hasattr(np, "bitwise_count"):  # numpy 2

    def _ones(words: Array) -> Array:
        return np.bitwise_count(words)

else:

    def _ones(words: Array) -> Array:
        return np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(-1, dtype=np.uint8)
