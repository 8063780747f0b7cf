"""What painting a plan will cost in hours and disk, from a few jobs timed here or from a published rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from vsre.errors import VsreError
from vsre.repaint.diffusion import DiffusionPainter
from vsre.repaint.judge import paint_allowed
from vsre.repaint.painter import Painted
from vsre.repaint.plan_files import Plan
from vsre.repaint.presets import DiffusionConfig
from vsre.repaint.shards import is_done
from vsre.repaint.source import SourceRows
from vsre.repaint.work import ShardPainter

_BYTES_A_PIXEL = {"png": 1.65, "jpeg": 0.55}
"""From 15 COCO photos at their own size, encoded as painters encode: 1.647 and 0.547."""

_BYTES_A_LEDGER_ROW = 2_000
"""Roughly, with all of a picture's notes and verdicts."""

_COPIES = 2
"""A picture is stored in its shard, and in the triplets once they are gathered."""


@dataclass(frozen=True)
class Cost:
    """The cost of the `jobs` left to paint: `seconds_a_job` on one worker each, a `share` of them giving a picture of
    `bytes_a_picture`. `basis` says where the numbers come from."""

    jobs: int
    workers: int
    seconds_a_job: float
    share: float
    bytes_a_picture: float
    basis: str

    @property
    def hours(self) -> float:
        return self.jobs * self.seconds_a_job / self.workers / 3600

    @property
    def gigabytes(self) -> float:
        return self.jobs * (self.share * self.bytes_a_picture * _COPIES + _BYTES_A_LEDGER_ROW) / 1e9

    def row(self) -> dict[str, Any]:
        """As a row, for a table and for JSON."""
        return {
            "jobs": self.jobs,
            "pictures, about" if self.share < 1 else "pictures, at most": round(self.jobs * self.share),
            "workers": self.workers,
            "seconds a job": self.seconds_a_job,
            "hours": self.hours,
            "disk, GB": self.gigabytes,
            "basis": self.basis,
        }


def jobs_left(plan: Plan) -> int:
    """Number of jobs in shards that are not done."""
    return sum(plan.jobs_in(number) for number in range(plan.shards) if not is_done(plan.out, number))


def timed(shard_painter: ShardPainter, jobs: int, *, workers: int = 1) -> Cost:
    """The cost from timing `jobs` jobs from the middle of the plan (one batch at most), painted and judged here and
    thrown away. One job is painted before that, untimed, to load the models.

    Raises VsreError if `jobs` is below 1.
    """
    if jobs < 1:
        raise VsreError("Timing needs at least one job.")
    plan, painter = shard_painter.plan, shard_painter.painter
    vocabulary = plan.vocabulary()
    batch = next(plan.batches(plan.shards // 2, SourceRows(shard_painter.triplets), painter))
    paint_allowed(painter, vocabulary, [batch[0].job])
    sample = batch[:jobs]
    began = time.perf_counter()
    results = paint_allowed(painter, vocabulary, [planned.job for planned in sample])
    outcomes = shard_painter.judge.judged(results, [planned.licence for planned in sample], began)
    seconds = time.perf_counter() - began
    painted = [o.painted for o in outcomes if isinstance(o.painted, Painted)]
    size = sum(len(p.image) for p in painted) / len(painted) if painted else 0.0
    basis = f"{len(sample)} jobs timed here"
    return Cost(jobs_left(plan), workers, seconds / len(sample), len(painted) / len(sample), size, basis)


def published(plan: Plan, painter: DiffusionPainter, *, workers: int = 1) -> Cost | None:
    """The cost from a published rate for the painter's model, without verification; None if there is no rate."""
    config = painter.config
    rate = next((rate for rate in _rates() if config.model in rate["models"]), None)
    if rate is None:
        return None
    a_pass = 1 / rate["pictures_a_second"] / rate["steps"] / rate["passes"] / rate["pixels"]
    settings = plan.head.settings
    seconds = [_passes(config, setting) * config.size[0] * config.size[1] * a_pass for setting in settings]
    size = config.size[0] * config.size[1] * _BYTES_A_PIXEL[config.encoding]
    basis = f"published for one {rate['gpu']}, not measured here: {rate['source']}"
    return Cost(jobs_left(plan), workers, sum(seconds) / len(seconds), 1.0, size, basis)


def _passes(config: DiffusionConfig, setting: Any) -> int:
    """How often the UNet runs per picture in a setting."""
    numbers = config.numbers(setting)
    steps = int(numbers.steps * getattr(numbers, "strength", 1))
    return steps * (2 if numbers.guidance > 1 else 1)


@cache
def _rates() -> list[dict[str, Any]]:
    text = resources.files("vsre.repaint").joinpath("rates.yaml").read_text(encoding="utf-8")
    rates: list[dict[str, Any]] = yaml.safe_load(text)
    return rates
