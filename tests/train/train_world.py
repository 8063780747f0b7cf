"""A small data set for the training tests: pictures of a red square and questions about where it is."""

from __future__ import annotations

import io
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import vsre.model  # noqa: F401  registers the Auto classes
from vsre.rewrite import QUESTION_SCHEMA
from vsre.triplets import ParquetShards, Triplet, image_content_id, write_triplets

WORDINGS = (
    "Is the cat {r} of the dog?",
    "Is the cat {r} of the dog? Answer yes or no.",
    "True or false: the cat is {r} of the dog.",
    "Whether the cat is {r} of the dog?",
    "Look at the picture. Is the cat {r} of the dog, or is it not?",
)


def picture(side: str, shade: int) -> bytes:
    array = np.full((64, 80, 3), shade % 256, dtype=np.uint8)
    array[20:44, (8 if side == "left" else 48) : (32 if side == "left" else 72)] = (200, 30, 30)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_world(
    folder: Path, images: int = 6, wordings: int = 5, answers: tuple[str, str] = ("Yes", "No")
) -> dict[str, Path]:
    """Pictures with two triplets each (left, right) and questions about them, fewer about odd pictures."""
    triplets = []
    for i in range(images):
        side = ("left", "right")[i % 2]
        data = picture(side, 40 + 7 * i)
        for relation in ("left", "right"):
            triplets.append(
                Triplet(
                    image_id=image_content_id(data),
                    image_name=f"{i}.png",
                    subject="cat",
                    relation=f"{relation} of",
                    object="dog",
                    caption=f"The cat is {relation} of the dog.",
                    label=relation == side,
                    split="train",
                    origin="test",
                    image=data,
                    width=80,
                    height=64,
                )
            )
    write_triplets(folder / "triplets", triplets)
    with ParquetShards(folder / "questions", QUESTION_SCHEMA) as shards:
        for n, t in enumerate(triplets):
            for w, wording in enumerate(WORDINGS[: wordings - (n // 2) % 2]):
                row: dict[str, Any] = {
                    "key": t.key,
                    "image_id": t.image_id,
                    "template": f"w{w}",
                    "pack": "test",
                    "prompt": wording.format(r=t.relation.removesuffix(" of")),
                    "answer": answers[0] if t.label else answers[1],
                    "truth": t.label,
                    "format": "yes-no",
                    "split": "train",
                }
                shards.write({k: row[k] for k in QUESTION_SCHEMA.names})
    return {"triplets": folder / "triplets", "questions": folder / "questions"}


# The server imports once and every training is a fork of it, so a process costs a second and not ten.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["vsre.train", "transformers.models.llava", "transformers.models.llama"])


def load(folder: Path) -> tuple[Any, Any]:
    """A model and its processor, from a folder."""
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
