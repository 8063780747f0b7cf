"""What a verifier is asked and answers, and what becomes of a painted picture once it has looked.

A verifier looks at a picture and says of one caption whether it is true (PASS), false (FAIL) or neither beyond
dispute (UNDECIDED), by how much, and which boxes it found. Whether that bears out what the painter meant depends on
the statement's kind:

- positive: PASS;
- relation-false: FAIL, with both things found: false by where they are, not because one is missing;
- object-absent: FAIL, with the object found and the subject not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from vsre.errors import VsreError
from vsre.relations.things import Judgement, Verdict
from vsre.repaint.edits import truth_of, visible_boxes
from vsre.repaint.painter import Painted, Refused, Statement
from vsre.sources.scenes import Scene
from vsre.triplets import Box, Triplet

NOT_SHOWN = "the verifier says that the picture does not show what was asked for"
NOT_DECIDED = "the verifier cannot decide whether the picture shows what was asked for"


@dataclass(frozen=True)
class Verification:
    """A verdict on a caption, its margin (as in `vsre.relations.things.Judgement`, 0 when undecided), and class -> box
    (fractions of the picture) of what was found of subject and object."""

    verdict: Verdict
    margin: float = 0.0
    boxes: Mapping[str, Box] = field(default_factory=dict)

    @classmethod
    def of(cls, judgement: Judgement, boxes: Mapping[str, Box]) -> Verification:
        """A rule's judgement on boxes that were found."""
        return cls(judgement.verdict, judgement.margin, boxes)


class Verifier(Protocol):
    """Looks at pictures."""

    @property
    def name(self) -> str:
        """Name and revision: whatever changes its verdicts changes this."""
        ...

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        """Whether `triplet.caption` is true of the encoded picture; the triplet's label plays no part."""
        ...


def confirms(statement: Statement, found: Verification) -> bool | None:
    """Whether a verification bears a statement out: True, False, or None where it leaves that open."""
    if found.verdict is Verdict.UNDECIDED:
        return None
    if statement.kind == "positive":
        return found.verdict is Verdict.PASS
    there = statement.object in found.boxes
    if statement.kind == "object-absent":
        return found.verdict is Verdict.FAIL and there and statement.subject not in found.boxes
    return found.verdict is Verdict.FAIL and there and statement.subject in found.boxes


@dataclass(frozen=True)
class Checked:
    """A statement, what the verifier found, and whether that bears it out."""

    statement: Statement
    found: Verification
    agrees: bool | None

    def row(self) -> dict[str, Any]:
        """As JSON, for provenance."""
        return {
            "caption": self.statement.caption,
            "kind": self.statement.kind,
            "verdict": str(self.found.verdict),
            "margin": round(self.found.margin, 4),
            "boxes": {name: [round(x, 4) for x in box] for name, box in self.found.boxes.items()},
            "agrees": self.agrees,
        }


def check(painted: Painted, verifier: Verifier) -> list[Checked]:
    """What the verifier says of each statement that the job asked for."""
    checked = []
    for statement, triplet in zip(painted.statements, painted.triplets(), strict=True):
        found = verifier.verify(painted.image, triplet)
        checked.append(Checked(statement, found, confirms(statement, found)))
    return checked


def verified(painted: Painted, verifier: Verifier) -> Painted | Refused:
    """The picture with the statements that the verifier bears out, their boxes those it found; all its verdicts go
    into the notes. Refused where no statement is left. What else was known of a drawn picture stays."""
    checked = check(painted, verifier)
    kept = tuple(
        replace(
            c.statement,
            subject_box=c.found.boxes.get(c.statement.subject),
            object_box=c.found.boxes.get(c.statement.object),
        )
        for c in checked
        if c.agrees
    )
    if not kept:
        return Refused(painted.job, NOT_SHOWN if any(c.agrees is False for c in checked) else NOT_DECIDED)
    notes = {**painted.notes, "verifier": verifier.name, "verdicts": [c.row() for c in checked]}
    return replace(painted, statements=kept, notes=notes, truth="verified")


class SceneTruth:
    """Judges pictures of the embedded world by the scene they were drawn from: exact, and blind to the pixels."""

    name = "scene-truth/1"

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        """Raises VsreError where the triplet's provenance holds no scene."""
        if "scene" not in triplet.provenance:
            raise VsreError(f"{triplet.image_name}: no scene in its provenance. Only drawn pictures have one.")
        scene = Scene.from_json(triplet.provenance["scene"])
        seen = visible_boxes(scene) or {}
        boxes = {name: seen[name] for name in (triplet.subject, triplet.object) if name in seen}
        if len(boxes) < 2:
            absent = {triplet.subject, triplet.object} - set(scene.names)
            return Verification(Verdict.FAIL if absent else Verdict.UNDECIDED, 1.0 if absent else 0.0, boxes)
        truth = truth_of(scene, triplet.subject, triplet.relation, triplet.object)
        if truth is None:
            return Verification(Verdict.UNDECIDED, 0.0, boxes)
        return Verification(Verdict.PASS if truth else Verdict.FAIL, 1.0, boxes)
