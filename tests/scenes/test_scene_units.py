"""Drawing for a statement, units, splits, and the files of a world."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from PIL import Image

from vsre.errors import VsreError
from vsre.relations.geometry import Verdict, judge_pair
from vsre.relations.ontology import META_CATEGORIES, RELATIONS
from vsre.sources.scenes import (
    CLASSES,
    DRAWABLE,
    World,
    concept_splits,
    decided,
    draw_scene_for,
    draw_unit,
    split_of_pair,
    write_world,
)
from vsre.sources.scenes.units import PROTOCOLS, SPLITS


@pytest.mark.parametrize("relation", DRAWABLE)
def test_true_and_false_scenes_of_every_relation(relation: str) -> None:
    rng = Random(relation)
    missing = {True, False}
    for _ in range(600):
        subject, object = rng.sample(CLASSES, 2)
        label = rng.choice(sorted(missing))
        scene = draw_scene_for(subject, relation, object, label, rng, 1)
        if scene is not None:
            assert scene.names[:2] == (subject, object) and len(scene.objects) == 3
            expected = Verdict.PASS if label else Verdict.FAIL
            assert judge_pair(relation, scene.pair(0, 1)).verdict is expected
            assert decided(scene)[(subject, relation, object)] is label
            missing.discard(label)
        if not missing:
            return
    pytest.fail(f"no scene of {relation} being {missing}")


def test_relations_cover_all_meta_categories() -> None:
    assert len(DRAWABLE) >= 30
    assert {RELATIONS[r].meta_category for r in DRAWABLE} == set(META_CATEGORIES)


def test_what_cannot_be_drawn() -> None:
    assert draw_scene_for("cat", "inside", "apple", True, Random(0)) is None
    with pytest.raises(VsreError, match="cannot be drawn"):
        draw_scene_for("cat", "through", "dog", True, Random(0))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("split", SPLITS)
def test_units_are_opposite_and_stay_on_their_side(protocol: str, split: str) -> None:
    world = World(protocol, split)
    for index in range(5):
        unit = draw_unit(world, 4, index)
        assert unit is not None
        first, second = unit.scenes
        assert sorted(first.names) == sorted(second.names)
        assert set(first.names) <= set(world.classes())
        here, there = decided(first), decided(second)
        for statement, truth in unit.statements:
            assert here[statement] is truth and there[statement] is not truth
            assert world.speaks_of(statement[0], statement[2])
        assert draw_unit(world, 4, index).scenes == unit.scenes  # type: ignore[union-attr]


def test_splits_do_not_depend_on_the_order_of_a_pair() -> None:
    assert split_of_pair("cat", "dog") == split_of_pair("dog", "cat")
    counts = Counter(split_of_pair(a, b) for a in CLASSES for b in CLASSES if a < b)
    assert counts["train"] > counts["test"] > counts["dev"] > 100
    assert set(concept_splits()) == set(CLASSES)
    with pytest.raises(VsreError, match="its splits are"):
        World("caption-disjoint", "validation")


def _rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = {name: folder / f"{name}.jsonl" for name in SPLITS}
    return {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("world")
    return out, write_world(out, train_units=24, dev_units=4, test_units=10, seed=2, size=96)


def test_files_are_vsrs_and_cocos(world: tuple[Path, dict[str, Any]]) -> None:
    out, summary = world
    rows = _rows(out / "annotations" / "caption-disjoint")
    coco = json.loads((out / "instances.json").read_text())
    scenes = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    assert summary["images"] == len(coco["images"]) == len(scenes) == 76
    assert len(coco["categories"]) == 80
    sides = {i["file_name"]: i for i in coco["images"]}
    for image in coco["images"]:
        with Image.open(out / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (96, 96)
    names = {c["id"]: c["name"] for c in coco["categories"]}
    classes = defaultdict(Counter)  # type: ignore[var-annotated]
    for annotation in coco["annotations"]:
        classes[annotation["image_id"]][names[annotation["category_id"]]] += 1
        x, y, w, h = annotation["bbox"]
        assert w > 0 and h > 0 and x >= 0 and y >= 0 and x + w <= 96 and y + h <= 96
        assert sum(annotation["segmentation"]["counts"]) == 96 * 96
        assert sum(annotation["segmentation"]["counts"][1::2]) == annotation["area"]
    for part in rows.values():
        for row in part:
            here = classes[sides[row["image"]]["id"]]
            assert here[row["subj"]] == here[row["obj"]] == 1
            votes = (json.loads(row["vote_true_validator_id"]), json.loads(row["vote_false_validator_id"]))
            assert bool(votes[0]) == bool(row["label"]) != bool(votes[1])
            assert row["reference_frame"] is None


def test_every_caption_is_true_once_and_false_once_on_one_side(world: tuple[Path, dict[str, Any]]) -> None:
    out, summary = world
    rows = _rows(out / "annotations" / "caption-disjoint")
    sides: dict[str, set[str]] = defaultdict(set)
    for split, part in rows.items():
        labels: dict[str, list[int]] = defaultdict(list)
        for row in part:
            labels[row["caption"]].append(row["label"])
            sides[row["caption"]].add(split)
            sides[row["image"]].add(split)
        assert all(2 * sum(values) == len(values) for values in labels.values())
        assert max(Counter(row["image"] for row in part).values()) <= 12
    assert all(len(found) == 1 for found in sides.values())
    for floor in summary["blind_floor"].values():
        assert len(floor) == 5 and all(value == 0.5 for value in floor.values())


def test_the_vsr_reader_reads_it(world: tuple[Path, dict[str, Any]]) -> None:
    from vsre.sources.vsr import read_vsr

    out, summary = world
    file = out / "annotations" / "caption-disjoint" / "test.jsonl"
    triplets = list(read_vsr([file], [out / "images"], [out / "instances.json"], split="test", origin="scenes"))
    assert len(triplets) == summary["captions"]["test"]
    assert all(t.image and t.width == 96 and t.subject_box and t.object_box for t in triplets)


def test_workers_change_nothing(tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    for workers in (1, 2):
        write_world(
            tmp_path / str(workers),
            train_units=3,
            dev_units=1,
            test_units=2,
            seed=2,
            size=96,
            workers=workers,
            progress=lambda done, total: ticks.append((done, total)),
        )
    captions = "annotations/caption-disjoint/train.jsonl"
    for file in ("scenes.jsonl", "instances.json", "summary.json", captions):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    assert ticks == 2 * [(done, 6) for done in range(1, 7)]
    with pytest.raises(VsreError, match="there is a world here already"):
        write_world(tmp_path / "1", train_units=1, dev_units=1, test_units=1, seed=2)


@pytest.mark.parametrize("size", [0, 31, 2049])
def test_a_size_that_is_not_drawn(tmp_path: Path, size: int) -> None:
    with pytest.raises(VsreError, match=f"size {size}: .* 32 to 2048"):
        write_world(tmp_path / "w", train_units=1, dev_units=0, test_units=0, seed=0, size=size)
    assert not (tmp_path / "w").exists()


def test_a_killed_drawing_leaves_no_workers(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from vsre.sources.scenes import write_world
write_world(Path({str(tmp_path)!r}), train_units=2000, dev_units=0, test_units=0, seed=2, size=32, workers=2)
"""
    drawing = psutil.Popen([sys.executable, "-c", program])
    workers: list[psutil.Process] = []
    try:
        until = time.monotonic() + 120
        while not [*tmp_path.glob("images/*")] and time.monotonic() < until:
            time.sleep(0.1)
        workers = drawing.children(recursive=True)
        assert len(workers) >= 2
        drawing.kill()
        drawing.wait()
        assert not psutil.wait_procs(workers, timeout=30)[1]
    finally:
        for process in [drawing, *workers]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_concepts_do_not_cross(tmp_path: Path) -> None:
    write_world(tmp_path, train_units=6, dev_units=3, test_units=6, seed=1, size=96, split="concept-disjoint")
    seen: dict[str, set[str]] = defaultdict(set)
    for line in (tmp_path / "scenes.jsonl").read_text().splitlines():
        scene = json.loads(line)
        seen[scene["split"]] |= {placed["name"] for placed in scene["objects"]}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["dev"] and not seen["dev"] & seen["test"]
