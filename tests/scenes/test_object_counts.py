"""How many things a scene has: as asked, split by split; today's worlds stay as they were."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.sources.scenes import World, check_objects, draw_unit, write_world
from vsre.sources.scenes.units import MOST_OBJECTS

FILES = (
    "scenes.jsonl",
    "annotations/caption-disjoint/train.jsonl",
    "annotations/caption-disjoint/test.jsonl",
    "instances.json",
)


def scenes(world: Path, split: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (world / "scenes.jsonl").read_text().splitlines())
    return [row for row in rows if row["split"] == split]


def test_a_world_without_the_option_is_the_one_of_earlier_versions(tmp_path: Path) -> None:
    write_world(tmp_path, train_units=3, dev_units=1, test_units=2, seed=2, size=96)
    found = hashlib.sha256(b"".join((tmp_path / file).read_bytes() for file in FILES)).hexdigest()
    assert found == "00613534c15518bb40c3397c8e25b0beb858de3336610d0f959c78bcfa3c16ce"


def test_each_split_has_as_many_things_as_asked(tmp_path: Path) -> None:
    asked = {"train": (2, 2), "test": (2, 5)}
    summary = write_world(tmp_path, train_units=4, dev_units=2, test_units=12, seed=1, size=96, objects=asked)
    assert summary["objects"]["train"] == {"2": 8}
    counts = [len(row["objects"]) for row in scenes(tmp_path, "test")]
    assert set(counts) == {2, 3, 4, 5}
    assert summary["objects"]["test"] == {str(n): counts.count(n) for n in sorted(set(counts))}
    assert counts[::2] == counts[1::2], "both scenes of a unit have as many, so that the number gives no answer away"
    assert sum(summary["objects"]["dev"].values()) == 4 and summary["units_not_drawn"] == 0
    write_world(tmp_path / "plain", train_units=0, dev_units=2, test_units=0, seed=1, size=96)
    assert scenes(tmp_path, "dev") == scenes(tmp_path / "plain", "dev"), "what is not asked for stays"


def test_crowded_scenes_are_drawn_again_and_keep_their_relation() -> None:
    for index in (1, 36, 48):  # across from, opposite to: few attempts leave room for three more things
        sparse, crowded = (
            draw_unit(World("caption-disjoint", "test"), 0, index, size=96, objects=(n, n)) for n in (2, 5)
        )
        assert sparse is not None and crowded is not None
        assert [len(scene.objects) for scene in crowded.scenes] == [5, 5]
        assert crowded.target[1] == sparse.target[1]


def test_a_unit_that_finds_no_room_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.sources.scenes.write.draw_unit", lambda *_, **__: None)
    summary = write_world(tmp_path, train_units=2, dev_units=0, test_units=1, seed=1, objects={"test": (6, 6)})
    assert summary["units_not_drawn"] == 3 and summary["objects"]["test"] == {}


@pytest.mark.parametrize("objects", [(1, 3), (4, 3), (2, MOST_OBJECTS + 1)])
def test_what_no_scene_can_have_is_refused(tmp_path: Path, objects: tuple[int, int]) -> None:
    with pytest.raises(VsreError, match=f"from 2 to {MOST_OBJECTS} things"):
        check_objects(objects)
    with pytest.raises(VsreError, match="objects"):
        write_world(tmp_path / "w", train_units=1, dev_units=0, test_units=0, seed=0, objects={"test": objects})
    assert not (tmp_path / "w").exists()


def test_a_test_split_may_be_what_training_did_not_reach(tmp_path: Path) -> None:
    usual = {"dev_units": 0, "seed": 4, "size": 96, "split": "concept-disjoint"}
    write_world(tmp_path / "long", train_units=4, test_units=0, **usual)
    write_world(tmp_path / "further", train_units=0, test_units=2, test_as=("train", 2), **usual)
    expected = [row | {"split": "test"} for row in scenes(tmp_path / "long", "train")[4:]]
    assert scenes(tmp_path / "further", "test") == expected, "units 2 and 3 of the training split, by their own names"


def test_the_command_takes_ranges(tmp_path: Path) -> None:
    args = ["--train", "2", "--dev", "0", "--test", "1", "--size", "96", "--workers", "1"]
    out = str(tmp_path / "w")
    done = CliRunner().invoke(app, ["scenes", out, *args, "--train-objects", "2", "--test-objects", "4-5"])
    assert done.exit_code == 0, done.output
    made = json.loads((tmp_path / "w" / "summary.json").read_text())["objects"]
    assert made["train"] == {"2": 4} and set(made["test"]) <= {"4", "5"}
    for wrong in ("two", "2-", "-3", "2-5-6"):
        failed = CliRunner().invoke(app, ["scenes", str(tmp_path / "x"), f"--test-objects={wrong}"])
        assert isinstance(failed.exception, VsreError) and "2-5" in str(failed.exception), wrong
