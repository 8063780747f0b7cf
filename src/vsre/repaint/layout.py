"""The layout of a source picture as a scene: looked up if it was drawn, approximated if it is a photo."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

from vsre.errors import VsreError
from vsre.sources.scenes import Scene, draw_scene_for
from vsre.triplets import Box, Triplet

_DRAWS = 32


class SceneFile:
    """The scenes of a world by image file name; only their offsets in the file are kept in memory. `digest` covers the
    whole file."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise VsreError(f"{self.path}: no such file. `vsre scenes` writes a scenes.jsonl beside its images.")
        self._places: dict[str, int] = {}
        at, digest = 0, hashlib.sha256()
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    self._places[self._read(line, number)["image"]] = at
                at += len(line)
                digest.update(line)
        self.digest = digest.hexdigest()[:24]

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if isinstance(row["image"], str):
                return row
        except (ValueError, KeyError, TypeError):
            pass
        raise VsreError(f"{self.path}, line {number}: not a scene with its image's file name. Write the world again.")

    def get(self, image_name: str) -> Scene | None:
        """The scene of an image; None if the file does not have it."""
        place = self._places.get(image_name)
        if place is None:
            return None
        with self.path.open("rb") as lines:
            lines.seek(place)
            return Scene.from_json(json.loads(lines.readline()))


def nearest(triplet: Triplet, rng: Random, *, size: int) -> Scene | None:
    """Of many scenes with the triplet's truth, the one whose two boxes are nearest to the triplet's; None if there are
    none.

    Sprites cannot simply be fitted into a photo's boxes: proportions differ, and boxes do not show which thing touches,
    carries or hides which. Drawing the statement and choosing by distance keeps both truth and layout.
    """
    assert triplet.subject_box is not None and triplet.object_box is not None
    best, least = None, float("inf")
    for _ in range(_DRAWS):
        scene = draw_scene_for(
            triplet.subject,
            triplet.relation,
            triplet.object,
            triplet.label,
            rng,
            extras=(),
            size=size,
            tries=4,
        )
        if scene is not None:
            far = _distance(scene.objects[0].box, triplet.subject_box)
            far += _distance(scene.objects[1].box, triplet.object_box)
            if far < least:
                best, least = scene, far
    return best


def _distance(a: Box, b: Box) -> float:
    return sum(abs(p - q) for p, q in zip(a, b, strict=True))
