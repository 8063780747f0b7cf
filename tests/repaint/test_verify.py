import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from vsre.errors import VsreError
from vsre.relations.grammar import caption
from vsre.relations.things import Judgement, Verdict
from vsre.repaint import (
    KINDS,
    Painted,
    PaintJob,
    Refused,
    ScenePainter,
    SceneTruth,
    Statement,
    Verification,
    Vocabulary,
    repaint,
    verify,
)
from vsre.repaint.verify import (
    MOVED,
    NOT_GONE,
    NOT_IN_THE_MASK,
    BatchVerifier,
    Policy,
    check_many,
    confirms,
    iou,
    kept_of,
    policy_of,
    verify_all,
)
from vsre.sources.scenes import CLASSES, DRAWABLE, draw_scene_for
from vsre.triplets import Triplet, read_triplets, write_triplets

BOX, OTHER = (0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)
BOTH = {"cat": BOX, "dog": OTHER}
WORDS = Vocabulary(CLASSES, frozenset(DRAWABLE))


def verified(painted: Painted, verifier: Any, policy: Policy | None = None) -> Painted | Refused:
    """What is kept of one picture, as where many are judged."""
    [checked] = check_many([painted], verifier, policy)
    return kept_of(painted, checked, verifier.name, policy or policy_of(verifier))


def statement(kind: Any) -> Statement:
    return Statement("cat", "left of", "dog", kind, None, OTHER)


class Scripted:
    """Says of a picture what the script has for the caption."""

    name = "scripted/1"

    def __init__(self, script: dict[str, Verification], otherwise: Verification | None = None) -> None:
        self.script, self.otherwise, self.asked = script, otherwise, []

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        self.asked.append((image, triplet.caption))
        return self.script.get(triplet.caption) or self.otherwise or Verification(Verdict.UNDECIDED)


@pytest.mark.parametrize(
    ("verdict", "boxes", "expected"),
    [
        (Verdict.PASS, BOTH, {"positive": True, "relation-false": False, "object-absent": False}),
        (Verdict.FAIL, BOTH, {"positive": False, "relation-false": True, "object-absent": False}),
        (Verdict.FAIL, {"dog": OTHER}, {"positive": False, "relation-false": False, "object-absent": True}),
        (Verdict.FAIL, {"cat": BOX}, {"positive": False, "relation-false": False, "object-absent": False}),
        (Verdict.FAIL, {}, {"positive": False, "relation-false": False, "object-absent": False}),
        (Verdict.UNDECIDED, BOTH, {"positive": None, "relation-false": None, "object-absent": None}),
    ],
)
def test_what_bears_a_statement_out(verdict: Verdict, boxes: Any, expected: dict[str, bool | None]) -> None:
    assert {kind: confirms(statement(kind), Verification(verdict, 0.3, boxes)) for kind in KINDS} == expected


def test_a_rules_judgement_becomes_a_verification() -> None:
    found = Verification.of(Judgement(Verdict.PASS, 0.25), BOTH)
    assert (found.verdict, found.margin, found.boxes) == (Verdict.PASS, 0.25, BOTH)


SOURCE = Triplet("name:1", "1.jpg", "cat", "left of", "dog", "The cat is left of the dog.", True, "train", "vsr")
SWAPPED = Painted(
    PaintJob(SOURCE, "inpaint", 0, "diffusion/1"),
    b"\x89PNG",
    8,
    8,
    (Statement("fox", "left of", "dog", "positive", BOX, OTHER), statement("object-absent")),
    truth="intended",
)


