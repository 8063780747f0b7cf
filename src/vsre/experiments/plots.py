"""Plots of an experiment's table of results: dots with intervals, lines over a factor, and the story at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats  # type: ignore[import-untyped]

from vsre.errors import VsreError
from vsre.experiments.schema import Plot

FACTOR = "factor_"
NAMES = {
    "test_s.acc_t": "Test-S",
    "test_g.acc_t": "Test-G",
    "unseen.acc_t": "unseen wordings",
    "general.acc_t": "non-spatial",
    "bias": "yes/no gap",
}
BLANK = "blank.acc_t"


def draw(plot: Plot, table: pa.Table, seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """Draw one plot to OUT/NAME.png; {"name", "title", "file"}, the file None where the table lacks its figures.

    Raises VsreError for a factor that no arm has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = table.filter(pc.is_in(table["seed"], pa.array(seeds))).to_pylist()
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = {"dots": _dots, "lines": _lines, "sensitivity": _sensitivity}[plot.kind](plot, rows, axes)
    told = {"name": plot.name, "title": plot.title, "file": None}
    if not drawn:
        return told
    axes.set_title(plot.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    path = out / f"{plot.name}.png"
    figure.savefig(path, dpi=130)
    return told | {"file": path.name}


def _arm(row: dict[str, Any], several: bool) -> str:
    return f"{row['variant']}: {row['model']}" if several else str(row["model"])


def _dots(plot: Plot, rows: Sequence[dict[str, Any]], axes: Any) -> bool:
    several = len({row["variant"] for row in rows}) > 1
    arms = list(dict.fromkeys(_arm(row, several) for row in rows))
    drawn = False
    for number, figure in enumerate(plot.y):
        shift = 0.16 * (number - (len(plot.y) - 1) / 2)
        known = {}
        for at, arm in enumerate(arms):
            if mean := _mean([r for r in rows if r["figure"] == figure and _arm(r, several) == arm]):
                known[at + shift] = mean
        if known:
            drawn = True
            _bars(axes, known, figure, number, across=True)
    axes.set_yticks(range(len(arms)), arms, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(50, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("accuracy in %, with 95 % over seeds (one seed: over pictures)", fontsize=8)
    return drawn


def _lines(plot: Plot, rows: Sequence[dict[str, Any]], axes: Any) -> bool:
    column = f"{FACTOR}{plot.x}"
    if plot.x is None or not rows or column not in rows[0]:
        raise VsreError(f"plot {plot.name}: no arm has a factor {plot.x!r}.")
    by = f"{FACTOR}{plot.by}" if plot.by else None
    number = 0
    for figure in plot.y:
        mine = [r for r in rows if r["figure"] == figure and isinstance(r[column], int | float)]
        for value in sorted({r[by] for r in mine}, key=str) if by else [None]:
            some = [r for r in mine if by is None or r[by] == value]
            known = {}
            for x in sorted({r[column] for r in some}):
                if mean := _mean([r for r in some if r[column] == x]):
                    known[x] = mean
            if known:
                label = figure if by is None else f"{NAMES.get(figure, figure)}, {plot.by} {value}"
                axes.plot([*known], [100 * mean[0] for mean in known.values()], color=f"C{number}", linewidth=1)
                _bars(axes, known, label, number)
                number += 1
    axes.axhline(50, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel(plot.x, fontsize=9)
    axes.set_ylabel("%", fontsize=9)
    return number > 0


def _sensitivity(plot: Plot, rows: Sequence[dict[str, Any]], axes: Any) -> bool:
    """Each arm's wordings as a cloud over its accuracy, with the picture and with a grey frame in its place.

    A model that hangs on the wording has a wide cloud, one that does not look has both marks on one another.
    """
    several = len({row["variant"] for row in rows}) > 1
    arms = list(dict.fromkeys(_arm(row, several) for row in rows))
    drawn = False
    for at, arm in enumerate(arms):
        mine = [r for r in rows if _arm(r, several) == arm and r["value"] is not None]
        wordings = [r for r in mine if r["figure"].startswith("template.pool.")]
        names = sorted({r["figure"] for r in wordings})
        values = [100 * float(np.mean([r["value"] for r in wordings if r["figure"] == name])) for name in names]
        places = at + np.linspace(-0.28, 0.28, max(1, len(values)))[: len(values)]
        axes.scatter(values, places, s=10, alpha=0.55, color="C0", linewidths=0, label=_once(at, "a wording"))
        for figure, mark, label in (("test_g.acc_t", "D", "all wordings"), (BLANK, "x", "no picture (one wording)")):
            mean = _mean([r for r in mine if r["figure"] == figure])
            if mean is not None:
                drawn = True
                axes.plot([100 * mean[0]], [at], mark, color="black", markersize=7, label=_once(at, label))
    axes.set_yticks(range(len(arms)), arms, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(50, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("accuracy in %", fontsize=8)
    return drawn


def _once(at: int, label: str) -> str:
    return label if at == 0 else "_"


def _mean(rows: Sequence[dict[str, Any]]) -> tuple[float, float, float] | None:
    """Mean and bounds: over the rows as seeds by Student's t; of a single one its own."""
    values = [r["value"] for r in rows if r["value"] is not None]
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1:
        low, high = rows[0]["low"], rows[0]["high"]
        return mean, mean if low is None else low, mean if high is None else high
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _bars(
    axes: Any, points: Mapping[float, tuple[float, float, float]], label: str, number: int, *, across: bool = False
) -> None:
    """Points by their place on the other axis, with their bounds."""
    means, low, high = 100 * np.array([*points.values()]).T
    # A percentile interval of a skewed bootstrap may leave its figure out: a bar has no negative length.
    error = np.clip([means - low, high - means], 0, None)
    style: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": f"C{number}", "capsize": 2, "linewidth": 1}
    style["label"] = NAMES.get(label, label)
    if across:
        axes.errorbar(means, [*points], xerr=error, **style)
    else:
        axes.errorbar([*points], means, yerr=error, **style)
