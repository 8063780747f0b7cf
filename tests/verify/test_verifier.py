import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_lookers import LEFT, MIDDLE, RIGHT, Fake, Says, knowing, png, triplet
from PIL import Image

from vsre.relations.photo_measures import DepthMap
from vsre.relations.things import Verdict
from vsre.repaint.painter import Painted, PaintJob, Refused, Statement
from vsre.repaint.verify import BatchVerifier, check_many, kept_of
from vsre.verify import build_verifier
from vsre.verify.case import MISSING, NO_RULE, WHY_OPEN
from vsre.verify.config import Depth, Judge, Masks, OpenVocabulary, VerifierConfig, load_config
from vsre.verify.judge import VlmJudge
from vsre.verify.presence import State
from vsre.verify.rules import SEVERAL
from vsre.verify.verifier import BAD_PICTURE, JUDGED, NO_PICTURE, TOO_SMALL, PictureVerifier, _Eye

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED


def verifier(seen: dict[str, Any], second: Fake | None = None, **config: Any) -> PictureVerifier:
    """With a fake in the place of the closed-set detector, and of the open one."""
    fake = Fake(seen)
    made = PictureVerifier(VerifierConfig(**config), known=fake)
    made.eyes = [_Eye(fake, 0.5, 0.3)]
    if second is not None:
        made.eyes.append(_Eye(second, 0.5, 0.3))
    return made


BOTH = {"cat": [(LEFT, 0.9)], "dog": [(RIGHT, 0.8)]}


@pytest.mark.parametrize(
    ("seen", "verdict", "reason", "boxes"),
    [
        (BOTH, P, "", {"cat", "dog"}),
        ({"cat": [(RIGHT, 0.9)], "dog": [(LEFT, 0.8)]}, F, "", {"cat", "dog"}),
        ({"dog": [(RIGHT, 0.8)]}, F, MISSING, {"dog"}),
        ({"cat": [(LEFT, 0.9)]}, F, MISSING, {"cat"}),
        ({}, F, MISSING, set()),
        (None, U, WHY_OPEN[State.UNCLEAR], set()),
        ({"cat": [(LEFT, 0.9), (RIGHT, 0.9)], "dog": [(MIDDLE, 0.8)]}, U, SEVERAL, {"cat", "dog"}),
    ],
)
def test_what_is_seen_decides(seen: Any, verdict: Verdict, reason: str, boxes: set[str]) -> None:
    [found] = verifier({"a": seen}).verify_many([triplet("a")])
    assert (found.verdict, found.reason, found.boxes.keys()) == (verdict, reason, boxes)
    assert (found.margin > 0) == (verdict is not U)
    json.dumps(found.evidence)


def test_evidence_holds_all_that_the_verdict_rests_on() -> None:
    seen = {"cat": [(LEFT, 0.9), (MIDDLE, 0.4)], "dog": [(RIGHT, 0.8)]}
    made = PictureVerifier(
        load_config("coco").model_copy(update={"open": None, "depth": None, "masks": None}), known=Fake({"a": seen})
    )
    [found] = made.verify_many([triplet("a")])
    assert found.boxes == {"cat": LEFT, "dog": RIGHT} and found.instances == {"cat": (LEFT,), "dog": (RIGHT,)}
    assert found.evidence == {
        "seen": {
            "cat": {"state": "present", "boxes": [{"by": "closed", "box": list(LEFT), "score": 0.9, "counts": True}]},
            "dog": {"state": "present", "boxes": [{"by": "closed", "box": list(RIGHT), "score": 0.8, "counts": True}]},
        },
        "rule": "left: pass 1",
        "pairs": 1,
        "by": {"closed": {"model": "fake/closed", "revision": "abc"}},
    }


def test_a_class_that_no_detector_knows_and_a_relation_without_a_rule() -> None:
    made = verifier({"a": BOTH})
    unicorn, wearing, facing = made.verify_many(
        [triplet("a", "unicorn"), triplet("a", relation="wearing"), triplet("a", relation="facing")]
    )
    assert (unicorn.verdict, unicorn.reason) == (U, WHY_OPEN[State.UNKNOWN])
    assert (wearing.verdict, wearing.reason) == (U, NO_RULE)
    assert (facing.verdict, facing.reason) == (U, "needs to know which way things face")
    # Known to be false although the other thing's class is not known.
    [gone] = verifier({"a": {"dog": [(RIGHT, 0.8)]}}).verify_many([triplet("a", "cat", "left of", "unicorn")])
    assert (gone.verdict, gone.reason) == (F, MISSING)


