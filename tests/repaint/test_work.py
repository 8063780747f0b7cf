"""Shards: painted by anybody, in any order, more than once or after a kill, they are the same."""

import errno
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image
from quick_painter import DiesOnce, QuickPainter, said, write_source

from vsre.errors import VsreError
from vsre.repaint import Painted, PaintJob, Refused, Vocabulary, repaint, shards
from vsre.repaint.finish import finish
from vsre.repaint.judge import ONE_COLOUR, Judge
from vsre.repaint.ledger import LEDGER, PICTURES, ledger_rows, read_ledger
from vsre.repaint.planning import make_plan
from vsre.repaint.run import shard_painter_of
from vsre.repaint.safety import UNSAFE, SafetyChecker, SafetySpec
from vsre.repaint.specs import Scenes
from vsre.repaint.work import ShardDone, ShardPainter, work
from vsre.triplets import read_triplets, write_triplets

COUNT = 64
"""Triplets: 192 jobs in 4 shards of one batch each."""


def shard_painter(source: Path, out: Path, painter: Callable[[Vocabulary], Any] = QuickPainter) -> ShardPainter:
    plan, ours = make_plan(source, out, painter, shard_jobs=48)
    return ShardPainter(plan, ours, Judge(), source)


def hashes(out: Path) -> dict[str, str | None]:
    rows = read_ledger(out, ["job", "picture"]).to_pylist()
    assert len({row["job"] for row in rows}) == len(rows)
    return {row["job"]: row["picture"] for row in rows}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("work") / "train", COUNT)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed repaint."""
    out = tmp_path_factory.mktemp("whole") / "out"
    repaint(source, out, painter=QuickPainter, shard_jobs=48)
    return out


def same(out: Path, whole: Path) -> bool:
    """The same pictures, and the same files of triplets, byte for byte; nothing left lying about."""
    assert hashes(out) == hashes(whole)
    left = [f.name for f in out.rglob("*") if f.name.endswith(".tmp") or f.name in ("finishing", "plan.tmp")]
    assert not left, left
    names = ["set_aside.jsonl", "near_duplicates.jsonl", "repaint.json", *(f.name for f in whole.glob("part-*"))]
    return all((out / name).read_bytes() == (whole / name).read_bytes() for name in names)


def test_parts_together_are_the_whole(source: Path, whole: Path, tmp_path: Path) -> None:
    ours = shard_painter(source, tmp_path)
    told: list[tuple[int, int]] = []
    first = work(ours, part=(3, 3), progress=lambda done, total: told.append((done, total)))
    assert first["shards"] == 1 and told == [(0, 48), (48, 48), (48, 48)]
    with pytest.raises(VsreError, match="3 of 4 shards are not painted yet"):
        finish(ours.plan)
    assert work(ours, part=(1, 3))["jobs"] == 96 and work(ours, part=(2, 3))["jobs"] == 48
    again = work(ours)
    assert again["shards"] == again["jobs"] == 0
    finish(ours.plan)
    assert same(tmp_path, whole)
    for part in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(VsreError, match="from 1 to n"):
            work(ours, part=part)


def test_several_workers_give_the_same(source: Path, whole: Path, tmp_path: Path) -> None:
    told: list[int] = []
    repaint(source, tmp_path, painter=QuickPainter, shard_jobs=48, workers=2, progress=lambda d, n: told.append(d))
    assert same(tmp_path, whole) and told == [0, 48, 96, 144, 192]


def _jobs(done: ShardDone | None) -> int:
    assert done is not None
    return done.statuses.total()


def test_two_workers_on_one_shard(source: Path, tmp_path: Path) -> None:
    """The second one waits, finds it done, and paints nothing."""
    one, two = (shard_painter(source, tmp_path) for _ in range(2))
    with shards.claimed(tmp_path, 0, wait=False) as ours:
        assert ours and two.paint(0) is None
    assert _jobs(one.paint(0)) == 48
    assert two.paint(0, wait=True) == ShardDone(0)


def test_two_workers_on_one_shard_of_a_disk_without_locks(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both paint it, each into a file of its own, and the last to finish replaces what is the same."""

    def no_locks(*args: Any) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr("fcntl.flock", no_locks)
    one, two = (shard_painter(source, tmp_path) for _ in range(2))
    first = one.judge.judged

    def meanwhile(*args: Any) -> Any:
        one.judge = Judge()
        assert _jobs(two.paint(1)) == 48
        return first(*args)

    one.judge = type("Slow", (Judge,), {"judged": lambda self, *args: meanwhile(*args)})()
    assert _jobs(one.paint(1)) == 48
    work(one)
    finish(one.plan)
    assert same(tmp_path, whole)


def test_what_a_killed_process_left_is_removed(source: Path, whole: Path, tmp_path: Path) -> None:
    ours = shard_painter(source, tmp_path)
    for folder in (LEDGER, PICTURES):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".shard-00002.parquet.99999-aaaa.tmp").write_bytes(b"PAR1 half")
    # Killed between the two renames: pictures without their ledger.
    shards.shard_file(tmp_path, PICTURES, 2).write_bytes(b"other")
    work(ours)
    finish(ours.plan)
    assert same(tmp_path, whole)


def test_a_worker_that_dies_is_replaced(source: Path, whole: Path, tmp_path: Path) -> None:
    mark = tmp_path / "died"
    out = tmp_path / "out"
    repaint(source, out, painter=partial(DiesOnce, mark=mark), shard_jobs=48, workers=2)
    assert mark.exists() and same(out, whole)


