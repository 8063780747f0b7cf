"""What a verifier is asked and answers, and what becomes of a painted picture once it has looked.

A verifier looks at a picture and says of one caption whether it is true (PASS), false (FAIL) or disputable (UNDECIDED),
by how much, and which boxes it found. Whether that confirms what the painter meant depends on the statement's kind:

- positive: PASS;
- relation-false: FAIL, with both things found: false because of where they are, not because one is missing;
- object-absent: FAIL, with the object found and the subject not.

More is known of an inpainted picture: which part was painted, and where the object was. Statements about the new
subject stand only if it is found in the mask, the old one is no longer found there, and the object is where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from vsre.errors import VsreError
from vsre.relations.things import Judgement, Verdict
from vsre.repaint.edits import truth_of, visible_boxes
from vsre.repaint.painter import Painted, Refused, Statement
from vsre.sources.scenes import Scene
from vsre.triplets import Box, Triplet

NOT_SHOWN = "the verifier says that the picture does not show what was asked for"
NOT_DECIDED = "the verifier cannot decide whether the picture shows what was asked for"

MISSING = "not everything that the caption names is in the picture"
UNSEEN = "something that the caption names is in the scene, and cannot be recognised there"
NOT_PLAIN = "the scene does not decide the relation"

NOT_IN_THE_MASK = "the new subject is not found where was painted"
NOT_GONE = "the old subject is still found where was painted"
MOVED = "the object is not found where it was"


@dataclass(frozen=True)
class Verification:
    """A verdict on a caption, its margin (as in `vsre.relations.things.Judgement`, 0 when undecided), and class -> box
    (fractions of the picture) of what was found of subject and object: the box that was judged.

    `instances` are all boxes found of a class, if there may be more than that one. `reason` says in one of a few
    sentences why there is no verdict, or what made it FAIL; `evidence` is JSON: all that the verdict rests on.
    """

    verdict: Verdict
    margin: float = 0.0
    boxes: Mapping[str, Box] = field(default_factory=dict)
    instances: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, judgement: Judgement, boxes: Mapping[str, Box], **more: Any) -> Verification:
        """A rule's judgement on boxes that were found; `more` are further fields."""
        return cls(judgement.verdict, judgement.margin, boxes, **{"reason": judgement.reason, **more})

    def found(self, name: str) -> tuple[Box, ...]:
        """All boxes of a class; empty if it was not found."""
        return self.instances.get(name) or ((self.boxes[name],) if name in self.boxes else ())


class Verifier(Protocol):
    """Looks at pictures. Verifiers are pickled to worker processes."""

    @property
    def name(self) -> str:
        """Name and revision; changes with anything that changes its verdicts."""
        ...

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        """Whether `triplet.caption` is true of the encoded picture; the triplet's label plays no part."""
        ...


@runtime_checkable
class BatchVerifier(Verifier, Protocol):
    """A verifier that looks at several pictures at once faster than one by one."""

    @property
    def batch_size(self) -> int:
        """Maximum number of pictures looked at together."""
        ...

    def verify_many(self, triplets: Sequence[Triplet]) -> list[Verification]:
        """One verification per triplet, in their order; each carries its picture. Triplets of one picture share what is
        seen in it."""
        ...


def verify_all(verifier: Verifier, triplets: Sequence[Triplet]) -> list[Verification]:
    """One verification per triplet, in their order, in batches if the verifier has them. The triplets carry their
    pictures."""
    if isinstance(verifier, BatchVerifier):
        return verifier.verify_many(triplets)
    return [verifier.verify(triplet.image or b"", triplet) for triplet in triplets]


