"""A stage's questions as packs, an image with up to K of its questions, ordered by seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset, Sampler

from vsre.train.examples import Example
from vsre.train.store import Store

Pack = np.ndarray
"""Question rows (int64) of one sequence, all about the same image."""


class PackedQuestions(Dataset):
    """Several stores as one, rows and images numbered through. An item is a Pack, given by PackSampler."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = list(stores)
        self._bases = np.cumsum([0, *(len(s) for s in stores)])
        images = np.cumsum([0, *(len(s.image_offsets) - 1 for s in stores)])
        self.image_of = np.concatenate([s.image_of + b for s, b in zip(stores, images, strict=False)])
        self.lengths = np.concatenate([np.diff(s.offsets) for s in stores])
        self.n_images = int(images[-1])
        self._image_bases = images

    def __len__(self) -> int:
        """Questions, not packs: PackSampler decides how many packs they make."""
        return len(self.image_of)

    def _locate(self, row: int) -> tuple[Store, int]:
        at = int(np.searchsorted(self._bases, row, side="right")) - 1
        return self.stores[at], int(row - self._bases[at])

    def __getitem__(self, pack: Pack) -> tuple[Pack, list[Example]]:
        return pack, [store.example(row) for store, row in map(self._locate, pack)]

    def image(self, image: int) -> bytes:
        at = int(np.searchsorted(self._image_bases, image, side="right")) - 1
        return self.stores[at].image(int(image - self._image_bases[at]))

    def question_ids(self, rows: Sequence[int]) -> list[str]:
        """KEY/TEMPLATE of each row, in order."""
        names: dict[int, str] = {}
        for store, base in zip(self.stores, self._bases.tolist(), strict=False):
            own = sorted({row for row in rows if base <= row < base + len(store)})
            names.update(zip(own, store.question_ids([row - base for row in own]), strict=True))
        return [names[row] for row in rows]


class PackSampler(Sampler[Pack]):
    """Every image of a data set once or more an epoch, its questions shuffled and cut into packs of at most
    K.

    The order is a function of (seed, epoch) alone, so that a resumed run continues with the very next pack.
    The first epoch begins with the `first_batch` longest packs: running out of memory shows in the first
    minute.
    """

    def __init__(self, data: PackedQuestions, k: int, seed: int, first_batch: int) -> None:
        self.data, self.seed, self.first_batch, self.epoch = data, seed, first_batch, 0
        _, sizes = np.unique(data.image_of, return_counts=True)
        ends = np.cumsum(sizes)
        cuts = [np.arange(end - size, end, k) for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]
        self.starts = np.concatenate(cuts)
        self.stops = np.append(self.starts[1:], len(data))

    def __len__(self) -> int:
        return len(self.starts)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Pack]:
        generator = np.random.default_rng((self.seed, self.epoch))
        rows = np.lexsort((generator.random(len(self.data)), self.data.image_of))
        packs = generator.permutation(len(self))
        if self.epoch == 0:
            tokens = np.add.reduceat(self.data.lengths[rows], self.starts)[packs]
            longest = np.argsort(-tokens, kind="stable")[: self.first_batch]
            packs = np.concatenate([packs[longest], np.delete(packs, longest)])
        for pack in packs:
            yield rows[self.starts[pack] : self.stops[pack]]
