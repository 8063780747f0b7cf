"""Verdicts of a folder: two processes at once, damaged files, and what a verifier without detectors tells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_run import Dies, data  # noqa: F401

from vsre.errors import VsreError
from vsre.repaint.verify import SceneTruth, Verification
from vsre.triplets import Triplet, write_triplets
from vsre.verify.figures import classes
from vsre.verify.run import verify_set
from vsre.verify.scene_check import scene_statements
from vsre.verify.verdicts import join_parts, parts

# ruff: noqa: F811


def test_two_runs_into_one_folder_are_refused(data: Path, tmp_path: Path) -> None:
    class Meanwhile(Dies):
        def verify_many(self, triplets: Sequence[Triplet]) -> list[Verification]:
            with pytest.raises(VsreError, match=r"another process verifies into this folder. Wait for it"):
                verify_set(data, tmp_path / "out", Dies(99))
            return super().verify_many(triplets)

    assert verify_set(data, tmp_path / "out", Meanwhile(99))["figures"]["triplets"] == 12
    assert verify_set(data, tmp_path / "out", Dies(0))["finished"], "the lock ends with the run"


def test_two_joins_at_once_do_not_share_a_draft(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk without locks."""
    out, write = tmp_path / "out", pq.ParquetWriter.write_batch
    joined: list[int] = []

    def meanwhile(self: Any, *args: Any, **more: Any) -> None:
        if not joined:
            joined.append(1)
            join_parts(out)
        write(self, *args, **more)

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", meanwhile)
    verify_set(data, out, Dies(99))
    assert joined and len(pq.read_table(out / "verdicts.parquet")) == 12
    assert not list(out.glob(".*.tmp"))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b""])
def test_a_damaged_file_of_verdicts_is_named_and_its_rows_are_looked_at_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    monkeypatch.setattr("vsre.verify.run._PICTURES", 1)
    with pytest.raises(KeyboardInterrupt):
        verify_set(data, tmp_path / "out", Dies(3), flush_seconds=0)
    file = parts(tmp_path / "out") / "part-00001.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(VsreError, match=r"part-00001.parquet: damaged.*Delete it: its rows are looked at again"):
        verify_set(data, tmp_path / "out", Dies(99))
    file.unlink()
    again = Dies(99)
    assert verify_set(data, tmp_path / "out", again)["figures"]["triplets"] == 12
    assert sorted(again.looked_at) == sorted([*["p1.png"] * 2, *["p3.png"] * 2, *["p4.png"] * 2, *["p5.png"] * 2])


def scene_rows() -> list[Triplet]:
    """True, false and of a missing subject, about one drawn picture."""
    rows = list(scene_statements(2, 3, size=96))
    one = [row for row in rows if row.image_id == rows[0].image_id]
    kinds = {True: "positive", False: "relation-false"}
    gone = {one[-1].caption}
    return [
        row.replace(
            provenance={
                **row.provenance,
                "kind": "object-absent" if row.caption in gone else kinds[row.label],
                "truth": "verified",
            }
        )
        for row in one
    ]


def test_scene_truth_tells_what_is_missing_and_what_it_saw(tmp_path: Path) -> None:
    rows = scene_rows()
    write_triplets(tmp_path / "data", rows)
    found = verify_set(tmp_path / "data", tmp_path / "out", SceneTruth())["figures"]
    assert found["verdicts"]["missing"] == 1 and "" not in found["undecided_because"]
    assert found["asked_for"]["by_kind"]["object-absent"]["borne_out"]["value"] == 1
    assert all(of["found"]["value"] == 1 and "not looked at" not in of for of in found["classes"].values())
    table = pq.read_table(tmp_path / "out" / "verdicts.parquet").to_pylist()
    [gone] = [row for row in table if row["missing"]]
    assert (gone["subject_state"], gone["object_state"]) == ("absent", "present")


def test_things_nobody_looked_for_are_in_no_denominator() -> None:
    states = {("a", "cat"): "present", ("b", "cat"): "absent", ("c", "cat"): None, ("c", "dog"): None}
    found = classes(states)
    assert found["cat"]["pictures"] == 3 and found["cat"]["not looked at"] == 1
    assert (found["cat"]["found"]["value"], found["cat"]["found"]["n"]) == (0.5, 2)
    assert found["dog"]["found"] is None
