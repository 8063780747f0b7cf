"""The same questions without the picture: a plain grey frame of the same size in its place."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vsre.diagnose.engines import Engine
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply
from vsre.errors import VsreError
from vsre.sources.images import load_image


class BlankPictures:
    """An engine shown a grey frame in place of every picture: what it gets right comes from the words alone."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name = engine, f"{engine.name} (blank pictures)"
        self.batch_images = engine.batch_images

    def settings(self) -> dict[str, Any]:
        return self.engine.settings() | {"pictures": "blank"}

    def notes(self) -> dict[str, Any]:
        return self.engine.notes()

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        """As in Engine."""
        return self.engine.answer(
            [(None if image is None else blank_picture(image), prompts) for image, prompts in asked]
        )


def blank_picture(image: bytes) -> bytes:
    """A grey frame (127, 127, 127) of the picture's size, as PNG; a file that cannot be opened is returned as is."""
    buffer = io.BytesIO()
    try:
        size = load_image(image).size
    except VsreError:
        return image  # the engine says what is wrong with it
    Image.new("RGB", size, (127, 127, 127)).save(buffer, "PNG")
    return buffer.getvalue()
