"""The objects of COCO images: the boxes of the wanted images, and the box of a named thing."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.sources.images import turns_sideways, upright_box
from vsre.sources.vsr.jsonstream import open_text, stream_arrays
from vsre.triplets import Box

BOX_KNOWN = "known"
_SIDES_AGREE = 0.02
_LONGEST_LINE = 1 << 16


@dataclass(slots=True)
class ImageObjects:
    """The objects of one image: (class, box) pairs; a box that lies outside the image is None.

    `width` and `height` are those of the picture that was annotated, in pixels, 0 if the file does not say.
    """

    width: int = 0
    height: int = 0
    objects: list[tuple[str, Box | None]] = field(default_factory=list)

    def upright(self, width: int, height: int, orientation: int) -> ImageObjects | None:
        """These objects in the frame of the upright picture, or None if their frame cannot be determined.

        `width` and `height` are the upright picture's; `orientation` is the EXIF value of the stored file. Boxes made
        on the upright picture stay as they are; those made on the stored one turn with it.
        """
        if not self.width or not self.height:
            return None if turns_sideways(orientation) else self
        declared = self.width, self.height
        sideways = turns_sideways(orientation)
        if declared != (width, height) and sideways and _same_shape(*declared, height, width):
            turned = [(name, box and upright_box(box, orientation)) for name, box in self.objects]
            return ImageObjects(self.height, self.width, turned)
        return self if _same_shape(*declared, width, height) else None

    def only_box(self, name: str) -> tuple[Box | None, str]:
        """The box of the only object of this class, and BOX_KNOWN or why there is none."""
        boxes = [box for found, box in self.objects if found == name]
        if not boxes:
            return None, "no box of this class"
        if len(boxes) > 1:
            return None, "ambiguous: several boxes of this class"
        return boxes[0], BOX_KNOWN if boxes[0] is not None else "box outside the image"


def read_objects(files: Sequence[Path], wanted: Collection[str]) -> dict[str, ImageObjects]:
    """The objects of the wanted images (by file name); each file is read once, streaming.

    Files are COCO instance annotations (`instances_train2017.json`) or JSON Lines with `image` and `boxes` ([class, x0,
    y0, x1, y1] as fractions, one image per line); either may be gzipped. Crowd regions are left out. An image that is
    in several files keeps the objects of the first. Raises VsreError for a file that is missing or neither of the two.
    """
    found: dict[str, ImageObjects] = {}
    for path in files:
        if not path.is_file():
            raise VsreError(f"{path}: no such instance annotation file.")
        try:
            objects = _read_lines(path, wanted) if _is_lines(path) else _read_coco(path, wanted)
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise VsreError(f"{path}: the file is damaged ({error}). Copy or download it again.") from error
        for name, value in objects.items():
            found.setdefault(name, value)
    return found


def _is_lines(path: Path) -> bool:
    with open_text(path) as file:
        head = file.readline(_LONGEST_LINE)
    try:
        row = json.loads(head)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "image" in row and "boxes" in row


def _read_lines(path: Path, wanted: Collection[str]) -> dict[str, ImageObjects]:
    found: dict[str, ImageObjects] = {}
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if row["image"] in wanted:
                    objects = [(str(name), _clip(x0, y0, x1, y1)) for name, x0, y0, x1, y1 in row["boxes"]]
                    size = _pixels(row.get("width", 0)), _pixels(row.get("height", 0))
                    found[row["image"]] = ImageObjects(*size, objects)
            except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
                expected = '{"image": NAME, "boxes": [[CLASS, X0, Y0, X1, Y1], ...]}'
                raise VsreError(f"{path}, row {number}: expected {expected} ({error!r}).") from error
    return found


def _read_coco(path: Path, wanted: Collection[str]) -> dict[str, ImageObjects]:
    images: dict[Any, tuple[str, ImageObjects]] = {}
    classes: dict[Any, str] = {}
    kept: list[tuple[Any, Any, Any]] = []
    sections: set[str] = set()
    with open_text(path) as file:
        for section, item in stream_arrays(file, str(path), ("images", "annotations", "categories")):
            sections.add(section)
            try:
                if section == "images":
                    if item["file_name"] in wanted:
                        size = _pixels(item["width"]), _pixels(item["height"])
                        images[item["id"]] = item["file_name"], ImageObjects(*size)
                elif section == "categories":
                    classes[item["id"]] = str(item["name"])
                # COCO lists its images first; a file that lists them last costs memory, not correctness.
                elif not item.get("iscrowd") and ("images" not in sections or item["image_id"] in images):
                    kept.append((item["image_id"], item["category_id"], item["bbox"]))
            except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
                raise VsreError(f"{path}: an entry of `{section}` is not as in COCO: {error!r}.") from error
    if not {"images", "categories"} <= sections:
        raise VsreError(
            f"{path}: neither COCO instance annotations (with `images`, `annotations` and `categories`) "
            "nor lines with `image` and `boxes`."
        )
    for image_id, class_id, box in kept:
        if image_id in images and class_id in classes:
            image = images[image_id][1]
            image.objects.append((classes[class_id], _fractions(box, image.width, image.height)))
    return dict(images.values())


def _pixels(value: Any) -> int:
    pixels = int(value)
    if pixels >= 1 << 31:  # more than a triplet's columns hold
        raise ValueError("width or height is no number of pixels")
    return pixels


def _fractions(bbox: Any, width: int, height: int) -> Box | None:
    """COCO's [x, y, width, height] in pixels as clipped fractions; None if nothing is left of it."""
    try:
        x, y, w, h = (float(v) for v in bbox)
        return _clip(x / width, y / height, (x + w) / width, (y + h) / height)
    except (TypeError, ValueError, ArithmeticError):
        return None


def _clip(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    values = [float(v) for v in (x0, y0, x1, y1)]
    if not all(math.isfinite(v) for v in values):
        return None
    x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) for v in values)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _same_shape(w0: int, h0: int, w1: int, h1: int) -> bool:
    """Whether two sizes have the same aspect ratio: a smaller copy of a photo keeps its fractions."""
    return abs(w0 * h1 - w1 * h0) <= _SIDES_AGREE * w1 * h0
