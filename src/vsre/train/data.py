"""A stage's questions as packs (an image with up to K of its questions), in an order set by seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from torch.utils.data import Dataset, Sampler

from vsre.train.examples import Example
from vsre.train.store import Store

Pack = np.ndarray
"""Question rows (int64) of one sequence, all about the same image; a filler has ~row in place of row."""


class PackedQuestions(Dataset):
    """Several stores as one, rows and images numbered consecutively. It is indexed by the Packs of PackSampler."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = list(stores)
        self.bases = np.cumsum([0, *(len(s) for s in stores)])
        images = np.cumsum([0, *(len(s.image_offsets) - 1 for s in stores)])
        self.image_of = np.concatenate([s.image_of + b for s, b in zip(stores, images, strict=False)])
        self.lengths = np.concatenate([np.diff(s.offsets) for s in stores])
        self.n_images = int(images[-1])
        self._image_bases = images

    def __len__(self) -> int:
        """Questions, not packs: PackSampler decides how many packs they make."""
        return len(self.image_of)

    def _locate(self, row: int) -> tuple[Store, int]:
        at = int(np.searchsorted(self.bases, row, side="right")) - 1
        return self.stores[at], int(row - self.bases[at])

    def __getitem__(self, pack: Pack) -> tuple[Pack, list[Example]]:
        """The pack's rows and their examples; nothing is learnt from a filler."""
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
        for store, base in zip(self.stores, self.bases.tolist(), strict=False):
            own = sorted({row for row in rows if base <= row < base + len(store)})
            names.update(zip(own, store.question_ids([row - base for row in own]), strict=True))
        return [names[row] for row in rows]


class PackSampler(Sampler[Pack]):
    """Yields an epoch's packs: each image's questions, shuffled and cut into packs of at most K.

    `batch` packs make a step. Their lengths are similar and decrease within the step, so that a pass has little padding
    and no process waits long for another: shuffled packs are sorted by length within stretches of up to 50 steps, and
    the steps of a stretch are shuffled. The order is a function of (seed, epoch) alone, not of passes or processes,
    and a resumed run continues with the very next pack. The first epoch begins with the longest packs, so that running
    out of memory shows in the first minute.

    If processes share a step, each must have the same number of packs in a pass, even at the end of an epoch. It is
    therefore filled up to a multiple of `whole` packs with copies of the shortest, from which nothing is learnt.

    With `shares`, one per store of the data, each store gives its share of an epoch's packs: a large store some of its
    packs, in turn over the epochs, and a small one its packs several times.
    """

    def __init__(
        self,
        data: PackedQuestions,
        k: int,
        seed: int,
        batch: int,
        whole: int = 1,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.data, self.seed, self.batch, self.whole, self.epoch = data, seed, batch, whole, 0
        _, sizes = np.unique(data.image_of, return_counts=True)
        ends = np.cumsum(sizes)
        cuts = [np.arange(end - size, end, k) for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]
        self.starts = np.concatenate(cuts)
        self.stops = np.append(self.starts[1:], len(data))
        self._taken: np.ndarray | None = None
        if shares is not None:  # packs of each store per epoch; those lost to rounding go to the largest remainders
            self._first = np.searchsorted(self.starts, data.bases)  # each store's first pack, and the end
            exact = len(self.starts) * np.array(shares) / sum(shares)
            self._taken = np.floor(exact).astype(int)
            most = np.argsort(self._taken - exact, kind="stable")[: len(self.starts) - self._taken.sum()]
            self._taken[most] += 1
            for store in np.flatnonzero(self._taken == 0):  # every store is shown, in a small epoch too
                self._taken[store] += 1
                self._taken[self._taken.argmax()] -= 1

    def __len__(self) -> int:
        return len(self.starts) + self.fillers

    @property
    def questions_a_pack(self) -> float:
        """On average over an epoch, fillers left out."""
        sizes = self.stops - self.starts
        if self._taken is None:
            return float(sizes.mean())
        return float(np.average([sizes[a:b].mean() for a, b in pairwise(self._first)], weights=self._taken))

    @property
    def fillers(self) -> int:
        """How many packs of an epoch nothing is learnt from."""
        return -len(self.starts) % self.whole

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Pack]:
        generator = np.random.default_rng((self.seed, self.epoch))
        rows = np.lexsort((generator.random(len(self.data)), self.data.image_of))
        tokens = np.add.reduceat(self.data.lengths[rows], self.starts)
        packs = np.arange(len(tokens)) if self._taken is None else self._by_share(self._taken)
        for pack in self._order(generator.permutation(packs), tokens, generator):
            yield rows[self.starts[pack] : self.stops[pack]]
        shortest = int(tokens.argmin())
        for _ in range(self.fillers):
            yield ~rows[self.starts[shortest] : self.stops[shortest]]

    def _by_share(self, taken: np.ndarray) -> np.ndarray:
        """This epoch's packs: from each store the next ones in an endless series of random orders of its packs."""
        parts = []
        for store, count in enumerate(taken.tolist()):
            low, high = int(self._first[store]), int(self._first[store + 1])
            begin = self.epoch * count
            rounds = range(begin // (high - low), -(-(begin + count) // (high - low)))
            orders = [np.random.default_rng((self.seed, store, n, 1)).permutation(high - low) for n in rounds]
            if orders:
                skipped = begin - rounds.start * (high - low)
                parts.append(low + np.concatenate(orders)[skipped : skipped + count])
        return np.concatenate(parts)

    def _order(self, packs: np.ndarray, tokens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Randomly ordered packs arranged by length into steps; `tokens` has the length of every pack of the data."""
        longest = packs[:0]
        if self.epoch == 0:
            there = np.unique(packs)
            longest = there[np.argsort(-tokens[there], kind="stable")][: self.batch]
            _, places = np.unique(packs, return_index=True)  # of a repeated pack the first is taken
            packs = np.delete(packs, places[np.searchsorted(there, longest)])
        # At least four stretches, or the steps of a small data set would be the same in every epoch.
        stretch = self.batch * min(50, max(1, len(packs) // (4 * self.batch)))
        order = [longest]
        for start in range(0, len(packs), stretch):
            part = packs[start : start + stretch]
            part = part[np.argsort(-tokens[part], kind="stable")]
            whole = len(part) // self.batch * self.batch
            batches = part[:whole].reshape(-1, self.batch)
            # A rest that fills no batch stays last: it can only be the end of the epoch.
            order += [generator.permutation(batches).reshape(-1), part[whole:]]
        return np.concatenate(order)
