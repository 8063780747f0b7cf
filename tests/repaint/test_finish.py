"""Gathering shards: what is damaged is found and painted again, whatever it is."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from quick_painter import SIDE, QuickPainter, picture, write_source
from test_work import same, shard_painter, source, whole  # noqa: F401

from vsre.errors import VsreError
from vsre.repaint import Painted, PaintJob, Refused, repaint
from vsre.repaint.finish import SAME_PICTURE, DamagedShards, finish
from vsre.repaint.ledger import LEDGER, PICTURES, ledger_rows
from vsre.repaint.plan_files import read_plan
from vsre.repaint.shards import is_done, shard_file
from vsre.triplets import ParquetShards, read_triplets

# ruff: noqa: F811


def copy(whole: Path, out: Path) -> Path:
    """An undisturbed repaint to be damaged, not yet gathered."""
    for folder in ("plan", LEDGER, PICTURES):
        shutil.copytree(whole / folder, out / folder)
    return out


def flipped(file: Path, seed: int) -> None:
    data = bytearray(file.read_bytes())
    data[Random(seed).randrange(len(data))] ^= 1 << Random(seed).randrange(8)
    file.write_bytes(data)


def cut(file: Path, seed: int) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: Random(seed).randrange(len(data))])


def swapped(file: Path, seed: int) -> None:
    """Another shard's file under this one's name."""
    shutil.copy(file.with_name("shard-00003.parquet"), file)


DAMAGES: dict[str, Callable[[Path, int], Any]] = {
    "a bit flipped": flipped,
    "cut short": cut,
    "emptied": lambda file, seed: file.write_bytes(b""),
    "another's": swapped,
}


@pytest.mark.parametrize("folder", [LEDGER, PICTURES])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_found_and_painted_again(
    source: Path, whole: Path, tmp_path: Path, damage: str, folder: str
) -> None:
    for seed in range(3 if damage in ("a bit flipped", "cut short") else 1):
        out = copy(whole, tmp_path / str(seed))
        DAMAGES[damage](shard_file(out, folder, 1), seed)
        plan = read_plan(out)
        try:
            finish(plan)
        except DamagedShards as error:
            assert "damaged shards, moved to" in str(error)
            assert not is_done(out, 1) and is_done(out, 2) and (out / "damaged" / LEDGER).is_dir()
            assert not list(out.glob("part-*")), "nothing is gathered of a set that is not whole"
            repaint(source, out, painter=QuickPainter, shard_jobs=48)
        else:
            # A bit may be one that no reader looks at, as in a file's padding; then all it says is as it was.
            assert damage == "a bit flipped"
        assert same(out, whole)


def test_every_damaged_shard_is_named_at_once(source: Path, whole: Path, tmp_path: Path) -> None:
    out = copy(whole, tmp_path / "out")
    cut(shard_file(out, PICTURES, 0), 0)
    shard_file(out, PICTURES, 2).unlink()
    with pytest.raises(DamagedShards, match=r"0 \(.*2 \("):
        finish(read_plan(out))
    assert [is_done(out, n) for n in range(4)] == [False, True, False, True]


def test_a_shard_of_another_plan_is_no_shard_of_this_one(source: Path, whole: Path, tmp_path: Path) -> None:
    repaint(source, tmp_path / "other", painter=QuickPainter, shard_jobs=48, seed=9)
    out = copy(whole, tmp_path / "out")
    for folder in (LEDGER, PICTURES):
        shutil.copy(shard_file(tmp_path / "other", folder, 1), shard_file(out, folder, 1))
    with pytest.raises(DamagedShards, match="painted for another plan"):
        finish(read_plan(out))


def test_pictures_that_were_deleted_are_not_painted_again_unasked(source: Path, whole: Path, tmp_path: Path) -> None:
    out = copy(whole, tmp_path / "out")
    shutil.rmtree(out / PICTURES)
    with pytest.raises(VsreError, match="the pictures are gone"):
        finish(read_plan(out))
    assert is_done(out, 0)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_finish_that_was_stopped_is_done_again(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before, and while, its files are moved to their places: first none of the old ones is touched."""
    out = copy(whole, tmp_path / "out")
    finish(read_plan(out), captions_per_image=0)
    calls = 0
    moved = Path.replace

    def stopped(self: Path, target: Any) -> Any:
        nonlocal calls
        calls += self.parent.name == "finishing"
        if calls > at:
            raise KeyboardInterrupt
        return moved(self, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        finish(read_plan(out))
    monkeypatch.undo()
    assert not (out / "repaint.json").exists(), "an unfinished set does not pass for a finished one"
    finish(read_plan(out))
    assert same(out, whole)


def test_old_triplets_stay_until_the_new_ones_are_whole(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy(whole, tmp_path / "out")
    finish(read_plan(out))
    monkeypatch.setattr(ParquetShards, "write", lambda self, row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish(read_plan(out), captions_per_image=0)
    monkeypatch.undo()
    shutil.rmtree(out / "finishing")
    assert same(out, whole)


def test_a_full_disk_costs_no_shard(source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written says nothing of what was read."""

    def full(self: ParquetShards, row: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = copy(whole, tmp_path / "out")
    monkeypatch.setattr(ParquetShards, "write", full)
    with pytest.raises(VsreError, match="no space left on the disk") as told:
        finish(read_plan(out))
    assert not isinstance(told.value, DamagedShards) and all(is_done(out, n) for n in range(4))
    monkeypatch.undo()
    finish(read_plan(out))
    assert same(out, whole)


class Repeats(QuickPainter):
    """Half of its pictures are of five kinds, each a little brighter or not."""

    def _paint(self, job: PaintJob, size: int, place: int) -> Painted | Refused:
        painted = super()._paint(job, size, place)
        number = int(job.id, 16)
        if isinstance(painted, Painted) and number % 2:
            return Painted(job, picture(str(number % 5), number % 3), SIDE, SIDE, painted.statements, truth="intended")
        return painted


def test_repeated_pictures_are_dropped_and_near_ones_told(source: Path, tmp_path: Path) -> None:
    summary = repaint(source, tmp_path, painter=Repeats, shard_jobs=48)
    triplets = list(read_triplets(tmp_path))
    images = [t.image_id for t in triplets]
    assert len(set(images)) == len(images) == summary["images"]
    # Five kinds at three grey levels at most.
    assert summary["refused"][SAME_PICTURE] > 30
    lines = [json.loads(line) for line in (tmp_path / "near_duplicates.jsonl").read_text().splitlines()]
    assert sum(summary["near_duplicates"].values()) == len(lines) >= 5
    place = {row["job"]: row["place"] for row in ledger_rows(tmp_path, ["job", "place"])}
    kept = {t.provenance["job"] for t in triplets}
    assert all(place[line["of"]] < place[line["job"]] and {line["of"], line["job"]} <= kept for line in lines)
    same_source = sum(line["same_source"] for line in lines)
    assert summary["near_duplicates"]["of_the_same_source"] == same_source


class Unwilling(QuickPainter):
    def _paint(self, job: PaintJob, size: int, place: int) -> Painted | Refused:
        return Refused(job, "no mood")


def test_nothing_painted_is_told(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"not one picture is left: no mood \(9\)"):
        repaint(write_source(tmp_path / "train", 3), tmp_path / "out", painter=Unwilling)
    assert len((tmp_path / "out" / "set_aside.jsonl").read_text().splitlines()) == 9


def test_what_is_not_painted_yet_is_told(source: Path, tmp_path: Path) -> None:
    ours = shard_painter(source, tmp_path)
    with pytest.raises(VsreError, match="4 of 4 shards are not painted yet"):
        finish(ours.plan)
