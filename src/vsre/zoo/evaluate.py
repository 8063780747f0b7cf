"""The figures of the model cards: what a model knows on scenes it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from vsre.diagnose.ways import free_memory
from vsre.train.memory import out_of_memory
from vsre.zoo.encoders import captions, images_of, sam_batch
from vsre.zoo.objectives import Dinov2Objective, normalise
from vsre.zoo.pool import Pool
from vsre.zoo.text import Exchange

Figures = dict[str, float]


@torch.no_grad()
def retrieval(objective: Any, pool: Pool, tokenizer: PreTrainedTokenizerFast, candidates: int = 256) -> Figures:
    """Recall@1 of the right caption among `candidates`, and of the right image, mean over blocks of the pool.

    Two scenes can get the same caption; such a tie counts as a miss unless the right one comes first.
    """
    text_hits, image_hits, blocks = 0.0, 0.0, 0
    for start in range(0, len(pool) - candidates + 1, candidates):
        indices = range(start, start + candidates)
        batch = captions(pool, indices, tokenizer, seed=99)
        images = normalise(images_of(pool, indices), objective.mean, objective.std)
        inputs = {"pixel_values": images} | {k: v for k, v in batch.items() if k in objective.text_inputs}
        scores = objective.model(**inputs).logits_per_image  # (images, captions)
        right = torch.arange(candidates)
        text_hits += (scores.argmax(1) == right).float().mean().item()
        image_hits += (scores.argmax(0) == right).float().mean().item()
        blocks += 1
    return {
        "caption_recall_at_1": round(text_hits / blocks, 4),
        "image_recall_at_1": round(image_hits / blocks, 4),
        "candidates": candidates,
        "images": blocks * candidates,
    }


@torch.no_grad()
def object_features(model: nn.Module, pool: Pool, mean: Any, std: Any, patch: int) -> tuple[Tensor, list[str]]:
    """Mean patch feature over each object's visible pixels: (objects, width), and the objects' classes."""
    found, names = [], []
    size = pool.images.shape[1]
    grid = size // patch
    for start in range(0, len(pool), 128):
        indices = range(start, min(start + 128, len(pool)))
        hidden = model(normalise(images_of(pool, indices), mean, std)).last_hidden_state[:, -grid * grid :]
        for row, i in enumerate(indices):
            cover = pool.objects[i].reshape(grid, patch, grid, patch)
            for k, fact in enumerate(pool.facts[i], start=1):
                weight = torch.from_numpy((cover == k).mean((1, 3)).astype(np.float32)).flatten()
                if weight.sum() > 0:
                    found.append(weight @ hidden[row] / weight.sum())
                    names.append(fact.name)
    return torch.stack(found), names


def nearest_neighbour(objective: Dinov2Objective, train: Pool, test: Pool) -> Figures:
    """Accuracy of the nearest training object's class, by cosine similarity of object features (k = 1)."""
    teacher = objective.encoder()
    gallery, gallery_names = object_features(teacher, train, objective.mean, objective.std, objective.patch)
    queries, names = object_features(teacher, test, objective.mean, objective.std, objective.patch)
    similarity = F.normalize(queries, dim=-1) @ F.normalize(gallery, dim=-1).T
    hits = [gallery_names[j] == name for j, name in zip(similarity.argmax(1).tolist(), names, strict=True)]
    return {
        "nearest_neighbour_accuracy": round(float(np.mean(hits)), 4),
        "gallery": len(gallery),
        "objects": len(hits),
    }


