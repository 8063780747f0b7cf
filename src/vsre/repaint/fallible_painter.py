"""A painter that plays a diffusion model whose faults are counted: what unverified pictures cost can be measured.

Of a diffusion model nobody knows which of its pictures show what was asked for. This one draws scenes, fails in a given
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
from vsre.repaint.scene_painter import NO_SCENE, ScenePainter
from vsre.sources.scenes import Scene, draw_scene_for, encode


class FalliblePainter(ScenePainter):
    """Does what it is asked, but in a share of pictures draws the same things in a scene of which the opposite is true.

    `faults` is that share, 0 to 1; which jobs fail hangs on a job's id alone. Settings are t2i and i2i (a fault of i2i
    loses the layout). Pictures are `intended`, have the one statement that was asked for, and no boxes. The rest is as
    in ScenePainter.
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
        made = super().paint(job)
        if isinstance(made, Refused):
            return made
        asked = made.statements[0]
        rng = Random(f"{job.id}/fault")
        if rng.random() < self.faults:
            scene = Scene.from_json(made.notes["scene"])
            two = (asked.subject, asked.object)
            wrong = draw_scene_for(
                asked.subject,
                asked.relation,
                asked.object,
                not asked.label,
                rng,
                extras=[name for name in scene.names if name not in two],
                kind=scene.kind,
                size=scene.size,
            )
            if wrong is None or visible_boxes(wrong) is None:
                return Refused(job, NO_SCENE)
            made = replace(made, image=encode(wrong), notes={**made.notes, "scene": wrong.to_json()})
        said = replace(asked, subject_box=None, object_box=None)
        return replace(made, statements=(said,), others=(), truth="intended")
