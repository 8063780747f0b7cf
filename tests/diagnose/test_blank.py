"""Without the picture: grey frames of the same size, and a run that says so."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnose_data import Scripted
from PIL import Image

from vsre.diagnose import BlankPictures, Prompt, diagnose
from vsre.diagnose.replies import Reply
from vsre.errors import VsreError
from vsre.triplets import Triplet, image_content_id, write_triplets


class Looks(Scripted):
    """Says yes where the picture is red."""

    def __init__(self) -> None:
        super().__init__(None)
        self.seen: list[np.ndarray[Any, Any]] = []

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        replies = []
        for image, prompts in asked:
            pixels = np.asarray(Image.open(io.BytesIO(image or b"")).convert("RGB"))
            self.seen.append(pixels)
            red = pixels[..., 0].mean() > pixels[..., 2].mean()
            word = "yes" if red else "no"
            replies.append([Reply.yes_no(word, -0.1 if red else -3.0, -3.0 if red else -0.1)] * len(prompts))
        return replies


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = []
    for i, colour in enumerate(("red", "blue")):
        out = io.BytesIO()
        Image.new("RGB", (40, 30), colour).save(out, "PNG")
        said = ("cat", "left of", "dog", "The cat is left of the dog.", i == 0, "test", "fake")
        data = out.getvalue()
        rows.append(Triplet(image_content_id(data), f"{i}.png", *said, image=data, width=40, height=30))
    write_triplets(tmp_path / "triplets", rows)
    return tmp_path / "triplets"


def test_what_the_picture_gives_is_gone(data: Path, tmp_path: Path) -> None:
    seeing, engine = Looks(), Looks()
    assert diagnose(seeing, data, ["test-s"], tmp_path / "a", progress=False)["test_s"]["acc_t"]["value"] == 1.0
    blind = diagnose(BlankPictures(engine), data, ["test-s"], tmp_path / "b", progress=False)
    assert blind["test_s"]["acc_t"]["value"] == 0.5
    assert all(pixels.shape == (30, 40, 3) and np.ptp(pixels) == 0 for pixels in engine.seen)


def test_a_blank_run_does_not_go_on_a_seeing_one(data: Path, tmp_path: Path) -> None:
    diagnose(Looks(), data, ["test-s"], tmp_path / "a", progress=False)
    with pytest.raises(VsreError, match="pictures"):
        diagnose(BlankPictures(Looks()), data, ["test-s"], tmp_path / "a", progress=False)