def test_workers_that_keep_dying_are_told(source: Path, tmp_path: Path) -> None:
    painter = partial(DiesOnce, mark=tmp_path / "died", always=True)
    with pytest.raises(VsreError, match="died 3 times"):
        repaint(source, tmp_path / "out", painter=painter, shard_jobs=48, workers=2)


class FullDisk:
    """A file on a disk that has room for so many bytes more."""

    def __init__(self, file: BinaryIO, room: list[int]) -> None:
        self.file, self.room = file, room

    def write(self, data: Any) -> int:
        self.room[0] -= len(data)
        if self.room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 2_000, 50_000])
def test_a_full_disk_is_told_and_costs_no_shard_that_is_done(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    ours = shard_painter(source, tmp_path)
    ours.paint(0)
    opened, left = Path.open, [room]

    def full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = opened(self, mode, *rest, **more)
        return FullDisk(file, left) if self.name.startswith(".shard") and mode == "wb" else file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(VsreError, match="no space left on the disk"):
        work(ours)
    monkeypatch.undo()
    assert shards.is_done(tmp_path, 0) and not shards.is_done(tmp_path, 1)
    assert [f.name for f in (tmp_path / PICTURES).iterdir()] == ["shard-00000.parquet"]
    work(ours)
    finish(ours.plan)
    assert same(tmp_path, whole)


class OtherNumbers(QuickPainter):
    parameters = {"side": 17}  # type: ignore[assignment]


def test_another_painter_than_planned_is_refused(source: Path, tmp_path: Path) -> None:
    plan = shard_painter(source, tmp_path).plan
    with pytest.raises(VsreError, match="other weights or numbers"):
        ShardPainter(plan, OtherNumbers(plan.vocabulary()), Judge(), source)


def test_what_was_made_in_python_cannot_be_made_from_the_plan(source: Path, tmp_path: Path) -> None:
    shard_painter(source, tmp_path)
    with pytest.raises(VsreError, match="made in Python"):
        shard_painter_of(tmp_path)


def test_a_plan_is_painted_by_another_program(tmp_path: Path, small_world: Path) -> None:
    """As `vsre repaint work` does: painter and words come from the plan alone, and the source may have moved."""
    train, scenes = small_world / "triplets" / "train", small_world / "scenes.jsonl"
    make_plan(train, tmp_path / "out", Scenes(scenes=scenes), limit=4)
    moved = tmp_path / "moved"
    write_triplets(moved, read_triplets(train))
    ours = shard_painter_of(tmp_path / "out", triplets=moved)
    work(ours)
    finish(ours.plan)
    repaint(train, tmp_path / "direct", scenes=scenes, limit=4)
    assert list(read_triplets(tmp_path / "out")) == list(read_triplets(tmp_path / "direct"))


def test_a_finished_repaint_is_not_made_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = repaint(source, tmp_path, painter=QuickPainter, shard_jobs=48)
    monkeypatch.setattr(ShardPainter, "paint", lambda *a, **k: pytest.fail("painted again"))
    assert repaint(source, tmp_path, painter=QuickPainter, shard_jobs=48) == first
    fewer = repaint(source, tmp_path, painter=QuickPainter, shard_jobs=48, captions_per_image=0)
    assert fewer["captions_per_image"] == 0 and fewer["images"] == first["images"]


class Dull(QuickPainter):
    """Paints one colour."""

    def _paint(self, job: PaintJob, size: int, place: int) -> Painted | Refused:
        painted = super()._paint(job, size, place)
        if isinstance(painted, Painted) and int(job.id, 16) % 2:
            out = io.BytesIO()
            Image.new("RGB", (4, 4), "black").save(out, "PNG")
            return Painted(job, out.getvalue(), 4, 4, painted.statements, truth="intended")
        return painted


def test_a_picture_of_one_colour_is_rejected(source: Path, tmp_path: Path) -> None:
    summary = repaint(source, tmp_path, painter=Dull, shard_jobs=48)
    rows = [row for row in ledger_rows(tmp_path) if row["pixels"] == "one colour"]
    assert rows and {(row["status"], row["reason"]) for row in rows} == {("rejected", ONE_COLOUR)}
    assert summary["refused"][ONE_COLOUR] == len(rows)


class Prudish(SafetyChecker):
    def scores(self, pictures: Any) -> list[float]:
        return [0.9 if picture[-20] % 2 else 0.1 for picture in pictures]


def test_unsafe_pictures_are_rejected_and_scored(source: Path, tmp_path: Path) -> None:
    plan, painter = make_plan(source, tmp_path, QuickPainter, safety=SafetySpec(model="m", label="x"))
    work(ShardPainter(plan, painter, Judge(safety=Prudish(SafetySpec(model="m", label="x"))), source))
    summary = finish(plan)
    rows = [row for row in ledger_rows(tmp_path) if row["picture"]]
    assert {row["safety"] for row in rows} == {0.9, 0.1} and summary["safety_checker"] == "m@main/x<=0.5"
    assert {row["reason"] for row in rows if row["safety"] > 0.5} == {UNSAFE}
    assert {row["status"] for row in rows if row["safety"] < 0.5} == {"painted"}
    assert summary["refused"][UNSAFE] == sum(row["safety"] > 0.5 for row in rows) > 0


def test_one_job_is_one_shard(tmp_path: Path) -> None:
    write_triplets(tmp_path / "train", [said("1.jpg")])
    summary = repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",), painter=QuickPainter, seed=1)
    assert summary["images"] == 1 and [f.name for f in (tmp_path / "out" / LEDGER).iterdir()] == ["shard-00000.parquet"]
