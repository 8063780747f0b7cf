"""Shared by this package's pages: templates in which everything shown is escaped, and small pictures in them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image, ImageDraw

from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.repaint.canvas import on_canvas
from vsre.sources.images import load_image
from vsre.triplets import Box

SUBJECT, OBJECT = "#1f6fd6", "#e07a10"
"""Colours of the two things' boxes."""


def write_page(out: Path, template: str, **context: Any) -> Path:
    """Write a page from a template of this package, atomically; `style` is the reports' style sheet."""
    from vsre.report.page import environment, style_sheet

    templates = environment().overlay(loader=jinja2.PackageLoader("vsre.repaint", "templates"))
    page = templates.get_template(template).render(style=Markup(style_sheet()), **context)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_aside(out, page.encode("utf-8", "replace"))
    return out


def thumbnail(image: bytes | None, side: int) -> Image.Image | None:
    """The picture with its longer side `side` pixels; None if it cannot be opened."""
    if image is None:
        return None
    try:
        picture = load_image(image)
    except VsreError:
        return None
    scale = side / max(picture.size)
    return on_canvas(picture, (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def with_boxes(picture: Image.Image, boxes: Sequence[tuple[Box | None, str]]) -> Image.Image:
    """The picture with boxes (fractions of it) drawn on it in the given colours."""
    draw, (w, h) = ImageDraw.Draw(picture), picture.size
    for box, ink in boxes:
        if box is not None and box[0] < box[2] and box[1] < box[3]:
            x0, y0, x1, y1 = box
            draw.rectangle((x0 * w, y0 * h, x1 * w - 1, y1 * h - 1), outline=ink, width=2)
    return picture


def uri(picture: Image.Image | None) -> Markup | None:
    """The picture as a data URI; Markup, because pages truncate long plain texts."""
    if picture is None:
        return None
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88)
    return Markup("data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode())


def judged_picture(image: bytes, side: int, verdict: Mapping[str, Any]) -> Markup | None:
    """A painted picture with the boxes of a verdict's two things, as a data URI."""
    picture = thumbnail(image, side)
    if picture is None:
        return None
    boxes = verdict.get("boxes") or {}
    return uri(with_boxes(picture, [(boxes.get(verdict["subject"]), SUBJECT), (boxes.get(verdict["object"]), OBJECT)]))
