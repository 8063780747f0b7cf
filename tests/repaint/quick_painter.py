"""A painter for tests of what goes on around painters: small pictures, made of a job's id in a millisecond."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vsre.repaint import Painted, PaintJob, Refused, Statement, Vocabulary
from vsre.repaint.painter import SETTINGS, Setting
from vsre.triplets import Triplet, write_triplets

SIDE = 16
NOT_THIS = "the painter does not paint this one"


class QuickPainter:
    """Refuses one job in five; every picture hangs on its job and, in one grey level, on the size of its batch and its
    place in it, as a diffusion model's does. `wait` is how many seconds a job takes."""

    name = "quick/1"
    settings: tuple[Setting, ...] = SETTINGS
    reads_images = False
    batch_size = 4

    def __init__(self, vocabulary: Vocabulary, wait: float = 0.0) -> None:
        self.vocabulary = vocabulary
        self.wait = wait

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"side": SIDE}

    def parameters_for(self, setting: Setting) -> Mapping[str, Any]:
        return self.parameters

    def paint(self, job: PaintJob) -> Painted | Refused:
        return self.paint_many([job])[0]

    def paint_many(self, jobs: Sequence[PaintJob]) -> list[Painted | Refused]:
        return [self._paint(job, len(jobs), place) for place, job in enumerate(jobs)]

    def _paint(self, job: PaintJob, size: int, place: int) -> Painted | Refused:
        time.sleep(self.wait)
        if int(job.id, 16) % 5 == 0:
            return Refused(job, NOT_THIS)
        source = job.triplet
        said = Statement(source.subject, source.relation, source.object, "positive", None, (0.25, 0.0, 1.0, 0.5))
        notes = {"prompt": source.caption, "batch": {"size": size, "place": place}}
        return Painted(job, picture(job.id, size + place), SIDE, SIDE, (said,), notes=notes, truth="intended")


class DiesOnce(QuickPainter):
    """Its process is killed at the job of a row's caption, unless a file says that this has happened."""

    def __init__(self, vocabulary: Vocabulary, *, mark: Path, always: bool = False) -> None:
        super().__init__(vocabulary)
        self.mark, self.always = mark, always

    def _paint(self, job: PaintJob, size: int, place: int) -> Painted | Refused:
        if self.always or not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._paint(job, size, place)


def picture(words: str, level: int = 0) -> bytes:
    """A PNG of noise that these words seed; another level changes one grey level of one pixel."""
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")
    values = np.random.default_rng(seed).integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)
    values[0, 0, 0] = (int(values[0, 0, 0]) + level) % 256
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def said(name: str, subject: str = "cat", **changes: Any) -> Triplet:
    """A triplet without a picture."""
    caption = f"The {subject} is left of the dog."
    row = Triplet(f"name:{name}", name, subject, "left of", "dog", caption, True, "train", "vsr")
    return row.replace(**changes)


def write_source(folder: Path, count: int) -> Path:
    """So many triplets of different pictures."""
    write_triplets(folder, [said(f"{number}.jpg", "cat" if number % 2 else "cow") for number in range(count)])
    return folder
