"""Two machines that gather one set, and who reads it meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_finish import copy
from test_work import same, source, whole  # noqa: F401

from vsre.errors import VsreError
from vsre.repaint.finish import finish, finished
from vsre.repaint.plan_files import read_plan
from vsre.repaint.shards import put_aside
from vsre.triplets import ParquetShards

# ruff: noqa: F811


def inodes(out: Path) -> list[int]:
    return [file.stat().st_ino for file in sorted(out.glob("part-*.parquet"))]


def after(monkeypatch: pytest.MonkeyPatch, first: Any) -> None:
    """The lock comes free only after another process did something."""
    from vsre.files import locked

    @contextmanager
    def slowly(out: Path, name: str, *, wait: bool) -> Iterator[str]:
        with locked(out, name, wait=wait) as lock:
            first()
            yield lock

    monkeypatch.setattr("vsre.repaint.finish.locked", slowly)


def test_who_waited_takes_what_the_other_gathered(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy(whole, tmp_path / "out")
    plan = read_plan(out)
    summary = finish(plan)
    before = inodes(out)
    assert finish(plan) == summary and inodes(out) == before, "nothing is gathered twice"
    # Also where the other one finds damage: then its shards are not there any more.
    after(monkeypatch, lambda: put_aside(out, 1))
    with pytest.raises(VsreError, match="1 of 4 shards are not painted yet"):
        finish(plan, captions_per_image=0)


def test_triplets_that_were_deleted_are_gathered_again(source: Path, whole: Path, tmp_path: Path) -> None:
    out = copy(whole, tmp_path / "out")
    plan = read_plan(out)
    finish(plan)
    (out / "part-00000.parquet").unlink()
    assert finished(plan, 8) is None
    finish(plan)
    assert same(out, whole)
    (out / "part-00000.parquet").write_bytes(b"PAR1")
    finish(plan)
    assert same(out, whole)


def test_a_reader_never_finds_a_file_gone(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy(whole, tmp_path / "out")
    plan = read_plan(out)
    make = ParquetShards.__init__

    def small(self: ParquetShards, *args: Any, **more: Any) -> None:
        make(self, *args, **(more | {"rows_per_file": 5, "batch": 5}))

    monkeypatch.setattr(ParquetShards, "__init__", small)
    finish(plan, captions_per_image=0)
    monkeypatch.undo()
    assert len(inodes(out)) > 2
    unlink, seen = Path.unlink, []

    def spy(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok=missing_ok)
        if self.parent == out:
            seen.append((out / "part-00000.parquet").exists())

    monkeypatch.setattr(Path, "unlink", spy)
    finish(plan)
    assert len(seen) > 2 and all(seen) and same(out, whole), "what an earlier finish had more is gone"
