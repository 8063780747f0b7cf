"""A stage's questions as packs, an image with up to K of its questions, ordered by seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset, Sampler

from vsre.train.examples import Example
from vsre.train.store import Store

Pack = np.ndarray
"""Question rows (int64) of one sequence, all about the same image; a filler has ~row in place of row."""


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
        """The pack's rows and their examples; of a filler nothing is learnt."""
        if pack[0] < 0:
            rows, examples = self[~pack]
            return rows, [replace(example, end=example.first) for example in examples]
        return pack, [store.example(row) for store, row in map(self._locate, pack)]

    def image(self, image: int) -> bytes:
        at = int(np.searchsorted(self._image_bases, image, side="right")) - 1
        return self.stores[at].image(int(image - self._image_bases[at]))

    def image_id(self, image: int) -> str:
        """The content id of an image's bytes."""
        at = int(np.searchsorted(self._image_bases, image, side="right")) - 1
        return str(self.stores[at].image_ids[int(image - self._image_bases[at])])

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

    `batch` packs make a step. Their lengths are alike and fall within the step, so that little of a pass is padding
    and no process waits long for another: shuffled packs are sorted by length within stretches of up to 50 steps, and
    the steps of a stretch are shuffled. The order is a function of (seed, epoch) alone, not of passes or processes,
    and a resumed run continues with the very next pack. The first epoch begins with the longest packs: running out of
    memory shows in the first minute.

    Where processes share a step each must have as many packs in a pass, at an epoch's end too. Up to a multiple of
    `whole` packs it is filled with copies of the shortest, of which nothing is learnt.
    """

    def __init__(self, data: PackedQuestions, k: int, seed: int, batch: int, whole: int = 1) -> None:
        self.data, self.seed, self.batch, self.whole, self.epoch = data, seed, batch, whole, 0
        _, sizes = np.unique(data.image_of, return_counts=True)
        ends = np.cumsum(sizes)
        cuts = [np.arange(end - size, end, k) for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]
        self.starts = np.concatenate(cuts)
        self.stops = np.append(self.starts[1:], len(data))

    def __len__(self) -> int:
        return len(self.starts) + self.fillers

    @property
    def fillers(self) -> int:
        """Packs an epoch of which nothing is learnt."""
        return -len(self.starts) % self.whole

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Pack]:
        generator = np.random.default_rng((self.seed, self.epoch))
        rows = np.lexsort((generator.random(len(self.data)), self.data.image_of))
        tokens = np.add.reduceat(self.data.lengths[rows], self.starts)
        for pack in self._order(tokens, generator):
            yield rows[self.starts[pack] : self.stops[pack]]
        shortest = int(tokens.argmin())
        for _ in range(self.fillers):
            yield ~rows[self.starts[shortest] : self.stops[shortest]]

    def _order(self, tokens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The packs, given the tokens of each."""
        packs = generator.permutation(len(tokens))
        longest = packs[:0]
        if self.epoch == 0:
            longest = np.argsort(-tokens, kind="stable")[: self.batch]
            packs = packs[~np.isin(packs, longest)]
        # At least four stretches, or a small data set would come sorted by length in every epoch alike.
        stretch = self.batch * min(50, max(1, len(packs) // (4 * self.batch)))
        order = [longest]
        for start in range(0, len(packs), stretch):
            part = packs[start : start + stretch]
            part = part[np.argsort(-tokens[part], kind="stable")]
            whole = len(part) // self.batch * self.batch
            batches = part[:whole].reshape(-1, self.batch)
            # What fills no batch stays last: it can only be the end of the epoch.
            order += [generator.permutation(batches).reshape(-1), part[whole:]]
        return np.concatenate(order)
