"""Small VSR files, pictures and triplets for the audit's tests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vsre.relations.grammar import caption
from vsre.triplets import Triplet, image_content_id, write_triplets


def said(image: str, subject: str, relation: str, object: str, label: int = 1, **fields: Any) -> dict[str, Any]:
    """A VSR row; fields named None are left out."""
    row = {"image": image, "caption": caption(subject, relation, object), "label": label, "relation": relation}
    return row | {"vote_true_validator_id": "[1, 2]", "vote_false_validator_id": "[]"} | fields


def write(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture like no other: smooth patches of colour, as photos have."""
    small = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def triplet(data: bytes, name: str, label: bool = True, words: str = "cat near dog", **more: Any) -> Triplet:
    subject, relation, object_ = words.split()
    return Triplet(
        image_id=image_content_id(data),
        image_name=name,
        subject=subject,
        relation=relation,
        object=object_,
        caption=caption(subject, relation, object_),
        label=label,
        split="train",
        origin="test",
        image=data,
        **more,
    )


def data_set(folder: Path, split: str, triplets: Iterable[Triplet]) -> Path:
    write_triplets(folder / split, triplets)
    return folder
