"""Models that were loaded for a trial are gone before workers load theirs."""

from pathlib import Path
from typing import Any

import pytest
from quick_painter import QuickPainter, write_source

from vsre.repaint.judge import Judge
from vsre.repaint.painter import Vocabulary
from vsre.repaint.planning import make_plan
from vsre.repaint.presets import load_config
from vsre.repaint.safety import SafetyChecker, SafetySpec
from vsre.repaint.work import ShardPainter, work
from vsre.verify import build_verifier
from vsre.verify.config import Judge as JudgeSpec
from vsre.verify.judge import VlmJudge


@pytest.mark.parametrize(("how", "released"), [({"workers": 2}, True), ({"ray": "local"}, True), ({}, False)])
def test_workers_find_the_memory_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], released: bool
) -> None:
    events: list[str] = []

    class Loaded(QuickPainter):
        def release(self) -> None:
            events.append("released")

    source = write_source(tmp_path / "train", 6)
    plan, painter = make_plan(source, tmp_path / "out", Loaded)
    monkeypatch.setattr("vsre.repaint.work._painted_by_pool", lambda *given: events.append("spawned") or iter(()))
    monkeypatch.setattr("vsre.repaint.ray_work.painted_by_ray", lambda *given: events.append("spawned") or iter(()))
    work(ShardPainter(plan, painter, Judge(), source), **how)
    assert events == (["released", "spawned"] if released else []), "one process paints with what it has loaded"


def test_everybody_forgets_what_was_loaded() -> None:
    pytest.importorskip("diffusers")
    from vsre.repaint.diffusion import DiffusionPainter

    painter = DiffusionPainter(Vocabulary(("cat",), frozenset()), load_config("sdxl"))
    painter.pipelines._pipes["t2i"] = object()
    painter.release()
    assert not painter.pipelines.loaded
    verifier: Any = build_verifier("scenes", judge={"model": "m", "server": "http://localhost:1/v1"})
    model = verifier.eyes[0].detector.model
    model._loaded = (object(), object())
    verifier.judge.engine, verifier.judge._opened = object(), True
    verifier.release()
    assert model._loaded is None and verifier.judge.engine is None
    given: Any = object()
    judge = VlmJudge(JudgeSpec(model="m"), engine=given)
    judge.release()
    assert judge.engine is given, "what cannot be loaded again stays"
    checker = SafetyChecker(SafetySpec(model="m"))
    checker._loaded = given
    checker.release()
    assert checker._loaded is None