def test_what_is_borne_out_is_kept_with_the_boxes_found() -> None:
    found = (0.11, 0.1, 0.41, 0.4)
    verifier = Scripted(
        {
            "The fox is left of the dog.": Verification(Verdict.PASS, 0.2, {"fox": found, "dog": OTHER}),
            "The cat is left of the dog.": Verification(Verdict.UNDECIDED, 0.0, {"dog": OTHER}),
        }
    )
    result = verified(SWAPPED, verifier)
    assert isinstance(result, Painted) and result.truth == "verified"
    [row] = result.triplets()
    assert (row.caption, row.label, row.subject_box) == ("The fox is left of the dog.", True, found)
    assert row.provenance["truth"] == "verified" and row.provenance["verifier"] == "scripted/1"
    assert [(v["verdict"], v["agrees"]) for v in row.provenance["verdicts"]] == [("pass", True), ("undecided", None)]
    json.dumps(row.provenance)
    assert verifier.asked == [(b"\x89PNG", s.caption) for s in SWAPPED.statements]


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Verdict.FAIL, verify.NOT_SHOWN), (Verdict.UNDECIDED, verify.NOT_DECIDED)]
)
def test_a_picture_of_which_nothing_is_borne_out_is_refused(verdict: Verdict, reason: str) -> None:
    result = verified(SWAPPED, Scripted({}, Verification(verdict)))
    assert isinstance(result, Refused) and result.reason == reason


def test_a_reason_and_the_evidence_stay_in_provenance() -> None:
    found = Verification(Verdict.PASS, 0.2, BOTH | {"fox": BOX}, reason="why", evidence={"rule": "left: pass 1"})
    result = verified(SWAPPED, Scripted({"The fox is left of the dog.": found}))
    assert isinstance(result, Painted)
    [kept, dropped] = result.triplets()[0].provenance["verdicts"]
    assert (kept["reason"], kept["evidence"], kept["edit"]) == ("why", {"rule": "left: pass 1"}, "")
    assert (dropped["verdict"], dropped["agrees"]) == ("undecided", None)


def test_several_instances_and_the_one_that_was_judged() -> None:
    assert Verification(Verdict.PASS, 0.2, {"cat": BOX}).found("cat") == (BOX,)
    assert Verification(Verdict.PASS, 0.2, {"cat": BOX}, {"cat": (BOX, OTHER)}).found("cat") == (BOX, OTHER)
    assert Verification(Verdict.PASS, 0.2, {}, {"cat": ()}).found("cat") == ()


INPAINTED = Painted(
    SWAPPED.job, b"\x89PNG", 8, 8, SWAPPED.statements, notes={"mask": {"box": [0.08, 0.08, 0.42, 0.42]}}
)
"""As SWAPPED, with the mask in its notes: a fox was painted where the cat was, beside a dog at OTHER."""
EDITED = INPAINTED.job.triplet.replace(subject_box=BOX, object_box=OTHER)


def edited(**instances: Any) -> dict[str, Verification]:
    """A fox at BOX and a dog at OTHER, but for what is given; no cat."""
    seen = {"fox": (BOX,), "dog": (OTHER,)} | instances
    boxes = {name: boxes[0] for name, boxes in seen.items()}
    return {
        "The fox is left of the dog.": Verification(Verdict.PASS, 0.2, boxes, seen),
        "The cat is left of the dog.": Verification(Verdict.FAIL, 0.3, {"dog": seen["dog"][0]}, {"dog": seen["dog"]}),
    }


