"""What was measured: run folders of `vsre diagnose`, and whether they were measured on these weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vsre.diagnose.loading import weights_fingerprint
from vsre.export.origins import public_name
from vsre.report.inputs import ReportRun, Run, open_run

HEADLINES = {"test_s": "Test-S", "test_g": "Test-G", "unseen": "Unseen"}


@dataclass(frozen=True)
class Measured:
    """A run, and whether it was measured on the exported weights."""

    run: Run
    same_weights: bool

    @property
    def data(self) -> str:
        """The folder of the triplets that were asked about: the last two names of its path."""
        named = str(self.run.info.get("data", {}).get("triplets", "unnamed"))
        return "/".join(Path(named).parts[-2:])

    @property
    def protocol(self) -> str:
        return str(self.run.metrics.get("protocol") or "not stated")

    @property
    def test(self) -> tuple[str, ...]:
        """What makes two runs comparable: the triplets, how many of them, and the protocol."""
        settings = self.run.info.get("settings", {})
        return tuple(
            str(v) for v in (settings.get("triplets"), settings.get("limit"), settings.get("sample"), self.protocol)
        )

    def above_floor(self, headline: str, floor: float | None) -> bool | None:
        """Whether the interval of an accuracy lies above the blind floor; None if one of them was not measured."""
        low = self.run.estimate(headline, "acc_t").low
        return None if low is None or floor is None else low > floor


def measured(folders: Iterable[str | Path], model: nn.Module) -> list[Measured]:
    """Read run folders and compare their weights with the model's by fingerprint.

    A run in another dtype is compared in that dtype: what a checkpoint becomes when it is loaded that way.
    """

    @cache
    def fingerprint(dtype: str) -> str:
        wanted = getattr(torch, dtype, None)
        other = isinstance(wanted, torch.dtype) and wanted != next(model.parameters()).dtype
        return weights_fingerprint(copy.deepcopy(model).to(wanted) if other else model)

    found = []
    for folder in folders:
        run = open_run(ReportRun(name="?", folder=Path(folder)))
        run.spec.name = public_name(str(run.metrics.get("model", "unnamed")))
        engine = run.info.get("settings", {}).get("engine", {})
        found.append(Measured(run, engine.get("weights") == fingerprint(str(engine.get("dtype")))))
    return found


def by_test(results: Iterable[Measured]) -> list[list[Measured]]:
    """Groups of runs that may share a table, the exported model's before others."""
    ordered = sorted(results, key=lambda r: (r.test, not r.same_weights))
    return [list(group) for _, group in groupby(ordered, key=lambda r: r.test)]


def eval_results(results: Iterable[Measured]) -> list[Any]:
    """huggingface_hub's EvalResult, as a fraction, for each headline of the runs on these weights."""
    from huggingface_hub import EvalResult

    found = []
    for result in results:
        for key, title in HEADLINES.items():
            figure = result.run.estimate(key, "acc_t")
            if result.same_weights and figure.value is not None:
                interval = {k: round(v, 4) for k, v in (("low", figure.low), ("high", figure.high)) if v is not None}
                found.append(
                    EvalResult(
                        task_type="image-text-to-text",
                        dataset_type="vsre",
                        dataset_name=f"{title} on {result.data}",
                        # The hub merges results with the same configuration and revision under one name.
                        dataset_config=key,
                        dataset_revision=result.test[0],
                        dataset_args={"protocol": result.protocol},
                        metric_type="accuracy",
                        metric_name=f"acc_t, {title}",
                        metric_value=round(figure.value, 4),
                        metric_args={**interval, "n": figure.n},
                    )
                )
    return found
