"""What is derived from drawn scenes holds in those scenes; what is not decided is not said."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.relations.algebra import Statement, inverse, opposite, swapped
from vsre.relations.grammar import caption
from vsre.relations.ontology import RELATIONS
from vsre.sources.derive import KINDS, derive, expected
from vsre.sources.protocols import SOURCE_IMAGE, HeldOut
from vsre.sources.scenes import Scene, decided, write_world
from vsre.sources.scenes.render import mask_box, shapes
from vsre.sources.vsr import import_vsr
from vsre.triplets import Triplet, image_content_id, read_triplets, write_triplets


def jpeg(colour: str = "red") -> bytes:
    """Left half of one colour, right half black."""
    image = Image.new("RGB", (32, 24), "black")
    image.paste(colour, (0, 0, 16, 24))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def said(relation: str, label: bool, subject: str = "cat", object: str = "dog", **fields: Any) -> Triplet:
    image = fields.pop("image", jpeg())
    given = {
        "image_id": image_content_id(image) if image else "name:a.jpg",
        "image_name": "a.jpg",
        "caption": caption(subject, relation, object),
        "split": "train",
        "origin": "vsr",
        "subject_box": (0.1, 0.2, 0.3, 0.4),
        "object_box": (0.5, 0.5, 0.9, 1.0),
    }
    return Triplet(subject=subject, relation=relation, object=object, label=label, image=image, **(given | fields))


def derived(folder: Path, rows: list[Triplet], *kinds: str, **more: Any) -> tuple[list[Triplet], dict[str, Any]]:
    """The derived rows alone, and the summary."""
    write_triplets(folder / "source", rows)
    summary = derive(folder / "source", folder / "out", kinds, **more)
    return [t for t in read_triplets(folder / "out") if t.origin.startswith("derived:")], summary


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Scene], dict[str, Any]]:
    """Drawn scenes as triplets with all that follows from them; the scenes by file name; the summary."""
    folder = tmp_path_factory.mktemp("drawn")
    write_world(folder / "w", train_units=30, dev_units=0, test_units=0, seed=11, size=96)
    rows = [json.loads(line) for line in (folder / "w" / "scenes.jsonl").read_text().splitlines()]
    scenes = {row["image"]: Scene.from_json(row) for row in rows}
    annotations = folder / "w" / "annotations" / "caption-disjoint"
    import_vsr(annotations, folder / "t", images=[folder / "w" / "images"], instances=[folder / "w" / "instances.json"])
    return folder, scenes, derive(folder / "t" / "train", folder / "out", KINDS)


def in_mirror(scene: Scene) -> Scene:
    """Every thing at the mirrored place, turned the other way."""
    objects = tuple(o.moved(x=1 - o.x, flip=not o.flip, angle=-o.angle) for o in scene.objects)
    return Scene(scene.kind, scene.seed, objects, scene.size)


def test_what_is_derived_holds_in_the_scene(drawn: tuple[Path, dict[str, Scene], dict[str, Any]]) -> None:
    folder, scenes, summary = drawn
    originals = {t.key: t for t in read_triplets(folder / "t")}
    checked = dict.fromkeys(KINDS, 0)
    for row in read_triplets(folder / "out"):
        if not row.origin.startswith("derived:"):
            assert row == originals[row.key], "the source's rows stand there as they were"
            continue
        source = originals[row.provenance["source_key"]]
        kind, scene = row.provenance["derived"], scenes[source.image_name]
        truth = decided(in_mirror(scene) if kind == "mirrored" else scene)
        found = truth.get((row.subject, row.relation, row.object))
        assert found in (row.label, None), f"{row.caption} derived as {row.label} by {kind} from {source.caption}"
        checked[kind] += found is not None
    rows = {kind: figures["rows"] for kind, figures in summary["derived"].items()}
    assert checked["mirrored"] == rows["mirrored"] > 400, "the mirrored scene decides all that the scene did"
    assert all(checked[kind] > 0.4 * rows[kind] > 10 for kind in KINDS), "not vacuous"


def test_pictures_and_boxes_are_mirrored(drawn: tuple[Path, dict[str, Scene], dict[str, Any]]) -> None:
    folder, scenes, _ = drawn
    originals = {t.key: t for t in read_triplets(folder / "t")}
    seen: set[str] = set()
    for row in read_triplets(folder / "out"):
        if row.origin != "derived:mirrored" or row.image_id in seen or len(seen) > 12:
            continue
        seen.add(row.image_id)
        source = originals[row.provenance["source_key"]]
        assert row.image and source.image and row.image_id == image_content_id(row.image) != source.image_id
        ours, theirs = (np.asarray(Image.open(io.BytesIO(data)), float) for data in (row.image, source.image))
        assert abs(ours - theirs[:, ::-1]).mean() < 3
        assert (row.width, row.height) == (source.width, source.height)
        scene = in_mirror(scenes[source.image_name])
        masks = {o.name: mask_box(s.visible) for o, s in zip(scene.objects, shapes(scene), strict=True)}
        for name, box in ((row.subject, row.subject_box), (row.object, row.object_box)):
            pixels = masks[name]
            assert box is not None and pixels is not None
            assert np.allclose(np.array(box) * scene.size, pixels, atol=2.5), "as the mirrored scene is drawn"
    assert len(seen) > 10


def test_no_row_twice_and_a_pictures_rows_together(drawn: tuple[Path, dict[str, Scene], dict[str, Any]]) -> None:
    folder, _, summary = drawn
    rows = [*read_triplets(folder / "out", images=False)]
    assert len({t.key for t in rows}) == len(rows) == summary["triplets"]
    assert summary["true"] == pytest.approx(sum(t.label for t in rows) / len(rows), abs=1e-4)
    changes = sum(a.image_id != b.image_id for a, b in pairwise(rows))
    assert changes + 1 == summary["pictures"] == len({t.image_id for t in rows})
    assert summary["original"]["rows"] + sum(f["rows"] for f in summary["derived"].values()) == len(rows)


def test_by_hand(tmp_path: Path) -> None:
    rows, summary = derived(tmp_path, [said("left of", True)], *KINDS)
    assert {(t.provenance["derived"], t.caption, t.label) for t in rows} == {
        ("inverse", "The dog is right of the cat.", True),
        ("swapped", "The dog is left of the cat.", False),
        ("opposite", "The cat is right of the dog.", False),
        ("mirrored", "The cat is right of the dog.", True),
    }
    boxes = {t.provenance["derived"]: (t.subject_box, t.object_box) for t in rows}
    assert boxes["inverse"] == boxes["swapped"] == ((0.5, 0.5, 0.9, 1.0), (0.1, 0.2, 0.3, 0.4))
    assert boxes["opposite"] == ((0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.9, 1.0))
    assert np.allclose(boxes["mirrored"], ((0.7, 0.2, 0.9, 0.4), (0.1, 0.5, 0.5, 1.0)))
    assert summary["triplets"] == 5 and summary["true"] == 0.6


def test_what_is_open_is_counted_not_said(tmp_path: Path) -> None:
    rows, summary = derived(tmp_path, [said("left of", False), said("across", True)], *KINDS[:3])
    assert [t.caption for t in rows] == ["The dog is right of the cat."] and rows[0].label is False
    assert {k: (f.get("undecided", 0), f.get("no rule", 0)) for k, f in summary["derived"].items()} == {
        "inverse": (0, 1),
        "swapped": (1, 1),
        "opposite": (1, 1),
    }


def test_antonyms_turn_true_to_false_alone(tmp_path: Path) -> None:
    rows, summary = derived(tmp_path, [said("inside", False), said("on", True)], "opposite")
    assert {(t.relation, t.label) for t in rows} == {("off", False)}
    assert summary["derived"]["opposite"]["undecided"] == 1


def test_contradictions_are_not_written(tmp_path: Path) -> None:
    """Labels of people contradict each other now and then."""
    against_source = [said("above", True), said("below", True)]
    rows, summary = derived(tmp_path / "a", against_source, "opposite")
    assert not rows and summary["derived"]["opposite"]["contradicted"] == 2
    among = [said("above", True), said("above", True, "dog", "cat")]
    rows, summary = derived(tmp_path / "b", among, "inverse", "opposite")
    assert not rows and summary["derived"]["inverse"]["contradicted"] == 2
    assert summary["derived"]["opposite"]["contradicted"] == 2


def test_bad_rows_are_noted_and_kept(tmp_path: Path) -> None:
    odd = [
        said("on the verge of", True, image=jpeg("blue")),
        said("near", True, "cat", "cat", image=jpeg("blue")),
        said("near", True, image=None),
        said("near", True, image=b"no picture"),
        said("near", True, image=b"no picture"),
    ]
    rows, summary = derived(tmp_path, odd, "mirrored")
    assert not rows and summary["triplets"] == 4 and summary["repeated"] == 1
    assert summary["set_aside"]["reasons"] == {
        "its relation is none of VSR's": 1,
        "subject and object have one name": 1,
        "no picture to mirror": 1,
        "its picture cannot be opened": 1,
    }
    noted = [json.loads(line) for line in (tmp_path / "out" / "set_aside.jsonl").read_text().splitlines()]
    assert [line["row"] for line in noted] == [1, 2, 3, 4]


def test_relations_left_out_do_not_come_back(tmp_path: Path) -> None:
    rows, summary = derived(tmp_path, [said("right of", True), said("near", True)], *KINDS, without=["left of"])
    assert {t.relation for t in rows} == {"right of", "near", "far from"}
    assert [f.get("left out", 0) for f in summary["derived"].values()] == [1, 0, 1, 1]


def test_protocols_see_what_a_mirrored_picture_was_made_from(tmp_path: Path) -> None:
    photo = said("near", True)
    repainted = said("near", True, image=jpeg("green"), provenance={SOURCE_IMAGE: "sha256:photo", "scene": {"a": 1}})
    rows, _ = derived(tmp_path, [photo, repainted], "mirrored", "opposite")
    held = HeldOut([photo])
    mirrored = [t for t in rows if t.origin == "derived:mirrored"]
    assert held.found(mirrored[0])[0] == "test image"
    assert mirrored[1].provenance[SOURCE_IMAGE] == "sha256:photo", "the first of a chain"
    assert "scene" not in mirrored[1].provenance, "another scene by now"
    same = [t for t in rows if t.origin == "derived:opposite"][1]
    assert same.provenance["scene"] == {"a": 1} and same.provenance[SOURCE_IMAGE] == "sha256:photo"


@given(st.sampled_from(sorted(RELATIONS)))
def test_what_is_reckoned_is_what_the_rules_say(relation: str) -> None:
    """Each rule alone gives one statement for each label that it decides."""
    for kind, rule in {"inverse": inverse, "swapped": swapped, "opposite": opposite}.items():
        found = [rule(Statement("a", relation, "b"), label) for label in (True, False)]
        known = sum(d is not None and d.label is not None for d in found)
        assert expected(relation, [kind]) == (known / 2, 0)
    assert expected(relation, ["mirrored"]) == (0, 1)
    same, mirrored = expected(relation, KINDS)
    assert same <= 3 and mirrored == 1


def test_the_same_input_gives_the_same_files_and_a_bad_call_is_refused(tmp_path: Path) -> None:
    write_triplets(tmp_path / "source", [said("left of", True)])
    for name in ("one", "two"):
        derive(tmp_path / "source", tmp_path / name, KINDS)
    one, two = ((tmp_path / name / "part-00000.parquet").read_bytes() for name in ("one", "two"))
    assert one == two
    with pytest.raises(VsreError, match="mirorred"):
        derive(tmp_path / "source", tmp_path / "x", ["mirorred"])
    with pytest.raises(VsreError, match="no kind"):
        derive(tmp_path / "source", tmp_path / "x", [])
    for source in (tmp_path / "source", tmp_path / "source" / "part-00000.parquet"):
        with pytest.raises(VsreError, match="this is where the source is"):
            derive(source, tmp_path / "source", KINDS)
    assert len([*read_triplets(tmp_path / "source")]) == 1


def test_the_verb(tmp_path: Path) -> None:
    write_triplets(tmp_path / "t", [said("left of", True)])
    call = ["derive", str(tmp_path / "t"), str(tmp_path / "out"), "--by", "inverse, opposite"]
    result = CliRunner().invoke(app, [*call, "--json", str(tmp_path / "d.json")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "d.json").read_text()) == json.loads((tmp_path / "out" / "derive.json").read_text())
    assert [*json.loads((tmp_path / "d.json").read_text())["derived"]] == ["inverse", "opposite"]
    assert "inverse" in result.output and "66.7%" in result.output
