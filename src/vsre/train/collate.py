"""Packs to batches: pictures by the processor's image processor, text by the packer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from vsre.errors import VsreError
from vsre.sources.images import load_image
from vsre.train.data import Pack, PackedQuestions
from vsre.train.examples import Example
from vsre.train.packing import Packer


class Collator:
    """Packs to a batch: pixel values by the processor's image processor, the rest by Packer.

    Besides the model's inputs a batch holds `tokens` and `rows`, a list of question rows to name them in a
    message. Processed images are kept up to `cache_bytes`, the least recently used out first.
    """

    def __init__(self, data: PackedQuestions, packer: Packer, image_processor: Any, cache_bytes: int = 1 << 29) -> None:
        self.data, self.packer, self.image_processor, self.cache_bytes = (
            data,
            packer,
            image_processor,
            cache_bytes,
        )
        self._cache: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._cached = 0

    def _pixels(self, image: int, rows: Pack) -> torch.Tensor:
        """One image as the model takes it, (3, H, W)."""
        if (hit := self._cache.get(image)) is not None:
            self._cache.move_to_end(image)
            return hit
        try:
            picture = load_image(self.data.image(image))
        except VsreError as error:
            name = self.data.question_ids([int(rows[0])])[0]
            raise VsreError(f"the image of question {name}: {error}") from error
        pixels: torch.Tensor = self.image_processor(images=[picture], return_tensors="pt")["pixel_values"][0]
        self._cache[image] = pixels
        self._cached += pixels.nbytes
        while self._cached > self.cache_bytes:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def __call__(self, items: Sequence[tuple[Pack, list[Example]]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.packer.batch([examples for _, examples in items])
        images = [int(self.data.image_of[pack[0]]) for pack, _ in items]
        batch["pixel_values"] = torch.stack([self._pixels(i, p) for i, (p, _) in zip(images, items, strict=True)])
        batch["rows"] = [int(row) for pack, _ in items for row in pack]
        return batch