class Policy(BaseModel):
    """What becomes of verdicts that contradict a statement, and when an edit counts as done.

    `relabel`: if both things are found, a positive that FAILs becomes relation-false, and a relation-false one that
    PASSes becomes positive; `drop` drops both. What is UNDECIDED is always dropped. The overlaps are intersections over
    unions that must be exceeded: of the new subject's box with the mask's, and of the object's box with its old one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_fail: Literal["drop", "relabel"] = "drop"
    subject_iou: float = Field(default=0.5, ge=0, lt=1)
    object_iou: float = Field(default=0.7, ge=0, lt=1)


@dataclass(frozen=True)
class Edit:
    """What inpainting did: the box around all that was painted, the class that was there, and the object's earlier box,
    None if unknown."""

    mask: Box
    old: str
    object_box: Box | None

    @classmethod
    def of(cls, painted: Painted) -> Edit | None:
        """The edit of an inpainted picture whose notes give the mask; None for any other picture."""
        mask, source = painted.notes.get("mask"), painted.job.triplet
        if painted.job.setting != "inpaint" or not isinstance(mask, Mapping) or "box" not in mask:
            return None
        # If the object was removed from the mask's box, the new subject can fill only what is left.
        x0, y0, x1, y1 = mask.get("painted", mask["box"])
        return cls((x0, y0, x1, y1), source.subject, source.object_box)

    def problem(self, statement: Statement, seen: Mapping[str, Sequence[Box]], policy: Policy) -> str:
        """Why the edit is not as asked for, given what was seen in the picture (class -> boxes); empty if it is."""
        if self.object_box is not None and _best(self.object_box, seen.get(statement.object, ())) <= policy.object_iou:
            return MOVED
        if statement.subject == self.old:
            return ""
        if _best(self.mask, seen.get(statement.subject, ())) <= policy.subject_iou:
            return NOT_IN_THE_MASK
        return NOT_GONE if _best(self.mask, seen.get(self.old, ())) > policy.subject_iou else ""


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0


def _best(box: Box, others: Sequence[Box]) -> float:
    return max((iou(box, other) for other in others), default=0.0)


def confirms(statement: Statement, found: Verification) -> bool | None:
    """Whether a verification confirms a statement: True, False, or None if it leaves that open."""
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
    """A statement, what the verifier found, whether that confirms it, and what is wrong with the edit, if anything."""

    statement: Statement
    found: Verification
    agrees: bool | None
    edit: str = ""

    def row(self) -> dict[str, Any]:
        """As JSON, for provenance."""
        return {
            **{name: getattr(self.statement, name) for name in ("subject", "relation", "object")},
            "caption": self.statement.caption,
            "kind": self.statement.kind,
            "verdict": str(self.found.verdict),
            "margin": round(self.found.margin, 4),
            "boxes": {name: [round(x, 4) for x in box] for name, box in self.found.boxes.items()},
            "reason": self.found.reason,
            "evidence": dict(self.found.evidence),
            "edit": self.edit,
            "agrees": self.agrees,
        }

    def kept(self, policy: Policy) -> Statement | None:
        """The statement as it may be made about the picture, with the boxes found; None if it is dropped."""
        said, boxes = self.statement, self.found.boxes
        turned = self.agrees is False and policy.on_fail == "relabel" and not self.edit
        if turned and {said.subject, said.object} <= boxes.keys() and said.kind != "object-absent":
            said = replace(said, kind="relation-false" if said.kind == "positive" else "positive")
        elif not self.agrees:
            return None
        return replace(said, subject_box=boxes.get(said.subject), object_box=boxes.get(said.object))


def check_many(pictures: Sequence[Painted], verifier: Verifier, policy: Policy | None = None) -> list[list[Checked]]:
    """What the verifier says about each statement that the pictures' jobs asked for, one list per picture. `policy`
    defaults to the verifier's own, if it has one."""
    policy = policy or policy_of(verifier)
    triplets = [painted.triplets() for painted in pictures]
    found = iter(verify_all(verifier, [triplet for rows in triplets for triplet in rows]))
    return [
        _checked(painted, [next(found) for _ in rows], policy) for painted, rows in zip(pictures, triplets, strict=True)
    ]


def policy_of(verifier: Verifier) -> Policy:
    """The policy that a verifier was configured with, else the default."""
    policy = getattr(verifier, "policy", None)
    return policy if isinstance(policy, Policy) else Policy()


def kept_of(painted: Painted, checked: Sequence[Checked], verifier: str, policy: Policy) -> Painted | Refused:
    """The picture with the statements that the verifier of this name confirms, and the boxes it found; all its verdicts
    go into the notes. Refused if no statement is left. What else was known about a drawn picture stays; what a model
    was asked for in addition, and nobody checked, does not."""
    kept = tuple(statement for c in checked if (statement := c.kept(policy)) is not None)
    if not kept:
        return Refused(painted.job, NOT_SHOWN if any(c.agrees is False for c in checked) else NOT_DECIDED)
    notes = {**painted.notes, "verifier": verifier, "verdicts": [c.row() for c in checked]}
    others = painted.others if painted.truth == "drawn" else ()
    return replace(painted, statements=kept, others=others, notes=notes, truth="verified")


def _checked(painted: Painted, found: Sequence[Verification], policy: Policy) -> list[Checked]:
    edit = Edit.of(painted)
    seen: dict[str, tuple[Box, ...]] = {}
    for verification in found:
        seen |= {name: verification.found(name) for name in (*verification.instances, *verification.boxes)}
    checked = []
    for statement, verification in zip(painted.statements, found, strict=True):
        agrees, problem = confirms(statement, verification), ""
        if edit is not None and agrees is not None:
            problem = edit.problem(statement, seen, policy)
        checked.append(Checked(statement, verification, False if problem else agrees, problem))
    return checked


class SceneTruth:
    """Judges pictures of the embedded world by the scene they were drawn from: exact, and blind to the pixels."""

    name = "scene-truth/1"

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        """Raises VsreError if the triplet's provenance holds no scene."""
        if "scene" not in triplet.provenance:
            raise VsreError(f"{triplet.image_name}: no scene in its provenance. Only drawn pictures have one.")
        scene = Scene.from_json(triplet.provenance["scene"])
        seen = visible_boxes(scene) or {}
        boxes = {name: seen[name] for name in (triplet.subject, triplet.object) if name in seen}
        names = (triplet.subject, triplet.object)
        states = {n: "present" if n in boxes else "unclear" if n in scene.names else "absent" for n in names}
        # In the form of verifiers that look (`vsre.verify.presence`), so that figures count both alike.
        seen_of: dict[str, Any] = {"seen": {name: {"state": state, "boxes": []} for name, state in states.items()}}
        if "absent" in states.values():
            return Verification(Verdict.FAIL, 1.0, boxes, reason=MISSING, evidence=seen_of)
        if len(boxes) < 2:
            return Verification(Verdict.UNDECIDED, 0.0, boxes, reason=UNSEEN, evidence=seen_of)
        truth = truth_of(scene, triplet.subject, triplet.relation, triplet.object)
        if truth is None:
            return Verification(Verdict.UNDECIDED, 0.0, boxes, reason=NOT_PLAIN, evidence=seen_of)
        return Verification(Verdict.PASS if truth else Verdict.FAIL, 1.0, boxes, evidence=seen_of)
