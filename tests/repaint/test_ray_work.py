"""Painting by Ray: the same shards, and the same files."""

import subprocess
import sys
from pathlib import Path

import pytest
from quick_painter import QuickPainter, write_source
from test_work import same

from vsre.errors import VsreError
from vsre.repaint import repaint
from vsre.repaint.planning import make_plan
from vsre.repaint.specs import Scenes


def vsre(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: where Ray's own processes die, it ends the program that called it."""
    command = [sys.executable, "-c", "from vsre.cli import main; main()", "repaint", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_without_ray_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(VsreError, match=r'pip install "vsre\[ray\]"'):
        repaint(write_source(tmp_path / "train", 2), tmp_path / "out", painter=QuickPainter, ray="local")


@pytest.mark.slow
def test_ray_paints_the_same(small_world: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "vsre[ray]"')
    train, scenes = small_world / "triplets" / "train", small_world / "scenes.jsonl"
    asked = ("--scenes", scenes, "--limit", 20)
    done = vsre(train, tmp_path / "ray", *asked, "--workers", 2, "--ray", "local")
    assert done.returncode == 0, done.stderr
    repaint(train, tmp_path / "here", scenes=scenes, limit=20)
    assert same(tmp_path / "ray", tmp_path / "here")


@pytest.mark.slow
def test_what_a_ray_worker_says_reaches_the_person(small_world: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "vsre[ray]"')
    make_plan(
        small_world / "triplets" / "train", tmp_path / "out", Scenes(scenes=small_world / "scenes.jsonl"), limit=4
    )
    (tmp_path / "out" / "plan" / "jobs.parquet").write_bytes(b"PAR1")
    done = vsre("work", tmp_path / "out", "--ray", "local")
    assert done.returncode == 2 and "jobs.parquet: missing or damaged" in " ".join(done.stderr.split())
