"""Pictures of our own making, and files that hold them."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "orange", "purple", "brown", "black", "teal", "navy", "olive")


def drawing(number: int, *, mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A square left or right of a disc, in colours that the number decides."""
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    a, b = ((4, 12), (40, 14)) if number % 2 else ((40, 12), (4, 14))
    pen.rectangle((*a, a[0] + 16, a[1] + 16), fill=COLOURS[number % 10])
    pen.ellipse((*b, b[0] + 18, b[1] + 18), fill=COLOURS[(number // 10 + 3) % 10])
    return image.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def picture(number: int) -> bytes:
    return encoded(drawing(number))


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def save(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t", restval="")
        table.writeheader()
        table.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def write_json(path: Path, content: Any) -> Path:
    return save(path, json.dumps(content).encode())


def hub_image(number: int) -> dict[str, Any]:
    return {"bytes": picture(number), "path": f"{number}.png"}