@pytest.mark.parametrize(
    ("script", "kinds", "problems"),
    [
        (edited(), ["positive", "object-absent"], ["", ""]),
        (edited(fox=((0.2, 0.2, 0.5, 0.5),)), ["object-absent"], [NOT_IN_THE_MASK, ""]),
        (edited(fox=((0.2, 0.2, 0.5, 0.5), BOX)), ["positive", "object-absent"], ["", ""]),
        (edited(dog=((0.6, 0.5, 1.0, 0.9),)), [], [MOVED, MOVED]),
        (edited(dog=((0.6, 0.5, 1.0, 0.9), OTHER)), ["positive", "object-absent"], ["", ""]),
        (
            edited() | {"The cat is left of the dog.": Verification(Verdict.PASS, 0.1, {"cat": BOX, "dog": OTHER})},
            [],
            [NOT_GONE, ""],
        ),
        (
            edited() | {"The cat is left of the dog.": Verification(Verdict.PASS, 0.1, {"cat": OTHER, "dog": OTHER})},
            ["positive"],
            ["", ""],
        ),
        ({"The fox is left of the dog.": Verification(Verdict.UNDECIDED)}, [], ["", ""]),
    ],
)
def test_an_edit_is_believed_where_it_was_made(script: Any, kinds: list[str], problems: list[str]) -> None:
    """New subject in the mask (IoU over .5), old one not there, object where it was (IoU over .7)."""
    job = PaintJob(EDITED, "inpaint", 0, "diffusion/1")
    painted = Painted(job, INPAINTED.image, 8, 8, INPAINTED.statements, notes=INPAINTED.notes, truth="intended")
    verifier = Scripted(script)
    assert [c.edit for c in check_many([painted], verifier)[0]] == problems
    result = verified(painted, verifier)
    assert ([s.kind for s in result.statements] if isinstance(result, Painted) else []) == kinds
    # Without a mask, or in another setting, nobody knows where to look.
    for other in (
        Painted(job, painted.image, 8, 8, painted.statements),
        Painted(
            PaintJob(EDITED, "i2i", 0, "diffusion/1"), painted.image, 8, 8, painted.statements, notes=painted.notes
        ),
    ):
        assert [c.edit for c in check_many([other], verifier)[0]] == ["", ""]


def test_an_edit_that_went_wrong_is_not_relabelled() -> None:
    """The fox is found, but not in the mask: what it is there, nobody asked for."""
    job = PaintJob(EDITED, "inpaint", 0, "diffusion/1")
    for fox, kinds in ((BOX, ["relation-false", "object-absent"]), ((0.2, 0.2, 0.5, 0.5), ["object-absent"])):
        script = edited(fox=(fox,))
        script["The fox is left of the dog."] = Verification(Verdict.FAIL, 0.2, {"fox": fox, "dog": OTHER})
        painted = Painted(job, INPAINTED.image, 8, 8, INPAINTED.statements, notes=INPAINTED.notes)
        result = verified(painted, Scripted(script), Policy(on_fail="relabel"))
        assert isinstance(result, Painted) and [s.kind for s in result.statements] == kinds


def test_overlaps_are_the_policys() -> None:
    job = PaintJob(EDITED, "inpaint", 0, "diffusion/1")
    painted = Painted(job, INPAINTED.image, 8, 8, INPAINTED.statements, notes=INPAINTED.notes)
    verifier = Scripted(edited(fox=((0.2, 0.2, 0.5, 0.5),), dog=((0.6, 0.5, 1.0, 0.9),)))
    lenient = verified(painted, verifier, Policy(subject_iou=0.2, object_iou=0.5))
    assert isinstance(lenient, Painted) and len(lenient.statements) == 2


@pytest.mark.parametrize(
    ("kind", "verdict", "boxes", "kept"),
    [
        ("positive", Verdict.FAIL, BOTH, "relation-false"),
        ("relation-false", Verdict.PASS, BOTH, "positive"),
        ("positive", Verdict.FAIL, {"dog": OTHER}, None),
        ("relation-false", Verdict.FAIL, {"dog": OTHER}, None),
        ("object-absent", Verdict.FAIL, BOTH, None),
        ("object-absent", Verdict.PASS, BOTH, None),
        ("positive", Verdict.UNDECIDED, BOTH, None),
        ("positive", Verdict.PASS, BOTH, "positive"),
    ],
)
def test_relabelling_is_asked_for_and_needs_both_things(kind: Any, verdict: Verdict, boxes: Any, kept: Any) -> None:
    painted = Painted(SWAPPED.job, b"\x89PNG", 8, 8, (statement(kind),), truth="intended")
    verifier = Scripted({}, Verification(verdict, 0.2, boxes))
    result = verified(painted, verifier, Policy(on_fail="relabel"))
    assert (result.statements[0].kind if isinstance(result, Painted) else None) == kept
    if isinstance(result, Painted):
        [row] = result.triplets()
        assert row.label is (kept == "positive") and row.subject_box == BOX
        assert row.provenance["verdicts"][0]["kind"] == kind, "what was asked for stays known"
    dropped = verified(painted, verifier)
    assert isinstance(dropped, Painted) == (kept == kind)


