"""Pictures that look alike: a 64-bit hash of how a picture looks from afar, and the pairs whose hashes are close.

The hash is the difference hash: grey, 9 x 8 pixels, one bit per pair of neighbours in a row, 1 if it gets brighter to
the right. Scaled, compressed or slightly changed copies differ in few bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 3
"""Pictures whose hashes differ in at most this many of 64 bits count as near-duplicates."""

_BANDS = NEAR + 1
_BAND_BITS = 64 // _BANDS


def dhash(image: Image.Image) -> int:
    """The difference hash, 64 bits."""
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def near_duplicates(hashes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(index, earlier index, number of differing bits) for each hash that has an earlier one within NEAR bits: the
    nearest, or the first of several. In the order of the hashes.

    Hashes within NEAR bits agree in one of NEAR + 1 bands (by the pigeonhole principle), so only hashes that share a
    band are compared, and no pair is missed. Equal hashes are compared once.
    """
    values, first, group = np.unique(np.asarray(hashes, np.uint64), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    values, first, group = values[order], first[order], rank[group]
    nearest = _nearest_earlier(values)
    for index, of in enumerate(group):
        if first[of] != index:
            yield index, int(first[of]), 0
        elif of in nearest:
            earlier, bits = nearest[int(of)]
            yield index, int(first[earlier]), bits


def _nearest_earlier(values: NDArray[np.uint64]) -> dict[int, tuple[int, int]]:
    """Index -> (nearest earlier index within NEAR bits, number of differing bits), for distinct values."""
    found: dict[int, tuple[int, int]] = {}
    for band in range(_BANDS):
        keys = (values >> np.uint64(band * _BAND_BITS)) & np.uint64((1 << _BAND_BITS) - 1)
        order = np.argsort(keys, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for at in range(1, len(members)):
                bits = np.bitwise_count(values[members[:at]] ^ values[members[at]])
                best = int(bits.argmin())
                pair = (int(members[best]), int(bits[best]))
                index = int(members[at])
                if pair[1] <= NEAR and (index not in found or (pair[1], pair[0]) < found[index][::-1]):
                    found[index] = pair
    return found
