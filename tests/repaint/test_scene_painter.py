import io
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from vsre.errors import VsreError
from vsre.relations.grammar import caption
from vsre.repaint import Painted, PaintJob, Refused, ScenePainter, Vocabulary
from vsre.repaint import scene_painter as reasons
from vsre.repaint.edits import alike, turned_round, visible_boxes
from vsre.repaint.layout import SceneFile
from vsre.repaint.painter import Setting
from vsre.sources.scenes import CLASSES, DRAWABLE, Placed, Scene, decided, draw_scene_for
from vsre.triplets import Triplet, read_triplets

WORDS = Vocabulary(CLASSES, frozenset(DRAWABLE))
PAINTER = ScenePainter(WORDS, size=96)


def triplet(subject: str, relation: str, object: str, label: bool = True, **changes: Any) -> Triplet:
    said = caption(subject, relation, object)
    return Triplet("name:1", "1.jpg", subject, relation, object, said, label, "train", "vsr", **changes)


def drawn(subject: str, relation: str, object: str, label: bool, seed: int = 0) -> Triplet:
    """A triplet whose provenance holds the exact scene it was drawn from."""
    scene = draw_scene_for(subject, relation, object, label, Random(seed), extras=["clock"], size=96)
    assert scene is not None
    return triplet(subject, relation, object, label, provenance={"scene": scene.to_json()})


def paint(source: Triplet, setting: Setting, *, seed: int = 0, truth: bool | None = None) -> Painted | Refused:
    return PAINTER.paint(PaintJob(source, setting, seed, PAINTER.name, PAINTER.parameters, truth))


def painted(source: Triplet, setting: Setting, *, seed: int = 0, truth: bool | None = None) -> Painted:
    result = paint(source, setting, seed=seed, truth=truth)
    assert isinstance(result, Painted), result
    return result


def scene_of(result: Painted) -> Scene:
    return Scene.from_json(result.notes["scene"])


def pictures(world: Path) -> Iterator[Painted]:
    painter = ScenePainter(WORDS, scenes=world / "scenes.jsonl", size=96)
    for number, source in enumerate(read_triplets(world / "triplets" / "train", images=False)):
        if number % 9 == 0:
            for setting in painter.settings:
                result = painter.paint(PaintJob(source, setting, number, painter.name))
                if isinstance(result, Painted):
                    yield result


def test_everything_said_is_plainly_so_on_the_scene_that_was_drawn(small_world: Path) -> None:
    settings = set()
    for result in pictures(small_world):
        settings.add(result.job.setting)
        scene = scene_of(result)
        facts, boxes = decided(scene), visible_boxes(scene)
        assert boxes is not None
        for said in (*result.statements, *result.others):
            if said.kind == "object-absent":
                assert said.subject not in scene.names and not said.label and said.subject_box is None
            else:
                assert facts[said.subject, said.relation, said.object] is said.label
                assert said.subject_box == boxes[said.subject]
            assert said.object_box == boxes[said.object]
        captions = [s.caption for s in (*result.statements, *result.others)]
        assert len(set(captions)) == len(captions)
        with Image.open(io.BytesIO(result.image)) as image:
            assert image.size == (result.width, result.height) == (scene.size, scene.size)
    assert settings == {"t2i", "i2i", "inpaint"}


def test_the_same_job_gives_the_same_picture_and_another_seed_another() -> None:
    source = triplet("cat", "left of", "dog")
    first, again, other = (painted(source, "t2i", seed=seed) for seed in (1, 1, 2))
    assert first.image == again.image and first.others == again.others
    assert first.image != other.image


def test_t2i_draws_the_caption_true_or_false_as_asked() -> None:
    source = triplet("cat", "left of", "dog", label=False)
    for truth, kind in ((None, "positive"), (True, "positive"), (False, "relation-false")):
        result = painted(source, "t2i", truth=truth)
        assert [s.kind for s in result.statements] == [kind]
        assert {"cat", "dog"} <= set(scene_of(result).names)


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("relation", ["facing", "left of", "on", "behind", "touching"])
def test_i2i_keeps_layout_and_label_on_another_background(relation: str, label: bool) -> None:
    source = drawn("dog", relation, "couch", label)
    before = Scene.from_json(source.provenance["scene"])
    result = painted(source, "i2i")
    after = scene_of(result)
    assert result.notes["layout"] == "scene" and after.kind != before.kind
    for was, now in zip(before.objects, after.objects, strict=True):
        assert (was.name, was.x, was.y, was.z, was.size) == (now.name, now.x, now.y, now.z, now.size)
        assert was.box == pytest.approx(now.box)
    assert result.statements[0].label is label


def test_things_are_turned_round_only_where_nothing_depends_on_it() -> None:
    source = drawn("dog", "facing", "couch", True)
    scene = Scene.from_json(source.provenance["scene"])
    turned = [turned_round(scene, Random(seed), source) for seed in range(20)]
    assert all(s.objects[0].flip is scene.objects[0].flip for s in turned)
    assert {s.objects[2].flip for s in turned} == {True, False}


def test_i2i_refuses_a_label_that_the_scene_does_not_bear_out() -> None:
    source = drawn("dog", "left of", "couch", True).replace(label=False)
    assert paint(source, "i2i") == Refused(
        PaintJob(source, "i2i", 0, PAINTER.name, PAINTER.parameters), reasons.CHANGED
    )


