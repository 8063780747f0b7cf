"""Small VSR folders, made where a test needs them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ORIENTATION = 0x0112


def row(image: str = "a.jpg", caption: str = "The cat is left of the dog.", **fields: Any) -> dict[str, Any]:
    """A row as published today, votes as strings."""
    return {
        "image": image,
        "image_link": f"http://images.cocodataset.org/train2017/{image}",
        "caption": caption,
        "label": 1,
        "relation": "left of",
        "annotator_id": 3,
        "vote_true_validator_id": "[2, 9]",
        "vote_false_validator_id": "[3]",
        "reference_frame": 1.0,
        **fields,
    }


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """JSON Lines; a string stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def picture(
    size: tuple[int, int] = (8, 6), colour: Any = "red", mode: str = "RGB", fmt: str = "JPEG", **save: Any
) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, fmt, **save)
    return out.getvalue()


def turned_picture(orientation: int) -> bytes:
    """A JPEG that EXIF turns. Upright it is 60 x 40, white but for a red quarter at the top left."""
    upright = Image.new("RGB", (60, 40), "white")
    upright.paste("red", (0, 0, 30, 20))
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    out = io.BytesIO()
    stored.save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def write_instances(path: Path, images: dict[str, tuple[int, int, list[tuple[Any, ...]]]]) -> Path:
    """COCO instances: image name -> (width, height, [(class, x, y, w, h[, iscrowd])])."""
    names = sorted({entry[0] for _, _, entries in images.values() for entry in entries})
    annotations = [
        {
            "id": 100 * number + i,
            "image_id": number,
            "category_id": names.index(entry[0]) + 1,
            "bbox": list(entry[1:5]),
            "area": 1.0,
            "iscrowd": entry[5] if len(entry) > 5 else 0,
            "segmentation": [[0, 0, 1, 0, 1, 1]],
        }
        for number, (_, _, entries) in enumerate(images.values())
        for i, entry in enumerate(entries)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "info": {"description": "made for a test"},
                "licenses": [],
                "images": [
                    {"id": number, "file_name": name, "width": width, "height": height}
                    for number, (name, (width, height, _)) in enumerate(images.items())
                ],
                "annotations": annotations,
                "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
            }
        )
    )
    return path
