from pathlib import Path

import pytest
from quick_painter import SIDE, QuickPainter, write_source

from vsre.errors import VsreError
from vsre.repaint.cost import Cost, jobs_left, published, timed
from vsre.repaint.judge import Judge
from vsre.repaint.planning import make_plan
from vsre.repaint.presets import load_config
from vsre.repaint.specs import Diffusion
from vsre.repaint.work import ShardPainter, work


def test_the_sums() -> None:
    cost = Cost(jobs=7200, workers=2, seconds_a_job=3, share=0.5, bytes_a_picture=1e6, basis="x")
    assert cost.hours == 3
    # Half of the jobs give a picture, which stands in the shard and in the triplets, and each has a row.
    assert cost.gigabytes == pytest.approx(7200 * (0.5 * 2e6 + 2000) / 1e9)
    assert cost.row()["pictures, about"] == 3600


def test_jobs_are_timed_and_thrown_away(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 40)
    plan, _ = make_plan(source, tmp_path / "out", QuickPainter, shard_jobs=48)
    slow = QuickPainter(plan.vocabulary(), wait=0.02)
    shard_painter = ShardPainter(plan, slow, Judge(), source)
    cost = timed(shard_painter, 10)
    assert cost.jobs == 120 and cost.seconds_a_job >= 0.02 and cost.basis == "10 jobs timed here"
    assert 0 < cost.share <= 1 and SIDE * SIDE < cost.bytes_a_picture < 5 * SIDE * SIDE
    assert not (tmp_path / "out" / "ledger").exists()
    work(ShardPainter(plan, QuickPainter(plan.vocabulary()), Judge(), source), part=(1, 3))
    assert timed(shard_painter, 1).jobs == jobs_left(plan) == 72
    with pytest.raises(VsreError, match="one job"):
        timed(shard_painter, 0)


def test_published_rates_are_scaled_by_steps_guidance_and_pixels(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    source = write_source(tmp_path / "train", 10)

    def cost(name: str, config: object, setting: str) -> Cost:
        plan, painter = make_plan(source, tmp_path / name, Diffusion(config=config), settings=(setting,))  # type: ignore[arg-type]
        found = published(plan, painter)  # type: ignore[arg-type]
        assert found is not None
        return found

    sdxl = load_config("sdxl")
    whole = cost("a", sdxl, "t2i")
    assert whole.seconds_a_job == pytest.approx(1 / 0.40) and "published" in whole.basis and "H100" in whole.basis
    assert cost("b", sdxl, "i2i").seconds_a_job == pytest.approx(2.5 / 2), "15 of 30 steps are run"
    assert cost("c", sdxl.changed(t2i={"guidance": 1}), "t2i").seconds_a_job == pytest.approx(2.5 / 2)
    assert cost("d", sdxl.changed(size=[512, 512]), "t2i").seconds_a_job == pytest.approx(2.5 / 4)
    assert whole.row()["pictures, at most"] == 10
    other = sdxl.changed(model="some/other")
    plan, painter = make_plan(source, tmp_path / "e", Diffusion(config=other), settings=("t2i",))
    assert published(plan, painter) is None  # type: ignore[arg-type]
