"""Several seeds of one recipe as one result: means over seeds, with intervals, and each step tested.

A seed draws its own world, trains its own models and is tested on its own pictures: a replicate of the whole. The
differences between seeds include everything that may vary, so intervals and p-values are those of a t-test over the
seeds' figures, with seeds - 1 degrees of freedom; with three seeds only large and consistent differences pass. The
interval over pictures, for these particular seeds, is given too: how precisely each of them was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich import box
from rich.table import Table
from rich.text import Text
from scipy import stats  # type: ignore[import-untyped]

from vsre.errors import VsreError
from vsre.report.compare import paired_draws, pairs, signed
from vsre.report.inputs import ReportRun, Run, open_run
from vsre.report.results import columns, markdown_name

TESTED = {"test_s": "Test-S", "test_g": "Test-G", "unseen": "Unseen"}
Draws = np.ndarray
"""A figure on the data, then on every resample of its pictures: (1 + R,)."""


def pooled(per_seed: Sequence[Draws]) -> dict[str, Any]:
    """Average a figure given as draws of each seed: {"value", "low", "high", "p", "pictures", "seeds"}.

    `low` and `high` bound 95 % over seeds, `p` is two-sided for the figure being 0 (both by Student's t); `pictures` is
    [low, high] over resampled pictures with the seeds as they are. Seeds that agree exactly, as may happen with few
    statements, say nothing about how seeds differ: `p` is 1 then.
    """
    values = np.array([d[0] for d in per_seed])
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * error
    p = 2 * stats.t.sf(abs(mean) / error, len(values) - 1) if error > 1e-9 else 1.0
    drawn = np.mean([d[1:] for d in per_seed], axis=0)
    return {
        "value": float(mean),
        "low": float(mean - half),
        "high": float(mean + half),
        "p": float(p),
        "pictures": [float(v) for v in np.percentile(drawn[np.isfinite(drawn)], (2.5, 97.5))],
        "seeds": [round(float(v), 4) for v in values],
    }


def known(drawn: Sequence[Draws | None]) -> list[Draws] | None:
    """Return the draws of all seeds; None if one has no draws or no figure."""
    found = [d for d in drawn if d is not None and np.isfinite(d[0])]
    return found if found and len(found) == len(drawn) else None


def same_pictures(runs: Sequence[Run]) -> bool:
    """Whether all were tested on the same pictures, as seeds are unless the pictures are drawn scenes.

    Resamples of the pictures must then be the same for all: more seeds are not more pictures.
    """
    tables = [run.samples(("image_id",)) for run in runs]
    return len({frozenset() if t is None else frozenset(pc.unique(t["image_id"]).to_pylist()) for t in tables}) == 1


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down correction for multiple comparisons, in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def spread(values: Sequence[Any]) -> dict[str, Any] | None:
    """Return mean, lowest and highest of the seeds' figures; None if one is missing."""
    known = [float(v) for v in values if isinstance(v, int | float)]
    if not known or len(known) < len(values):
        return None
    rounded = [round(v, 4) for v in known]
    return {"value": float(np.mean(known)), "low": min(known), "high": max(known), "seeds": rounded, "range": True}


def over_seeds(runs: Mapping[int, Sequence[ReportRun | Run]]) -> dict[str, Any]:
    """Return {"seeds", "models": figures of each, "steps": each model against those it is compared with}.

    Every seed must have run the same models in the same order.
    """
    loaded = {s: [r if isinstance(r, Run) else open_run(r) for r in some] for s, some in runs.items()}
    names = {tuple(run.name for run in some) for some in loaded.values()}
    if len(names) != 1:
        raise VsreError(f"The seeds have run different models: {names}. Run them with one recipe.")
    ladder = list(zip(*loaded.values(), strict=True))  # one entry per model, holding one run per seed
    shown = columns([run for some in loaded.values() for run in some])
    shared = same_pictures([some[0] for some in loaded.values()])
    resample = [0 if shared else i for i in range(len(loaded))]
    models = []
    for rung in ladder:
        row: dict[str, Any] = {"model": rung[0].name, "role": rung[0].spec.role}
        for figure, title in TESTED.items():
            drawn = known([paired_draws(None, run, figure, seed=i) for i, run in zip(resample, rung, strict=True)])
            if drawn is not None:
                row[title] = pooled(drawn) | {"p": None}
        for column in shown:
            values = spread([column.of(run).value for run in rung])
            if column.title not in row and values is not None:
                row[column.title] = values
        models.append(row)
    steps: list[dict[str, Any]] = []
    for before, after in pairs([rung[0] for rung in ladder], first=True):
        for figure, title in TESTED.items():
            both = zip(resample, ladder[before], ladder[after], strict=True)
            drawn = known([paired_draws(a, b, figure, seed=i) for i, a, b in both])
            if drawn is not None:
                place = {"before": ladder[before][0].name, "after": ladder[after][0].name, "figure": title}
                steps.append(place | pooled(drawn))
    for step, corrected in zip(steps, holm([s["p"] for s in steps]), strict=True):
        step["p_holm"] = corrected
    return {"seeds": list(runs), "models": models, "steps": steps}


def _titles(result: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(k for row in result["models"] for k in row if k not in ("model", "role")))


def seeds_markdown(result: dict[str, Any]) -> str:
    """Return the result of `over_seeds` as GitHub Markdown."""
    titles = _titles(result)
    lines = ["| Model | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for row in result["models"]:
        cells = [_cell(row.get(t), scale=1 if t == "AUROC" else 100) for t in titles]
        lines.append(f"| {markdown_name(row['model'])} | " + " | ".join(cells) + " |")
    lines += ["", "| Step | Figure | Points | over seeds | over pictures | p | p (Holm) | each seed |"]
    lines += ["|---|---|---:|---|---|---:|---:|---|"]
    for s in result["steps"]:
        seeds, pictures = (f"{signed(a)} to {signed(b)}" for a, b in ((s["low"], s["high"]), s["pictures"]))
        verdict = "" if s["p_holm"] < 0.05 else ", not significant"
        step = f"{markdown_name(s['before'])} → {markdown_name(s['after'])}"
        lines.append(
            f"| {step} | {s['figure']} | {signed(s['value'])} | {seeds} "
            f"| {pictures} | {s['p']:.4f} | {s['p_holm']:.4f}{verdict} | {', '.join(signed(v) for v in s['seeds'])} |"
        )
    about = (
        f"Means over {len(result['seeds'])} seeds. Test-S, Test-G, Unseen: in brackets the 95 % interval over seeds "
        "(Student's t); the other columns: lowest and highest seed. Over pictures: bootstrap, paired, for these seeds. "
        "p: t-test over seeds, two-sided; corrected for all comparisons of the table by Holm's method."
    )
    return "\n".join([*lines, "", about]) + "\n"


def _cell(figure: dict[str, Any] | None, *, scale: float) -> str:
    if figure is None:
        return "–"
    digits = 3 if scale == 1 else 1
    value, low, high = (f"{scale * figure[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})" if figure.get("range") else f"{value} [{low}, {high}]"


def seeds_table(result: dict[str, Any]) -> Table:
    """Return the models of `over_seeds` as a console table."""
    table = Table(title=f"Mean of {len(result['seeds'])} seeds", box=box.SIMPLE_HEAD, title_justify="left")
    titles = _titles(result)
    for title in ("Model", *titles):
        table.add_column(title)
    for row in result["models"]:
        table.add_row(Text(row["model"]), *(_cell(row.get(t), scale=1 if t == "AUROC" else 100) for t in titles))
    return table


def write_seeds(out: Path, runs: Mapping[int, Sequence[ReportRun | Run]]) -> dict[str, Any]:
    """Write OUT/seeds.json and OUT/seeds.md; return the result."""
    result = over_seeds(runs)
    (out / "seeds.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "seeds.md").write_text(seeds_markdown(result), encoding="utf-8")
    return result
