from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_sdxl import photo

from vsre.repaint.alike_pictures import NEAR, dhash, near_duplicates
from vsre.sources.images import load_image


def test_the_hash_is_of_neighbours_in_a_row() -> None:
    ramp = np.tile(np.arange(0, 180, 20, dtype=np.uint8), (8, 1))
    assert dhash(Image.fromarray(ramp)) == 2**64 - 1
    assert dhash(Image.fromarray(ramp[:, ::-1].copy())) == 0
    ramp[0] = ramp[0, ::-1]
    assert dhash(Image.fromarray(ramp)) == 2**56 - 1, "the first row is the highest byte"


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_near_and_other_pictures_are_not(seed: int) -> None:
    image = load_image(photo(seed, 160, 120))
    copies = [image.resize((80, 60)), image.point(lambda v: min(v + 8, 255)), image.resize((161, 121))]
    assert all((dhash(image) ^ dhash(copy)).bit_count() <= NEAR for copy in copies)
    others = [load_image(photo(n, 160, 120)) for n in range(20, 30)]
    assert all((dhash(image) ^ dhash(other)).bit_count() > NEAR for other in others)


def by_comparing_all(hashes: list[int]) -> list[tuple[int, int, int]]:
    found = []
    for index, value in enumerate(hashes):
        nearest = (
            min(((value ^ other).bit_count(), at) for at, other in enumerate(hashes[:index])) if index else (65, 0)
        )
        if nearest[0] <= NEAR:
            found.append((index, nearest[1], nearest[0]))
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 60))
def test_no_pair_is_missed(seed: int, count: int) -> None:
    rng = Random(seed)
    hashes: list[int] = []
    for _ in range(count):
        value = rng.choice(hashes) if hashes and rng.random() < 0.7 else rng.getrandbits(64)
        for _ in range(rng.randrange(NEAR + 3)):
            value ^= 1 << rng.randrange(64)
        hashes.append(value)
    assert list(near_duplicates(hashes)) == by_comparing_all(hashes)


def test_the_highest_bits_count_too() -> None:
    assert list(near_duplicates([2**64 - 1, 2**63 - 1, 0])) == [(1, 0, 1)]
