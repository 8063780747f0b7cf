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
from vsre.repaint.verify import confirms, verified
from vsre.sources.scenes import CLASSES, DRAWABLE, draw_scene_for
from vsre.triplets import Triplet, read_triplets, write_triplets

BOX, OTHER = (0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)
BOTH = {"cat": BOX, "dog": OTHER}
WORDS = Vocabulary(CLASSES, frozenset(DRAWABLE))


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
            tmp_path / "train", tmp_path / "out", settings=("t2i",), verifier=Scripted({}, Verification(Verdict.FAIL))
        )