def test_pictures_that_cannot_be_looked_at() -> None:
    def of(image: bytes | None, name: str) -> Any:
        return triplet("a", image=image, image_id=name)

    made = verifier({"a": BOTH})
    bad, tiny, narrow, none, good = made.verify_many(
        [
            of(b"no picture", "1"),
            of(png("x", (1, 1)), "2"),
            of(png("x", (200, 9)), "3"),
            of(None, "4"),
            of(png("a"), "5"),
        ]
    )
    assert [v.reason for v in (bad, tiny, narrow, none)] == [BAD_PICTURE, TOO_SMALL, TOO_SMALL, NO_PICTURE]
    assert {v.verdict for v in (bad, tiny, narrow, none)} == {U} and good.verdict is P
    assert [name for name, _ in made.eyes[0].detector.asked] == ["a"]  # type: ignore[attr-defined]


def test_each_picture_is_looked_at_once_whatever_the_order() -> None:
    other = {"dog": [(LEFT, 0.9)], "cat": [(RIGHT, 0.8)]}
    rows = [triplet("a"), triplet("b"), triplet("a", "dog", "left of", "cat"), triplet("b", "dog", "left of", "cat")]
    for size in (1, 2, 8):
        made = verifier({"a": BOTH, "b": other}, batch_size=size)
        assert [v.verdict for v in made.verify_many(rows)] == [P, F, F, P]
        assert made.eyes[0].detector.asked == [("a", ("cat", "dog")), ("b", ("cat", "dog"))]  # type: ignore[attr-defined]
    assert made.verify_many([]) == []
    assert made.verify(png("a"), triplet("a").replace(image=None)).verdict is P


def test_the_second_opinion_falls_back_or_agrees() -> None:
    seen = {"a": {"cat": [(LEFT, 0.9)], "fox": [(LEFT, 0.9)], "dog": [(MIDDLE, 0.9)]}}
    fallback = Fake(seen, name="open", knows=("cat", "dog", "fox"))
    made = verifier({"a": BOTH}, fallback)
    cat, fox = made.verify_many([triplet("a"), triplet("a", "fox")])
    assert cat.verdict is P and fox.verdict is P and fallback.asked == [("a", ("fox",))]
    assert [b["by"] for b in fox.evidence["seen"]["fox"]["boxes"]] == ["open"]

    agree = Fake(seen, name="open", knows=("cat", "dog", "fox"))
    made = verifier({"a": BOTH}, agree, second_opinion="agree")
    cat, fox = made.verify_many([triplet("a"), triplet("a", "fox")])
    assert agree.asked == [("a", ("cat", "dog", "fox"))]
    assert (cat.verdict, cat.reason) == (U, WHY_OPEN[State.DISPUTED]), "they see the dog in two places"
    assert cat.evidence["seen"]["cat"]["state"] == "present" and cat.evidence["seen"]["dog"]["state"] == "disputed"
    assert cat.boxes == {"cat": LEFT}


class Looks:
    """A depth estimator or a segmenter that has one answer."""

    def __init__(self, spec: Any, answer: Any) -> None:
        self.spec, self.answer, self.asked = spec, answer, []

    def look(self, pictures: Any, *boxes: Any) -> list[Any]:
        self.asked += [picture.name for picture in pictures]
        return [self.answer for _ in pictures]

    def identity(self) -> dict[str, Any]:
        return {"fake": "looks"}

    def about(self) -> dict[str, Any]:
        return {"model": "fake/looks"}


