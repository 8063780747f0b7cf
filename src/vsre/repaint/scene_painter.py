"""The scene painter: repaints triplets as scenes of the embedded world, whose truth is known exactly.

- t2i draws a new scene of which the caption is plainly true (or, on request, plainly false).
- i2i keeps the layout and redraws: another background, some things mirrored. For a triplet of the embedded world the
  layout is its exact scene; for a photo it is that of the scene, among many showing the caption, whose boxes are
  nearest.
- inpaint draws another class of similar shape in the subject's box and changes nothing else.

Every statement is judged anew on the scene that was drawn, and only if what it names can be seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from vsre.errors import VsreError
from vsre.repaint.edits import alike, apart, substitutes, truth_of, turned_round, visible_boxes
from vsre.repaint.layout import SceneFile, nearest
from vsre.repaint.painter import SETTINGS, Kind, Painted, PaintJob, Refused, Setting, Statement, Vocabulary
from vsre.sources.scenes import BACKGROUNDS, DRAWABLE, SPRITES, Scene, decided, draw_scene_for, encode
from vsre.triplets import Box, Triplet

REVISION = "scene-painter/1"

TRIES = 6

NO_CLASS = "a class is not in the embedded world"
NO_RELATION = "the relation cannot be drawn"
NO_SCENE = "no scene of these classes was found that shows it"
NO_LAYOUT = "the layout is unknown: neither its scene nor both boxes are given"
NO_READING = "its scene cannot be read"
CHANGED = "the caption's truth is not the same on the redrawn scene"
HIDDEN = "something in the scene cannot be recognised"
HOLDS = "other things rest on or in the subject"
LEFT = "something that could pass for the subject stays in the picture"
NO_SUBSTITUTE = "no other class fits the subject's box and keeps the relation decided"


_SCENES = "scenes"


def without_scenes(job: PaintJob) -> PaintJob:
    """The job that seeds the random numbers: one more scene in the file must not change the pictures of all others."""
    return replace(job, parameters={k: v for k, v in job.parameters.items() if k != _SCENES})


class _CannotPaint(Exception):
    """Carries the reason for a refusal."""


class ScenePainter:
    """Paints with the embedded world.

    `size` is the side of the pictures in pixels (redrawn scenes keep theirs); `scenes` is the scenes.jsonl of the world
    that the triplets come from, None for photos. Raises VsreError if that file cannot be read.
    """

    name = REVISION
    settings: tuple[Setting, ...] = SETTINGS
    reads_images = False

    def __init__(self, vocabulary: Vocabulary, *, scenes: Path | str | None = None, size: int = 192) -> None:
        self.vocabulary = vocabulary
        self.size = size
        self.scenes = SceneFile(scenes) if scenes is not None else None
        self._classes = tuple(c for c in vocabulary.classes if c in SPRITES)

    @property
    def parameters(self) -> Mapping[str, Any]:
        words = [self._classes, sorted(self.vocabulary.relations), sorted(self.vocabulary.pairs)]
        digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]
        found = {"size": self.size, "vocabulary": digest, "exact_layouts": self.scenes is not None}
        return found if self.scenes is None else found | {_SCENES: self.scenes.digest}

    def parameters_for(self, setting: Setting) -> Mapping[str, Any]:
        return self.parameters

    def paint(self, job: PaintJob) -> Painted | Refused:
        source, rng = job.triplet, without_scenes(job).random()
        try:
            if source.subject not in SPRITES or source.object not in SPRITES:
                raise _CannotPaint(NO_CLASS)
            if source.relation not in DRAWABLE:
                raise _CannotPaint(NO_RELATION)
            if job.setting == "t2i":
                return self._text_to_image(job, rng)
            if job.setting == "i2i":
                return self._image_to_image(job, rng)
            return self._inpaint(job, rng)
        except _CannotPaint as refusal:
            return Refused(job, str(refusal))

    def _text_to_image(self, job: PaintJob, rng: Random) -> Painted:
        source = job.triplet
        label = True if job.truth is None else job.truth
        two = {source.subject, source.object}
        others = [c for c in self._classes if c not in two and not any(alike(c, name) for name in two)]
        for _ in range(TRIES):
            extras = rng.sample(others, min(rng.choice((0, 1, 1, 2, 2)), len(others)))
            scene = draw_scene_for(
                source.subject, source.relation, source.object, label, rng, extras=extras, size=self.size
            )
            boxes = visible_boxes(scene) if scene else None
            if scene and boxes:
                return self._painted(job, rng, scene, boxes, [_said(source, label, boxes)])
        raise _CannotPaint(NO_SCENE)

    def _image_to_image(self, job: PaintJob, rng: Random) -> Painted:
        source = job.triplet
        scene, origin = self._layout(source, rng)
        if truth_of(scene, source.subject, source.relation, source.object) is not source.label:
            raise _CannotPaint(CHANGED)
        kind = rng.choice([k for k in BACKGROUNDS if k != scene.kind])
        scene = turned_round(scene.elsewhere(kind, rng.randrange(1 << 30)), rng, source)
        boxes = visible_boxes(scene)
        if boxes is None:
            raise _CannotPaint(HIDDEN)
        return self._painted(job, rng, scene, boxes, [_said(source, source.label, boxes)], layout=origin)

    def _inpaint(self, job: PaintJob, rng: Random) -> Painted:
        source = job.triplet
        scene, origin = self._layout(source, rng)
        index = scene.index(source.subject)
        if any(o.host == index and o.link != "touches" for o in scene.objects):
            raise _CannotPaint(HOLDS)
        if any(alike(source.subject, name) for name in scene.names):
            raise _CannotPaint(LEFT)
        for painted in substitutes(apart(scene, index), index, self._classes, rng):
            name = painted.names[index]
            truth = truth_of(painted, name, source.relation, source.object)
            if truth is None or not self.vocabulary.allows(name, source.relation, source.object):
                continue
            boxes = visible_boxes(painted)
            if boxes is None:
                continue
            new = source.replace(subject=name)
            gone = Statement(
                source.subject, source.relation, source.object, "object-absent", None, boxes[source.object]
            )
            said = [_said(new, truth, boxes), gone]
            return self._painted(job, rng, painted, boxes, said, layout=origin, replaced_by=name)
        raise _CannotPaint(NO_SUBSTITUTE)

    def _layout(self, source: Triplet, rng: Random) -> tuple[Scene, str]:
        """The scene to redraw and where it comes from: "scene" (exact) or "boxes" (the nearest one)."""
        exact = self._exact(source)
        if exact is not None:
            return exact, "scene"
        if source.subject_box is None or source.object_box is None:
            raise _CannotPaint(NO_LAYOUT)
        scene = nearest(source, rng, size=self.size)
        if scene is None:
            raise _CannotPaint(NO_SCENE)
        return scene, "boxes"

    def _exact(self, source: Triplet) -> Scene | None:
        try:
            if "scene" in source.provenance:
                return Scene.from_json(source.provenance["scene"])
            return self.scenes.get(source.image_name) if self.scenes else None
        except VsreError:
            raise _CannotPaint(NO_READING) from None

    def _painted(
        self,
        job: PaintJob,
        rng: Random,
        scene: Scene,
        boxes: dict[str, Box],
        said: list[Statement],
        **notes: Any,
    ) -> Painted:
        known = {s.caption for s in said}
        others = []
        for (subject, relation, object), truth in decided(scene).items():
            kind: Kind = "positive" if truth else "relation-false"
            statement = Statement(subject, relation, object, kind, boxes[subject], boxes[object])
            if statement.caption not in known and self.vocabulary.allows(subject, relation, object):
                others.append(statement)
        rng.shuffle(others)
        size = scene.size
        notes["scene"] = scene.to_json()
        return Painted(job, encode(scene), size, size, tuple(said), tuple(others), notes)


def _said(source: Triplet, label: bool, boxes: dict[str, Box]) -> Statement:
    kind: Kind = "positive" if label else "relation-false"
    return Statement(source.subject, source.relation, source.object, kind, boxes[source.subject], boxes[source.object])
