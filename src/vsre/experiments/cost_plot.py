"""Accuracy against what it costs: a panel for visual tokens, encoder parameters, milliseconds and training hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vsre.experiments.forest import wrapped

PANELS = {
    "cost.visual_tokens": ("visual tokens", 1.0),
    "cost.encoders": ("million parameters of encoders", 1e-6),
    "cost.ms_image": ("ms per image, with other runs alongside", 1.0),
    "cost.train_seconds": ("training hours, with other runs alongside", 1 / 3600),
}
"""For each figure of cost.py the label of its axis, and what it is multiplied by."""
LETTERS = 34
"""Most letters per line of an arm's name."""

Row = Mapping[str, Any]


def points(rows: Sequence[Row], cost: str, title: str) -> list[tuple[int, float, float, float, float]]:
    """Return (number of the arm from 1, cost, accuracy in %, low, high) for the arms that have both figures.

    Bounds are over seeds if there are several, else over test pictures.
    """
    found = []
    for number, row in enumerate(rows, 1):
        figure, paid = row.get(title), row.get(cost)
        if figure is None or paid is None:
            continue
        bounds = (figure["low"], figure["high"]) if figure.get("low") is not None else figure.get("pictures")
        low, high = bounds or (np.nan, np.nan)
        found.append((number, PANELS[cost][1] * paid["value"], *(100 * v for v in (figure["value"], low, high))))
    return found


def draw_cost(rows: Sequence[Row], figure: str, title: str, path: Path) -> bool:
    """Draw `figure` ("Test-G") of all arms against each cost, numbered as in the legend; False if there is none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = {cost: some for cost in PANELS if len(some := points(rows, cost, figure)) > 1}
    if not panels:
        return False
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    drawing = Figure(figsize=(1.8 + 3.6 * across, max(3.4 * down, 1 + 0.17 * len(rows))), layout="constrained")
    FigureCanvasAgg(drawing)
    grid = np.atleast_1d(drawing.subplots(down, across, sharey=True)).ravel()
    for axes, (cost, some) in zip(grid, panels.items(), strict=False):
        _, paid, reached, low, high = np.array(some).T
        error = np.clip([reached - low, high - reached], 0, None)
        axes.errorbar(paid, reached, yerr=error, fmt="none", ecolor="C0", elinewidth=0.8, alpha=0.5)
        axes.plot(paid, reached, "o", color="white", markeredgecolor="C0", markersize=10)
        for number, x, y, *_ in some:
            axes.annotate(str(number), (x, y), ha="center", va="center", fontsize=6)
        axes.set_xlabel(PANELS[cost][0], fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[::across]:
        axes.set_ylabel(f"{figure} in %", fontsize=8)
    drawing.suptitle(title.replace("$", r"\$"), fontsize=10)
    named = [wrapped(f"{number} {row['arm']}", LETTERS) for number, row in enumerate(rows, 1)]
    handles = [Line2D([], [], linestyle="", label=name) for name in named]
    drawing.legend(handles=handles, loc="outside right upper", fontsize=7, handlelength=0, frameon=False)
    drawing.savefig(path, dpi=130)
    return True
