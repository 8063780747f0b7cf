"""Making the four tiny encoders: model, batches and measurement for each, all from zoo.yaml and a pool of scenes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, Dinov2Config, PreTrainedTokenizerFast, SamConfig, SiglipConfig

from vsre.zoo.fit import Batch
from vsre.zoo.objectives import ClipObjective, Dinov2Objective, SamObjective, SiglipObjective
from vsre.zoo.pool import Pool
from vsre.zoo.text import scene_caption

TEXT_LENGTH = 48
Collate = Callable[[Sequence[int]], Batch]


def images_of(pool: Pool, indices: Sequence[int]) -> Tensor:
    """The pictures with these indices, uint8 (n, 3, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(pool.images[list(indices)])).permute(0, 3, 1, 2)


def _text_config(settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return settings["text"] | {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def captions(pool: Pool, indices: Sequence[int], tokenizer: PreTrainedTokenizerFast, seed: int) -> Batch:
    """A caption for each scene, its end token last: input_ids and attention_mask (n, TEXT_LENGTH)."""
    texts = [
        scene_caption(pool.facts[i % len(pool)], random.Random(f"{seed}/{i}")) + str(tokenizer.eos_token)
        for i in indices
    ]
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _image_text(pool: Pool, tokenizer: PreTrainedTokenizerFast, seed: int) -> Collate:
    def collate(indices: Sequence[int]) -> Batch:
        scenes = [i % len(pool) for i in indices]
        return {"images": images_of(pool, scenes), **captions(pool, indices, tokenizer, seed)}

    return collate


def make_clip(settings: dict[str, Any], pool: Pool, tokenizer: PreTrainedTokenizerFast) -> tuple[nn.Module, Collate]:
    vision = settings["vision"] | {
        "image_size": pool.images.shape[1],
        "projection_dim": settings["projection_dim"],
    }
    config = CLIPConfig(
        text_config=_text_config(settings, tokenizer) | {"projection_dim": settings["projection_dim"]},
        vision_config=vision,
        projection_dim=settings["projection_dim"],
    )
    return ClipObjective(config), _image_text(pool, tokenizer, seed=1)


def make_siglip(settings: dict[str, Any], pool: Pool, tokenizer: PreTrainedTokenizerFast) -> tuple[nn.Module, Collate]:
    vision = settings["vision"] | {"image_size": pool.images.shape[1]}
    config = SiglipConfig(text_config=_text_config(settings, tokenizer), vision_config=vision)
    return SiglipObjective(config), _image_text(pool, tokenizer, seed=2)


def make_dinov2(settings: dict[str, Any], pool: Pool, tokenizer: PreTrainedTokenizerFast) -> tuple[nn.Module, Collate]:
    config = Dinov2Config(**settings["vision"], image_size=pool.images.shape[1])

    def collate(indices: Sequence[int]) -> Batch:
        return {
            "images": images_of(pool, [i % len(pool) for i in indices]),
            "seed": torch.tensor([indices[0]]),
        }

    return Dinov2Objective(config), collate


def make_sam(settings: dict[str, Any], pool: Pool, tokenizer: PreTrainedTokenizerFast) -> tuple[nn.Module, Collate]:
    size, prompts = pool.images.shape[1], int(settings["prompts"])
    config = SamConfig(
        vision_config=settings["vision"] | {"image_size": size},
        prompt_encoder_config=settings["prompt_encoder"] | {"image_size": size},
        mask_decoder_config=settings["mask_decoder"],
    )

    def collate(indices: Sequence[int]) -> Batch:
        return sam_batch(pool, indices, prompts) | {"use_boxes": torch.tensor([(indices[0] // len(indices)) % 2])}

    return SamObjective(config), collate


def sam_batch(pool: Pool, indices: Sequence[int], prompts: int) -> Batch:
    """`prompts` objects of each scene with a point on each, its box with some slack, and its visible mask."""
    scenes = [i % len(pool) for i in indices]
    objects = pool.objects[scenes]  # (B, S, S)
    size = objects.shape[1]
    points = np.zeros((len(scenes), prompts, 1, 2), np.float32)
    boxes = np.zeros((len(scenes), prompts, 4), np.float32)
    masks = np.zeros((len(scenes), prompts, size, size), np.uint8)
    for b, i in enumerate(indices):
        rng = np.random.default_rng([7, int(i)])
        seen, areas = np.unique(objects[b], return_counts=True)
        usable = [k for k, area in zip(seen, areas, strict=True) if k > 0 and area >= 12]
        if not usable:
            raise ValueError(f"scene {scenes[b]} of the pool shows no object")
        for p, k in enumerate(rng.choice(usable, prompts, replace=prompts > len(usable))):
            mask = objects[b] == k
            ys, xs = np.nonzero(mask)
            at = rng.integers(len(ys))
            points[b, p, 0] = xs[at], ys[at]
            slack = rng.uniform(-2, 2, 4)
            boxes[b, p] = np.clip(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) + slack, 0, size)
            masks[b, p] = mask
    return {
        "images": images_of(pool, scenes),
        "points": torch.from_numpy(points),
        "boxes": torch.from_numpy(boxes),
        "masks": torch.from_numpy(masks),
    }


MAKERS = {"clip": make_clip, "siglip": make_siglip, "dinov2": make_dinov2, "sam": make_sam}
