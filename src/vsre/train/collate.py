"""Turns packs into batches: pictures through the processor's image processor, text through the packer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from vsre.errors import VsreError
from vsre.sources.images import load_image
from vsre.train.data import Pack, PackedQuestions
from vsre.train.examples import Example
from vsre.train.features import FeatureCache
from vsre.train.packing import Packer
from vsre.train.vision import FEATURES


class Collator:
    """Turns packs into a batch: pictures as pixel values or, with a feature cache, frozen features; the rest by Packer.

    Besides the model's inputs a batch holds `tokens`, `branch` and `rows`, the question rows, for naming them in a
    message. Processed images are kept up to `cache_bytes`; the least recently used are dropped first.
    """

    def __init__(
        self,
        data: PackedQuestions,
        packer: Packer,
        image_processor: Any,
        cache_bytes: int = 1 << 29,
    ) -> None:
        self.data, self.packer, self.image_processor = data, packer, image_processor
        self.cache_bytes = cache_bytes
        self.features: FeatureCache | None = None
        self._cache: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._cached = 0

    def pixels(self, image: int) -> torch.Tensor:
        """The pixel values of one image, (3, H, W)."""
        if (hit := self._cache.get(image)) is not None:
            self._cache.move_to_end(image)
            return hit
        try:
            picture = load_image(self.data.image(image))
        except VsreError as error:
            name = self.data.question_ids([int((self.data.image_of == image).argmax())])[0]
            raise VsreError(f"the image of question {name}: {error}") from error
        pixels: torch.Tensor = self.image_processor(images=[picture], return_tensors="pt")["pixel_values"][0]
        self._cache[image] = pixels
        self._cached += pixels.nbytes
        while self._cached > self.cache_bytes:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def read_from(self, features: FeatureCache) -> None:
        """Use cached features from now on, and drop the pixels that were kept while they were computed."""
        self.features = features
        self._cache.clear()
        self._cached = 0

    @property
    def damaged(self) -> int:
        """How many files of the feature cache were found damaged."""
        return self.features.damaged if self.features else 0

    def _features(self, image: int, cache: FeatureCache) -> dict[str, torch.Tensor]:
        """bf16 features of one image, computed again if the cached ones are damaged."""
        found = cache.read(self.data.image_id(image))
        if found is None:
            made = cache.vision.features(self.pixels(image)[None])
            found = {name: value[0].cpu() for name, value in made.items()}
        return found

    def __call__(self, items: Sequence[tuple[Pack, list[Example]]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.packer.batch([examples for _, examples in items])
        images = [int(self.data.image_of[pack[0]]) for pack, _ in items]
        if self.features is None:
            batch["pixel_values"] = torch.stack([self.pixels(i) for i in images])
        else:
            found = [self._features(i, self.features) for i in images]
            batch[FEATURES] = {name: torch.stack([f[name] for f in found]) for name in found[0]}
        batch["rows"] = [int(row) for pack, _ in items for row in pack]
        return batch
