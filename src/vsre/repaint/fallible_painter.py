"""A painter that imitates a diffusion model with a known share of faults, to measure what unverified pictures cost.

Nobody knows which of a diffusion model's pictures show what was asked for. This painter draws scenes, fails in a given
share of them, and says as little as a diffusion model could: only what it was asked for, and no boxes. The scene that
was really drawn stays in the picture's notes, so that a verifier's work can be judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from vsre.repaint.edits import visible_boxes
from vsre.repaint.painter import Painted, PaintJob, Refused, Setting, Vocabulary
from vsre.repaint.scene_painter import TRIES, ScenePainter, without_scenes
from vsre.sources.scenes import Scene, draw_scene_for, encode


class FalliblePainter(ScenePainter):
    """Does what it is asked, but in a share of pictures draws the same things in a scene where the opposite is true.

    `faults` is that share, 0 to 1; which jobs fail depends on the job alone. Settings are t2i and i2i (a fault in i2i
    loses the layout). Pictures are `intended`, have only the statement that was asked for, and no boxes; `fault` in
    their notes says whether it is wrong. If no scene shows the opposite there is no fault, so the actual share is a
    little below `faults`. The rest is as in ScenePainter.
    """

    name = "fallible-scene-painter/1"
    settings: tuple[Setting, ...] = ("t2i", "i2i")

    def __init__(
        self, vocabulary: Vocabulary, *, faults: float, scenes: Path | str | None = None, size: int = 192
    ) -> None:
        super().__init__(vocabulary, scenes=scenes, size=size)
        self.faults = faults

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**super().parameters, "faults": self.faults}

    def paint(self, job: PaintJob) -> Painted | Refused:
        # Painters that differ only in `faults` draw the same scenes, and a larger share includes a smaller's faults.
        alike = replace(job, parameters={k: v for k, v in job.parameters.items() if k != "faults"})
        made = super().paint(alike)
        if isinstance(made, Refused):
            return replace(made, job=job)
        asked, rng = made.statements[0], Random(f"{without_scenes(alike).id}/fault")
        wrong = self._wrong(made, rng) if rng.random() < self.faults else None
        if wrong is not None:
            made = replace(made, image=encode(wrong), notes={**made.notes, "scene": wrong.to_json()})
        said = replace(asked, subject_box=None, object_box=None)
        notes = {**made.notes, "fault": wrong is not None}
        return replace(made, job=job, statements=(said,), others=(), notes=notes, truth="intended")

    def _wrong(self, made: Painted, rng: Random) -> Scene | None:
        """A scene of the same things in which the opposite of what was asked for is true; None if none was found."""
        asked, scene = made.statements[0], Scene.from_json(made.notes["scene"])
        two = (asked.subject, asked.object)
        others = [name for name in scene.names if name not in two]
        for _ in range(TRIES):
            wrong = draw_scene_for(
                asked.subject,
                asked.relation,
                asked.object,
                not asked.label,
                rng,
                extras=others,
                kind=scene.kind,
                size=scene.size,
            )
            if wrong is not None and visible_boxes(wrong) is not None:
                return wrong
        return None