def test_a_verifier_brings_its_policy_and_batches() -> None:
    class Batches(Scripted):
        policy = Policy(on_fail="relabel")
        batch_size = 2

        def verify_many(self, triplets: Any) -> list[Verification]:
            self.asked.append([t.caption for t in triplets])
            return [self.verify(t.image, t) for t in triplets]

    verifier = Batches({}, Verification(Verdict.FAIL, 0.2, {"fox": BOX, "cat": BOX, "dog": OTHER}))
    assert isinstance(verifier, BatchVerifier) and not isinstance(Scripted({}), BatchVerifier)
    assert policy_of(verifier).on_fail == "relabel" and policy_of(Scripted({})) == Policy()
    result = verified(SWAPPED, verifier)
    assert isinstance(result, Painted) and [s.kind for s in result.statements] == ["relation-false"]
    assert verifier.asked[0] == [s.caption for s in SWAPPED.statements], "both statements at once"
    one = Scripted({}, Verification(Verdict.PASS))
    assert len(verify_all(one, SWAPPED.triplets())) == len(one.asked) == 2


def test_intersection_over_union() -> None:
    assert iou(BOX, BOX) == 1 and iou(BOX, OTHER) == 0
    assert iou((0.0, 0.0, 0.2, 0.2), (0.1, 0.0, 0.3, 0.2)) == pytest.approx(1 / 3)
    assert iou((0.1, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.1)) == 0


def test_the_scene_is_the_truth_of_a_drawn_picture() -> None:
    painter, truth = ScenePainter(WORDS, size=96), SceneTruth()
    scene = draw_scene_for("cat", "right of", "chair", True, Random(1), extras=[], size=96)
    assert scene is not None
    said = caption("cat", "right of", "chair")
    source = Triplet(
        "name:1", "1.jpg", "cat", "right of", "chair", said, True, "train", "vsr", provenance={"scene": scene.to_json()}
    )
    for setting in painter.settings:
        result = painter.paint(PaintJob(source, setting, 1, painter.name))
        assert isinstance(result, Painted) and isinstance(verified(result, truth), Painted)
        for row in result.triplets():
            wrong = row.replace(subject=row.object, object=row.subject, caption="said the other way round")
            assert truth.verify(row.image or b"", wrong).verdict is not Verdict.PASS
    with pytest.raises(VsreError, match="no scene in its provenance"):
        truth.verify(b"", source.replace(provenance={}))


def test_repaint_writes_what_a_verifier_bears_out(tmp_path: Path) -> None:
    cats = [SOURCE.replace(image_id=f"name:{n}", image_name=n) for n in ("a.jpg", "b.jpg")]
    write_triplets(tmp_path / "train", cats)
    summary = repaint(
        tmp_path / "train", tmp_path / "out", settings=("t2i",), verifier=SceneTruth(), captions_per_image=0
    )
    assert summary["by_truth"] == {"verified": 2} and summary["verifier"] == "scene-truth/1"
    assert {t.provenance["truth"] for t in read_triplets(tmp_path / "out")} == {"verified"}
    with pytest.raises(VsreError, match=r"does not show what was asked for \(2\)"):
        repaint(
            tmp_path / "train", tmp_path / "none", settings=("t2i",), verifier=Scripted({}, Verification(Verdict.FAIL))
        )