def test_depth_is_asked_only_where_boxes_leave_it_open() -> None:
    near_right = DepthMap(np.tile(np.linspace(0, 1, 60), (40, 1)), inverse=True)
    depth = Looks(Depth(model="zoo:clip", relations=("in front of", "behind")), near_right)
    over = {"cat": [((0.3, 0.4, 0.7, 0.9), 0.9)], "dog": [((0.1, 0.3, 0.45, 0.8), 0.8)]}
    made = verifier({"a": over, "b": BOTH, "c": {"dog": over["dog"]}})
    made.depth = depth  # type: ignore[assignment]
    front, behind, left, missing, above = made.verify_many(
        [
            triplet("a", relation="in front of"),
            triplet("a", relation="behind"),
            triplet("b"),
            triplet("c", relation="behind"),
            triplet("a", relation="above"),
        ]
    )
    assert [v.verdict for v in (front, behind)] == [P, F]
    assert depth.asked == ["a.png"], "once for both, and for no other relation"
    assert front.evidence["depth"]["nearer"] > 0.5 and front.evidence["by"]["depth"] == {"model": "fake/looks"}
    assert front.evidence["depth"]["subject"] > front.evidence["depth"]["object"], "in disparity"
    assert left.verdict is P and missing.reason == MISSING and "depth" not in above.evidence
    # A map that the estimator could not give leaves it open.
    made.depth = Looks(depth.spec, None)  # type: ignore[assignment]
    [open_] = made.verify_many([triplet("a", relation="in front of")])
    assert (open_.verdict, open_.reason) == (U, "needs depth")


def test_touching_needs_outlines_and_depth() -> None:
    cat, dog = (0.1, 0.2, 0.5, 0.8), (0.45, 0.2, 0.9, 0.8)
    masks = [np.zeros((40, 60), bool) for _ in range(2)]
    masks[0][10:30, 6:29], masks[1][10:30, 29:54] = True, True
    flat = DepthMap(np.tile(np.linspace(0, 1, 40)[:, None], (1, 60)))
    made = verifier({"a": {"cat": [(cat, 0.9)], "dog": [(dog, 0.8)]}, "b": BOTH})
    made.depth = Looks(Depth(model="zoo:clip", relations=("touching",)), flat)  # type: ignore[assignment]
    made.masks = Looks(Masks(model="zoo:clip", relations=("touching",)), masks)  # type: ignore[assignment]
    touching, apart, on = made.verify_many(
        [triplet("a", relation="touching"), triplet("b", relation="touching"), triplet("a", relation="on")]
    )
    assert touching.verdict is P and touching.evidence["masks"] == {"subject": 0.1917, "object": 0.2083}
    assert apart.verdict is F and made.masks.asked == ["a.png"]  # type: ignore[union-attr]
    assert "masks" not in on.evidence


def test_a_judge_is_asked_about_what_is_left() -> None:
    engine = Says(knowing(True))
    made = verifier({"a": BOTH, "b": {"cat": [(LEFT, 0.4)], "dog": [(RIGHT, 0.8)]}})
    made.judge = VlmJudge(Judge(model="vlm"), engine=engine)
    sure, faint, facing, broken = made.verify_many(
        [triplet("a"), triplet("b"), triplet("a", relation="facing"), triplet("c", image=b"?", image_id="x")]
    )
    assert [len(prompts) for _, prompts in engine.asked] == [3, 3], "not about what boxes decided, nor a broken picture"
    assert sure.reason == "" and broken.reason == BAD_PICTURE
    assert (faint.verdict, faint.reason, faint.boxes) == (P, JUDGED, {"dog": RIGHT})
    assert (facing.verdict, facing.reason) == (P, JUDGED)
    assert facing.evidence["judge"]["before"] == "needs to know which way things face"
    assert [a["holds"] for a in facing.evidence["judge"]["answers"]] == [True, True, True]
    made.judge = VlmJudge(Judge(model="vlm"), engine=Says(lambda prompt: "Yes"))
    [left_open] = made.verify_many([triplet("a", relation="facing")])
    assert left_open.verdict is U and left_open.evidence["judge"]["model"] == "vlm"


def test_the_name_changes_with_what_decides_verdicts(lookers: dict[str, Path], tmp_path: Path) -> None:
    def name(**more: Any) -> str:
        given = {"model": str(lookers["rt"]), "present": 0.5, "absent": 0.3}
        return build_verifier(VerifierConfig.model_validate({"closed": given | more.pop("closed", {}), **more})).name

    same = name()
    assert same == name(batch_size=2, about="words", policy={"on_fail": "relabel"}, device="cpu")
    copied = tmp_path / "elsewhere"
    copied.mkdir()
    for file in lookers["rt"].iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    assert same == name(closed={"model": str(copied)}), "where weights lie does not matter"
    others = {
        name(closed={"present": 0.6}),
        name(closed={"model": str(lookers["dfine"])}),
        name(duplicates=0.6),
        name(open={"model": "a/b", "present": 0.3, "absent": 0.1}),
        name(open={"model": "a/b", "revision": "v1", "present": 0.3, "absent": 0.1}),
    }
    assert len(others) == 5 and same not in others