@torch.no_grad()
def mask_iou(objective: Any, pool: Pool, scenes: int = 256) -> Figures:
    """Mean IoU of the mask that the model itself rates best, from one box and from one point."""
    result: Figures = {}
    for prompt in ("box", "point"):
        total: list[Tensor] = []
        for start in range(0, min(scenes, len(pool)), 32):
            batch = sam_batch(pool, range(start, start + 32), 2)
            pixels = normalise(batch["images"], objective.mean, objective.std)
            if prompt == "box":
                out = objective.model(pixel_values=pixels, input_boxes=batch["boxes"], multimask_output=True)
            else:
                labels = torch.ones(*batch["points"].shape[:3], dtype=torch.long)
                out = objective.model(
                    pixel_values=pixels,
                    input_points=batch["points"],
                    input_labels=labels,
                    multimask_output=True,
                )
            best = out.iou_scores.argmax(-1)  # (B, P)
            chosen = out.pred_masks.gather(
                2, best[..., None, None, None].expand(-1, -1, 1, *out.pred_masks.shape[-2:])
            ).squeeze(2)
            hit, truth = chosen > 0, batch["masks"] > 0
            total.append((hit & truth).sum((-2, -1)) / (hit | truth).sum((-2, -1)).clamp_min(1))
        result[f"mask_iou_from_{prompt}"] = round(torch.cat(total).float().mean().item(), 4)
    return result | {"images": min(scenes, len(pool))}


def general_accuracy(
    model: Any, processor: Any, pool: Pool, exchanges: Sequence[Sequence[Exchange]], batch: int = 64
) -> Figures:
    """Share of general questions answered in the expected words, by kind, decoding greedily.

    `exchanges[i]` are asked about picture i of the pool; kinds with many right answers, such as captions, are left out.
    """
    hits: dict[str, list[bool]] = {}
    for _, kind, hit in general_hits(model, processor, pool, exchanges, batch):
        hits.setdefault(kind, []).append(hit)
    shares = {kind: round(float(np.mean(hit)), 4) for kind, hit in sorted(hits.items())}
    return shares | {"questions": float(sum(map(len, hits.values())))}


def general_hits(
    model: Any, processor: Any, pool: Pool, exchanges: Sequence[Sequence[Exchange]], batch: int = 64
) -> list[tuple[int, str, bool]]:
    """(picture, kind, answered in the expected words) of each question that has one right wording."""
    asked = [(i, e) for i, some in enumerate(exchanges) for e in some if e.kind not in ("describe", "places", "box")]
    answers = general_answers(model, processor, pool, asked, batch)
    return [(i, e.kind, answer == e.answer) for (i, e), answer in zip(asked, answers, strict=True)]


@torch.no_grad()
def general_answers(
    model: Any, processor: Any, pool: Pool, asked: Sequence[tuple[int, Exchange]], batch: int = 64, most: int = 24
) -> list[str]:
    """A model's answers to each exchange about its picture, decoded greedily, at most `most` tokens each.

    If memory runs out, fewer than `batch` are asked together.
    """
    answers: list[str] = []
    side, processor.tokenizer.padding_side = processor.tokenizer.padding_side, "left"
    try:
        while len(answers) < len(asked):
            part = asked[len(answers) : len(answers) + batch]
            try:
                answers += _answered(model, processor, pool, part, most)
            except RuntimeError as error:
                if len(part) == 1 or not out_of_memory(error):
                    raise
                batch = len(part) // 2
            else:
                continue
            free_memory()  # outside the handler, whose traceback holds what the failed call had
    finally:
        processor.tokenizer.padding_side = side
    return answers


def _answered(model: Any, processor: Any, pool: Pool, asked: Sequence[tuple[int, Exchange]], most: int) -> list[str]:
    """`general_answers` to all of these at once."""
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": e.prompt}]}],
            add_generation_prompt=True,
        )
        for _, e in asked
    ]
    images = [Image.fromarray(pool.images[i]) for i, _ in asked]
    inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt").to(model.device)
    ends = {"eos_token_id": processor.tokenizer.eos_token_id, "pad_token_id": processor.tokenizer.pad_token_id}
    tokens = model.generate(**inputs, max_new_tokens=most, do_sample=False, **ends)[:, inputs["input_ids"].shape[1] :]
    return [answer.strip() for answer in processor.batch_decode(tokens, skip_special_tokens=True)]