def test_a_photos_layout_is_approached_from_its_boxes() -> None:
    boxes = {"subject_box": (0.05, 0.5, 0.35, 0.9), "object_box": (0.65, 0.5, 0.95, 0.9)}
    near = triplet("dog", "near", "cat", label=False, **boxes)
    result = painted(near, "i2i")
    dog, cat = result.statements[0].subject_box, result.statements[0].object_box
    assert dog is not None and cat is not None and dog[2] < cat[0]
    assert result.notes["layout"] == "boxes"
    mirrored = near.replace(subject_box=boxes["object_box"], object_box=boxes["subject_box"])
    dog, cat = (painted(mirrored, "i2i").statements[0].subject_box, near.subject_box)
    assert dog is not None and cat is not None and dog[0] > cat[2]


@pytest.mark.parametrize("seed", range(4))
def test_inpaint_changes_the_subject_and_nothing_else(seed: int) -> None:
    source = drawn("cat", "right of", "chair", True, seed)
    before = Scene.from_json(source.provenance["scene"])
    result = painted(source, "inpaint", seed=seed)
    after = scene_of(result)
    assert (after.kind, after.seed, after.objects[1:]) == (before.kind, before.seed, before.objects[1:])
    old, new = before.objects[0].box, after.objects[0].box
    assert new[0] >= old[0] - 0.01 and new[1] >= old[1] - 0.01 and new[2] <= old[2] + 0.01
    assert new[3] == pytest.approx(old[3])
    swapped, gone = result.statements
    assert gone.kind == "object-absent" and gone.caption == source.caption
    assert swapped.subject == after.names[0] == result.notes["replaced_by"]
    assert not alike(swapped.subject, "cat")


def test_inpaint_refuses_what_it_cannot_do_honestly() -> None:
    carrying = drawn("dining table", "under", "cake", True, 1)
    scene = Scene.from_json(carrying.provenance["scene"])
    held = Scene(
        "room",
        0,
        (
            Placed("dining table", 0.5, 0.9, 1.1, 0.4),
            Placed("cake", 0.5, 0.67, 1.1, 0.2, link="on", host=0),
        ),
        96,
    )
    assert scene.names[0] == "dining table"
    on_it = carrying.replace(provenance={"scene": held.to_json()})
    result = paint(on_it, "inpaint")
    assert isinstance(result, Refused) and result.reason == reasons.HOLDS
    two_cups = Scene("room", 0, (Placed("cup", 0.2, 0.9, 1.1, 0.2), Placed("wine glass", 0.7, 0.9, 1.1, 0.2)), 96)
    cups = triplet("cup", "left of", "wine glass", provenance={"scene": two_cups.to_json()})
    result = paint(cups, "inpaint")
    assert isinstance(result, Refused) and result.reason == reasons.LEFT


@pytest.mark.parametrize(
    ("source", "setting", "reason"),
    [
        (triplet("surfboard", "left of", "cat"), "t2i", reasons.NO_CLASS),
        (triplet("dog", "part of", "cat"), "t2i", reasons.NO_RELATION),
        (triplet("dog", "inside", "apple"), "t2i", reasons.NO_SCENE),
        (triplet("dog", "left of", "cat"), "i2i", reasons.NO_LAYOUT),
        (triplet("dog", "left of", "cat"), "inpaint", reasons.NO_LAYOUT),
        (triplet("dog", "left of", "cat", provenance={"scene": {}}), "i2i", reasons.NO_READING),
    ],
)
def test_refusals_say_why(source: Triplet, setting: Setting, reason: str) -> None:
    result = paint(source, setting)
    assert isinstance(result, Refused) and result.reason == reason


def test_only_words_of_the_vocabulary_are_shown_and_said() -> None:
    words = Vocabulary(
        ("cat", "dog", "chair", "clock"), frozenset({"left of", "right of"}), pairs=frozenset({("cat", "clock")})
    )
    painter = ScenePainter(words, size=96)
    source = drawn("cat", "left of", "chair", True)
    said = []
    for seed in range(12):
        for setting in painter.settings:
            result = painter.paint(PaintJob(source, setting, seed, painter.name))
            if isinstance(result, Painted):
                assert set(scene_of(result).names) <= set(words.classes)
                said += [*result.statements, *result.others]
    assert said and {s.relation for s in said} == {"left of", "right of"}
    assert all({s.subject, s.object} != {"cat", "clock"} for s in said)


def test_the_scene_file_is_read_line_by_line(tmp_path: Path) -> None:
    scene = Scene("room", 1, (Placed("cat", 0.3, 0.9, 1.1, 0.2), Placed("dog", 0.7, 0.9, 1.1, 0.2)))
    path = tmp_path / "scenes.jsonl"
    path.write_text(json.dumps({"image": "ä.jpg", **scene.to_json()}) + "\n\n")
    scenes = SceneFile(path)
    assert scenes.get("ä.jpg") == scene and scenes.get("b.jpg") is None
    path.write_text('{"image": "a.jpg"}\n{"image": 7}\n')
    with pytest.raises(VsreError, match="line 2"):
        SceneFile(path)
    with pytest.raises(VsreError, match="no such file"):
        SceneFile(tmp_path / "none.jsonl")
