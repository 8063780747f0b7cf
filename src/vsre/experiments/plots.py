"""Plots of an experiment's results: dots with intervals, lines over a factor, sensitivity to wording and picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats  # type: ignore[import-untyped]

from vsre.experiments.cost_plot import LETTERS, draw_cost
from vsre.experiments.forest import draw_forest, wrapped
from vsre.experiments.schema import Plot
from vsre.experiments.table import FACTOR
from vsre.report.seeds import TESTED

NAMES = {
    "test_s.acc_t": "Test-S",
    "test_g.acc_t": "Test-G",
    "unseen.acc_t": "unseen wordings",
    "general.acc_t": "non-spatial",
    "bias": "yes/no gap",
}
MARKS = "osD^vP"
LOOKS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "test_g.acc_t": ("mean of the wordings", 0.0, {"marker": "D", "color": "C0", "markersize": 7}),
    "test_s.acc_t": ("one wording, with its picture", 0.25, {"marker": "o", "color": "black", "markersize": 4}),
    "blank.acc_t": ("the same, grey frame", 0.25, {"marker": "o", "markerfacecolor": "none", "markersize": 9}),
}
"""The marks of a sensitivity plot: their labels, how far below the arm's line they are, and their style."""
POINTS = {"differences": "percentage points", "effects": "percentage points, with 95 % from the model's residuals"}

Rows = Sequence[dict[str, Any]]


def draw(
    plot: Plot, table: pa.Table, seeds: Sequence[int], out: Path, tables: Mapping[str, Rows] | None = None
) -> dict[str, Any]:
    """Draw one plot to OUT/NAME.png; return {"name", "title", "file"}, where file is None if its figures are missing.

    `tables`: the report's rows, by the kind of plot that draws them (cost, differences, effects).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    told = {"name": plot.name, "title": plot.title, "file": None}
    path = out / f"{plot.name}.png"
    if plot.kind == "cost":
        drawn = draw_cost((tables or {}).get("cost", ()), TESTED[plot.y[0].split(".")[0]], plot.title, path)
        return told | {"file": path.name} if drawn else told
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if plot.kind in ("differences", "effects"):
        names = draw_forest(plot.kind, plot.y, (tables or {}).get(plot.kind, ()), axes)
        drawn = bool(names)
        axes.set_xlabel(POINTS[plot.kind] + (_bounds(seeds) if plot.kind == "differences" else ""), fontsize=8)
    else:
        rows = table.filter(pc.is_in(table["seed"], pa.array(seeds))).to_pylist()
        arms = {} if plot.kind == "lines" else _by_arm(rows)
        names = [*arms]
        if plot.kind == "lines":
            drawn = _lines(plot, rows, axes)
        else:
            drawn = (_dots if plot.kind == "dots" else _sensitivity)(plot, arms, axes)
            axes.set_xlabel("accuracy in %" + (_bounds(seeds) if plot.kind == "dots" else ""), fontsize=8)
        if drawn and all(name.endswith("acc_t") for name in plot.y):
            lines = plot.kind == "lines"
            (axes.axhline if lines else axes.axvline)(50, color="grey", linewidth=0.8, linestyle=":", zorder=0)
            low, high = axes.get_ylim() if lines else axes.get_xlim()  # a t-interval of few seeds may exceed 0 to 100
            (axes.set_ylim if lines else axes.set_xlim)(max(low, -1), min(high, 101))
    if not drawn:
        return told
    if names:
        row = 0.6 if plot.kind == "sensitivity" else 0.16 + 0.06 * len(plot.y)
        height = 1.5 + sum(max(row, 0.2 + 0.14 * name.count("\n")) for name in names)
        figure.set_size_inches(7.5, max(3.0, height))
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.4, -0.6)  # the first at the top
    axes.tick_params(labelsize=8)
    axes.set_title(plot.title.replace("$", r"\$"), fontsize=10, loc="left", wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)  # never over a point
    figure.savefig(path, dpi=130)
    return told | {"file": path.name}


def _bounds(seeds: Sequence[int]) -> str:
    return ", with 95 % over seeds" if len(seeds) > 1 else ", with 95 % over test pictures (one seed)"


def _by_arm(rows: Rows) -> dict[str, list[dict[str, Any]]]:
    """Group rows by arm, under the name that the axis shows."""
    several = len({row["variant"] for row in rows}) > 1
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name = f"{row['variant']}: {row['model']}" if several else str(row["model"])
        found.setdefault(wrapped(name, LETTERS), []).append(row)
    return found


def _dots(plot: Plot, arms: dict[str, list[dict[str, Any]]], axes: Any) -> bool:
    drawn = False
    for number, figure in enumerate(plot.y):
        shift = 0.5 / len(plot.y) * (number - (len(plot.y) - 1) / 2)
        known = [
            (at + shift, mean)
            for at, rows in enumerate(arms.values())
            if (mean := _mean([r for r in rows if r["figure"] == figure])) is not None
        ]
        if known:
            drawn = True
            _points(axes, known, figure, number, across=True)
    return drawn


def _lines(plot: Plot, rows: Rows, axes: Any) -> bool:
    """Draw means against a factor's values; arms that share a value are faint dots, and no interval is drawn then."""
    column, by = f"{FACTOR}{plot.x}", f"{FACTOR}{plot.by}"
    if not rows or column not in rows[0]:
        return False
    drawn, series = False, []
    for figure in plot.y:
        some = [r for r in rows if r["figure"] == figure and isinstance(r[column], int | float)]
        series += [(figure, value, [r for r in some if r.get(by) == value]) for value in _values(some, by)]
    places = sorted({r[column] for _, _, some in series for r in some})
    for number, (figure, value, some) in enumerate(series):
        shift = 0.012 * (places[-1] - places[0]) * (number - (len(series) - 1) / 2)  # so that bars do not overlap
        known = []
        for x in places:
            here = [r for r in some if r[column] == x]
            if (mean := _mean(here)) is not None:
                known.append((x + shift, mean))
                if len(each := _by_arm(here)) > 1:
                    arms = [100 * m[0] for m in map(_mean, each.values()) if m is not None]
                    axes.plot([x + shift] * len(arms), arms, ".", color=f"C{number}", alpha=0.35, markersize=5)
        level = f"{value:g}" if isinstance(value, float) else value
        label = NAMES.get(figure, figure) + (f", {plot.by} {level}" if plot.by else "")
        if known:
            drawn = True
            axes.plot([x for x, _ in known], [100 * mean[0] for _, mean in known], color=f"C{number}", linewidth=1)
            _points(axes, known, label, number)
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.set_xlabel(plot.x, fontsize=9)
    axes.set_ylabel("%" + _bounds([*{row["seed"] for row in rows}]), fontsize=8)
    return drawn