def test_the_whole_chain_of_real_classes(lookers: dict[str, Path]) -> None:
    """Random models: whatever they see, every part runs, and a pickled verifier says the same."""
    config = VerifierConfig.model_validate(
        {
            "closed": {"model": str(lookers["rt"]), "present": 0.02, "absent": 0.01},
            "open": {"model": str(lookers["owl"]), "present": 0.02, "absent": 0.01},
            "second_opinion": "fallback",
            "duplicates": 0.01,
            "depth": {"model": str(lookers["depth"]), "relations": ["in front of", "touching"]},
            "masks": {"model": str(lookers["sam"]), "relations": ["touching"]},
            "device": "cpu",
            "offline": True,
            "batch_size": 2,
        }
    )
    made = build_verifier(config)
    assert isinstance(made, BatchVerifier)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    rows = [
        triplet("a", "cat", relation, object, image=buffer.getvalue())
        for relation in ("in front of", "touching", "left of")
        for object in ("couch", "sheep")
    ]
    found = made.verify_many(rows)
    assert {b["by"] for v in found for s in v.evidence["seen"].values() for b in s["boxes"]} == {"closed", "open"}
    assert made.about()["closed"]["files"].startswith("sha256:")
    packed = pickle.dumps(made)
    assert len(packed) < 100_000
    assert pickle.loads(packed).verify_many(rows) == found and pickle.loads(packed).name == made.name


def test_pictures_of_a_painter_are_verified_in_batches() -> None:
    """Inpainting a cat into a fox beside a dog: the fox in the mask, the cat gone, the dog where it was."""
    source = triplet("source").replace(subject_box=LEFT, object_box=RIGHT, split="train")
    mask = {"box": [0.08, 0.38, 0.32, 0.62]}

    def painted(name: str) -> Painted:
        said = (
            Statement("fox", "left of", "dog", "positive", LEFT, RIGHT),
            Statement("cat", "left of", "dog", "object-absent", None, RIGHT),
        )
        notes = {"mask": mask, "replaced_by": "fox"}
        return Painted(
            PaintJob(source, "inpaint", len(name), "p/1"), png(name), 60, 40, said, notes=notes, truth="intended"
        )

    seen = {"fox": [(LEFT, 0.9)], "dog": [(RIGHT, 0.8)]}
    pictures = {
        "well": seen,
        "elsewhere": {**seen, "fox": [((0.0, 0.0, 0.2, 0.2), 0.9)]},
        "still": {**seen, "cat": [(LEFT, 0.7)]},
        "moved": {**seen, "dog": [((0.7, 0.1, 0.9, 0.3), 0.8)]},
        "another": {**seen, "cat": [((0.35, 0.0, 0.5, 0.2), 0.9)]},
    }
    by_name = {painted(name).triplets()[0].image_name.removesuffix(".png"): s for name, s in pictures.items()}
    fake = Fake(by_name, knows=("cat", "dog", "fox"))
    made = PictureVerifier(VerifierConfig(), known=fake)
    painted_ones = [painted(name) for name in pictures]
    results = {
        name: kept_of(one, checked, made.name, made.policy)
        for name, one, checked in zip(pictures, painted_ones, check_many(painted_ones, made), strict=True)
    }
    assert {n: [s.kind for s in r.statements] if isinstance(r, Painted) else "refused" for n, r in results.items()} == {
        "well": ["positive", "object-absent"],
        "elsewhere": ["object-absent"],
        "still": "refused",
        "moved": "refused",
        "another": ["positive"],
    }
    assert isinstance(results["still"], Refused) and len(fake.asked) == 5
    assert isinstance(results["well"], Painted)
    [row, _] = results["well"].triplets()
    assert row.provenance["verifier"] == made.name
    assert row.provenance["verdicts"][0]["evidence"]["seen"]["fox"]["state"] == "present"


def test_open_vocabulary_alone(lookers: dict[str, Path]) -> None:
    spec = OpenVocabulary(model=str(lookers["owl"]), present=0.9, absent=0.01)
    [found] = build_verifier(VerifierConfig(open=spec, offline=True, device="cpu")).verify_many([triplet("a")])  # type: ignore[attr-defined]
    assert found.evidence["by"].keys() == {"open"} and found.verdict in (U, F, P)
