"""Several seeds of one recipe as one result: means over seeds, intervals over seeds and images, each step tested.

A seed draws its own world, trains its own models and is tested on its own pictures. Intervals come from a bootstrap in
two levels: seeds are drawn with replacement, and within each drawn seed its pictures. Three seeds tell little about
how seeds differ, so every seed's own figure stands beside the mean.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from vsre.errors import VsreError
from vsre.report.compare import paired_draws, signed
from vsre.report.inputs import ReportRun, Run, open_run
from vsre.report.results import columns

TESTED = {"test_s": "Test-S", "test_g": "Test-G", "unseen": "Unseen"}
RESAMPLES = 4000

Draws = np.ndarray
"""A figure on the data, then on every resample of its pictures: (1 + R,)."""


def two_levels(per_seed: Sequence[Draws], *, seed: int = 0) -> dict[str, Any]:
    """{"value", "low", "high", "p", "seeds"} of a figure known as draws of each seed.

    `p` is the two-sided bootstrap p-value of the figure being 0, never below 1 / RESAMPLES.
    """
    rng = np.random.default_rng(seed)
    count = len(per_seed)
    picked = rng.integers(count, size=(RESAMPLES, count))
    at = np.stack([1 + rng.integers(len(d) - 1, size=RESAMPLES) for d in per_seed], axis=1)  # a resample of each seed
    resampled = np.stack([d[at[:, i]] for i, d in enumerate(per_seed)], axis=1)  # (RESAMPLES, seeds)
    means = np.take_along_axis(resampled, picked, axis=1).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    beyond = 2 * min((means <= 0).mean(), (means >= 0).mean())
    return {
        "value": float(np.mean([d[0] for d in per_seed])),
        "low": float(low),
        "high": float(high),
        "p": float(min(1.0, max(beyond, 1 / RESAMPLES))),
        "seeds": [round(float(d[0]), 4) for d in per_seed],
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for many comparisons, in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def over_seeds(runs: Mapping[int, Sequence[ReportRun | Run]]) -> dict[str, Any]:
    """{"seeds", "models": figures of each, "steps": each model against the one before it and against the first}.

    Every seed must have run the same models in the same order.
    """
    loaded = {s: [r if isinstance(r, Run) else open_run(r) for r in some] for s, some in runs.items()}
    names = {tuple(run.name for run in some) for some in loaded.values()}
    if len(names) != 1:
        raise VsreError(f"The seeds have run different models: {names}. Run them by one recipe.")
    ladder = list(zip(*loaded.values(), strict=True))  # one entry a model, one run a seed in it
    shown = columns([run for some in loaded.values() for run in some])
    models = []
    for rung in ladder:
        row: dict[str, Any] = {"model": rung[0].name, "role": rung[0].spec.role}
        for figure, title in TESTED.items():
            drawn = [paired_draws(None, run, figure) for run in rung]
            known = [d for d in drawn if d is not None]
            if len(known) == len(drawn):
                row[title] = two_levels(known) | {"p": None}
        for column in shown:
            values = [column.of(run).value for run in rung]
            known_values = [v for v in values if v is not None]
            if column.title not in row and known_values:
                row[column.title] = {
                    "value": float(np.mean(known_values)),
                    "low": min(known_values),
                    "high": max(known_values),
                    "seeds": [round(v, 4) for v in known_values],
                    "range": True,
                }
        models.append(row)
    pairs = list(itertools.pairwise(range(len(ladder))))
    pairs += [(0, i) for i in range(2, len(ladder))]
    steps: list[dict[str, Any]] = []
    for before, after in pairs:
        for figure, title in TESTED.items():
            drawn = [paired_draws(a, b, figure) for a, b in zip(ladder[before], ladder[after], strict=True)]
            known = [d for d in drawn if d is not None]
            if len(known) == len(drawn):
                place = {"before": ladder[before][0].name, "after": ladder[after][0].name, "figure": title}
                steps.append(place | two_levels(known))
    for step, corrected in zip(steps, holm([s["p"] for s in steps]), strict=True):
        step["p_holm"] = corrected
    return {"seeds": list(runs), "models": models, "steps": steps}


def seeds_markdown(result: dict[str, Any]) -> str:
    """The result of `over_seeds` as GitHub Markdown."""
    titles = [k for k in result["models"][0] if k not in ("model", "role")]
    lines = ["| Model | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    lines += [
        f"| {row['model']} | " + " | ".join(_cell(row.get(t), scale=1 if t == "AUROC" else 100) for t in titles) + " |"
        for row in result["models"]
    ]
    lines += ["", "| Step | Figure | Difference in points | p (Holm) | by seed |", "|---|---|---:|---:|---|"]
    for s in result["steps"]:
        interval = f"[{signed(s['low'])}, {signed(s['high'])}]"
        verdict = "" if s["p_holm"] < 0.05 else " (not significant)"
        lines.append(
            f"| {s['before']} → {s['after']} | {s['figure']} | {signed(s['value'])} {interval} "
            f"| {s['p_holm']:.4f}{verdict} | {', '.join(signed(v) for v in s['seeds'])} |"
        )
    about = (
        f"Means over {len(result['seeds'])} seeds. Test-S, Test-G, Unseen: 95 % intervals over seeds and images "
        "(bootstrap in two levels); the other columns: lowest and highest seed. p: two-sided, by the same bootstrap, "
        "corrected for all comparisons of the table by Holm's method."
    )
    return "\n".join([*lines, "", about]) + "\n"


def _cell(figure: dict[str, Any] | None, *, scale: float) -> str:
    if figure is None:
        return "–"
    digits = 3 if scale == 1 else 1
    value, low, high = (f"{scale * figure[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})" if figure.get("range") else f"{value} [{low}, {high}]"


def seeds_table(result: dict[str, Any]) -> Table:
    """The models of `over_seeds` for a console."""
    table = Table(title=f"Mean of {len(result['seeds'])} seeds", box=box.SIMPLE_HEAD, title_justify="left")
    titles = [k for k in result["models"][0] if k not in ("model", "role")]
    for title in ("Model", *titles):
        table.add_column(title)
    for row in result["models"]:
        table.add_row(row["model"], *(_cell(row.get(t), scale=1 if t == "AUROC" else 100) for t in titles))
    return table


def write_seeds(out: Path, runs: Mapping[int, Sequence[ReportRun | Run]]) -> dict[str, Any]:
    """Write OUT/seeds.json and OUT/seeds.md; returns the result."""
    result = over_seeds(runs)
    (out / "seeds.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "seeds.md").write_text(seeds_markdown(result), encoding="utf-8")
    return result
