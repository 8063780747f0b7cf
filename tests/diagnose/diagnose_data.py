"""Small data, models and engines for the diagnosis tests; all made here, nothing random between runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

import tiny_models
import vsre.model  # noqa: F401  # registers VSRE with the Auto classes
from vsre.diagnose import Prompt, Reply
from vsre.triplets import Triplet, image_content_id, write_triplets

NAMES = ("cat", "dog", "teddy bear", "couch", "bowl", "cake", "car", "person")
RELATIONS = ("left of", "above", "contains", "on", "facing", "near")


def picture(number: int, *, size: tuple[int, int] = (64, 48)) -> bytes:
    """A PNG of coloured blocks."""
    blocks = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def make_triplets(images: int, per_image: int = 2, *, boxes: bool = True) -> list[Triplet]:
    """`images` x `per_image` triplets; every third image has no boxes unless `boxes` is false for all."""
    made = []
    for i in range(images):
        data = picture(i)
        for k in range(per_image):
            subject, object_ = NAMES[(i + k) % 8], NAMES[(i + 2 * k + 3) % 8]
            relation = RELATIONS[(i * per_image + k) % 6]
            verb = relation if relation == "contains" else f"is {relation}"
            boxed = boxes and i % 3 != 2
            made.append(
                Triplet(
                    image_id=image_content_id(data),
                    image_name=f"{i}.png",
                    subject=subject,
                    relation=relation,
                    object=object_,
                    caption=f"The {subject} {verb} the {object_}.",
                    label=(i + k) % 2 == 0,
                    split="test",
                    origin="test",
                    image=data,
                    width=64,
                    height=48,
                    subject_box=(0.1, 0.1, 0.4, 0.5) if boxed else None,
                    object_box=(0.5, 0.2, 0.9, 0.8) if boxed else None,
                )
            )
    return made


def write_data(folder: Path, triplets: Sequence[Triplet]) -> Path:
    write_triplets(folder, triplets)
    return folder


def strong(folder: Path, gain: float = 6.0) -> Path:
    """Make a tiny random model's logits depend on every token of its input, as a trained one's do.

    Freshly initialised attention is all but uniform, so that a wrong mask or position would change nothing that a test
    could see.
    """
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and ("language_model" in name or "lm_head" in name):
                weight.mul_(gain)
    model.save_pretrained(folder)
    return folder


def strong_llava(folder: Path) -> Path:
    return strong(tiny_models.tiny_llava(folder))


def strong_vsre(folder: Path) -> Path:
    return strong(tiny_models.tiny_vsre(folder))


class Scripted:
    """An engine that answers by a rule, without a model: rule(prompt) -> Reply."""

    def __init__(self, rule: Any, *, name: str = "scripted", batch_images: int = 2) -> None:
        self.rule, self.name, self.batch_images = rule, name, batch_images
        self.prompts: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"engine": "scripted", "model": self.name}

    def notes(self) -> dict[str, Any]:
        return {"way": "scripted"}

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        self.prompts += [prompt.text for _, prompts in asked for prompt in prompts]
        return [[self.rule(prompt) for prompt in prompts] for _, prompts in asked]
