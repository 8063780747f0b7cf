"""What a verifier was not asked for, and where an edit could be seen at all."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_verify import BOX, INPAINTED, OTHER

from vsre.relations.things import Verdict
from vsre.repaint import Painted, Statement, repaint
from vsre.repaint.layout import SceneFile
from vsre.repaint.verify import MISSING, NOT_IN_THE_MASK, Checked, Edit, Policy, SceneTruth, Verification, kept_of
from vsre.triplets import read_triplets


def test_what_the_verifier_was_not_asked_for_is_not_verified(small_world: Path, tmp_path: Path) -> None:
    scenes = small_world / "scenes.jsonl"
    repaint(small_world / "triplets" / "train", tmp_path, scenes=scenes, limit=6, verifier=SceneTruth())
    truths = set()
    for row in read_triplets(tmp_path, images=False):
        asked = {verdict["caption"] for verdict in row.provenance["verdicts"]}
        truths.add(row.provenance["truth"])
        assert row.provenance["truth"] == ("verified" if row.caption in asked else "drawn"), row.caption
    assert truths == {"verified", "drawn"}


@pytest.mark.parametrize(("truth", "kept"), [("drawn", 1), ("intended", 0)])
def test_beside_what_was_verified_only_what_was_drawn_is_said(truth: str, kept: int) -> None:
    said, other = INPAINTED.statements[0], Statement("cow", "above", "dog", "positive", BOX, OTHER)
    painted = replace(INPAINTED, statements=(said,), others=(other,), truth=truth)  # type: ignore[arg-type]
    found = Verification(Verdict.PASS, 0.2, {said.subject: BOX, said.object: OTHER})
    result = kept_of(painted, [Checked(said, found, True)], "me/1", Policy())
    assert isinstance(result, Painted) and len(result.others) == kept
    truths = [t.provenance["truth"] for t in result.triplets([*result.statements, *result.others])]
    assert truths == ["verified", "drawn"][: 1 + kept]


def test_a_new_subject_can_fill_no_more_than_was_painted() -> None:
    """The object took the lower two thirds of the mask's box, so nothing in it reaches half of that box."""
    said = INPAINTED.statements[0]
    mask = {"box": [0.1, 0.1, 0.4, 0.7]}
    seen = {said.subject: ((0.1, 0.1, 0.4, 0.3),)}
    for notes, problem in ((mask, NOT_IN_THE_MASK), (mask | {"painted": [0.1, 0.1, 0.4, 0.3]}, "")):
        edit = Edit.of(replace(INPAINTED, notes={"mask": notes}))
        assert edit is not None
        assert replace(edit, object_box=None).problem(said, seen, Policy()) == problem


def test_scene_truth_says_why(small_world: Path) -> None:
    row = next(read_triplets(small_world / "triplets" / "test"))
    scene = SceneFile(small_world / "scenes.jsonl").get(row.image_name)
    assert scene is not None
    row = row.replace(provenance={"scene": scene.to_json()})
    found = SceneTruth().verify(b"", row.replace(subject="giraffe"))
    assert (found.verdict, found.reason) == (Verdict.FAIL, MISSING)
    assert found.evidence["seen"]["giraffe"]["state"] == "absent"
