"""Painting by Ray: the same shards, and the same files."""

from pathlib import Path

import pytest
from test_work import COUNT, same, source, whole  # noqa: F401

from vsre.errors import VsreError
from vsre.repaint import repaint

# ruff: noqa: F811


def test_without_ray_it_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from quick_painter import QuickPainter

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(VsreError, match=r'pip install "vsre\[ray\]"'):
        repaint(source, tmp_path, painter=QuickPainter, shard_jobs=48, ray="local")


@pytest.mark.slow
def test_ray_paints_the_same(small_world: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "vsre[ray]"')
    train, scenes = small_world / "triplets" / "train", small_world / "scenes.jsonl"
    repaint(train, tmp_path / "ray", scenes=scenes, limit=20, workers=2, ray="local")
    repaint(train, tmp_path / "here", scenes=scenes, limit=20)
    assert same(tmp_path / "ray", tmp_path / "here")


@pytest.mark.slow
def test_what_a_ray_worker_says_reaches_the_person(small_world: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "vsre[ray]"')
    from vsre.repaint.planning import make_plan
    from vsre.repaint.run import shard_painter_of
    from vsre.repaint.specs import Scenes
    from vsre.repaint.work import work

    make_plan(small_world / "triplets" / "train", tmp_path, Scenes(scenes=small_world / "scenes.jsonl"), limit=4)
    ours = shard_painter_of(tmp_path)
    (tmp_path / "plan" / "vocabulary.json").write_text("{")
    with pytest.raises(VsreError, match=r"vocabulary\.json: missing or damaged"):
        work(ours, ray="local")