def _values(rows: Rows, factor: str) -> list[Any]:
    return sorted({r.get(factor) for r in rows}, key=str)


def _sensitivity(plot: Plot, arms: dict[str, list[dict[str, Any]]], axes: Any) -> bool:
    """Draw each arm's wordings as a cloud, their mean, and below it one wording with its picture and with a grey frame.

    A model that depends on the wording has a wide cloud; if it ignores the picture, the last two marks coincide.
    """
    told: set[str] = set()
    drawn = False
    for at, rows in enumerate(arms.values()):
        known = [r for r in rows if r["value"] is not None]
        wordings: dict[str, list[float]] = {}
        for r in known:
            if r["figure"].startswith("template.pool."):
                wordings.setdefault(r["figure"], []).append(100 * r["value"])
        values = sorted(float(np.mean(some)) for some in wordings.values())
        if values:
            label = _once("a wording", told)
            axes.scatter(values, [*_cloud(values, at)], s=12, alpha=0.5, color="C0", linewidths=0, label=label)
        for figure, (label, below, style) in LOOKS.items():
            if (mean := _mean([r for r in known if r["figure"] == figure])) is not None:
                drawn = True
                place = {"label": _once(label, told), "linestyle": "", "zorder": 3}
                axes.plot([100 * mean[0]], [at + below], markeredgecolor="black", **place, **style)
    return drawn


def _cloud(values: Sequence[float], at: int) -> Iterator[float]:
    """Yield a position above `at` for each value in order, staggered so that close ones do not hide one another."""
    yield from (at - 0.12 - 0.07 * (i % 4) for i in range(len(values)))


def _once(label: str, told: set[str]) -> str:
    """Return the label for the first artist that has it, then "_", so that the legend has each mark once."""
    if label in told:
        return "_"
    told.add(label)
    return label


def _mean(rows: Rows) -> tuple[float, float, float] | None:
    """Return mean and bounds: over seeds by Student's t; the run's own for one seed; NaN for several arms together."""
    by_seed: dict[int, list[float]] = {}
    for r in rows:
        if r["value"] is not None:
            by_seed.setdefault(r["seed"], []).append(r["value"])
    if not by_seed:
        return None
    values = [float(np.mean(some)) for some in by_seed.values()]
    mean = float(np.mean(values))
    if max(map(len, by_seed.values())) > 1:
        return mean, np.nan, np.nan
    if len(values) == 1:
        low, high = rows[0]["low"], rows[0]["high"]
        return (mean, np.nan, np.nan) if low is None or high is None else (mean, low, high)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _points(
    axes: Any,
    points: Sequence[tuple[float, tuple[float, float, float]]],
    label: str,
    number: int,
    *,
    across: bool = False,
) -> None:
    """Draw points at their places on the other axis, with their bounds if they have any."""
    places = [place for place, _ in points]
    means, low, high = 100 * np.array([mean for _, mean in points]).T
    # A percentile interval of a skewed bootstrap may exclude the estimate, but a bar's length cannot be negative.
    error = np.clip([means - low, high - means], 0, None)
    style: dict[str, Any] = {"fmt": MARKS[number % len(MARKS)], "markersize": 4, "color": f"C{number}", "capsize": 2}
    style |= {"linewidth": 1, "label": NAMES.get(label, label)}
    if across:
        axes.errorbar(means, places, xerr=error, **style)
    else:
        axes.errorbar(places, means, yerr=error, **style)
