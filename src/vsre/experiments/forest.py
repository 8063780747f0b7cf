"""A forest plot of what is tested: each difference or effect with its 95 % interval, against the line of no effect."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vsre.experiments.contrasts import statements
from vsre.report.seeds import TESTED

LETTERS = 46
"""Most letters per line of a row's name."""
MARKS = "osD"

Row = Mapping[str, Any]


def forest(kind: str, figures: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[list[Row]]]:
    """Return the names of the rows from top to bottom, and for each figure (test_g.acc_t, ...) its rows.

    A row that a figure lacks is missing from that figure's list; a name that no figure has is left out.
    """
    titles = [TESTED[figure.split(".")[0]] for figure in figures]
    mine = [row for row in rows if row["figure"] in titles]
    names = [*dict.fromkeys(named(kind, row) for row in mine)]
    return names, [[row for row in mine if row["figure"] == title] for title in titles]


def named(kind: str, row: Row) -> str:
    """Return a row's name, wrapped at LETTERS: the effect, or the two arms and the statements they are compared on."""
    if kind == "effects":
        return wrapped(row["effect"], LETTERS)
    about = statements(row["relations"], row["but"], row["trained"])
    return wrapped(f"{row['before']} → {row['after']}" + (f", on {about}" if about else ""), LETTERS)


def wrapped(name: str, letters: int) -> str:
    """Wrap a name at so many letters, with $ escaped, which would start a formula in matplotlib."""
    return textwrap.fill(name, letters).replace("$", r"\$")


def draw_forest(kind: str, figures: Sequence[str], rows: Sequence[Row], axes: Any) -> list[str]:
    """Draw the rows in percentage points; return their names from top to bottom, or [] if there are none.

    Bars are the 95 % intervals of the report's table: over seeds if there are several, else over test pictures; those
    of effects always from the linear model's residuals. Primary rows are filled, secondary ones hollow.
    """
    names, by_figure = forest(kind, figures, rows)
    told: set[str] = set()
    for number, some in enumerate(by_figure):
        shift = 0.5 / len(figures) * (number - (len(figures) - 1) / 2)
        for row in some:
            low, high = (row["low"], row["high"]) if row["low"] is not None else row["pictures"]
            value, low, high = 100 * row["value"], 100 * low, 100 * high
            error = np.clip([[value - low], [high - value]], 0, None)  # a skewed bootstrap may exclude the estimate
            style: dict[str, Any] = {"fmt": MARKS[number % len(MARKS)], "markersize": 4, "capsize": 2, "linewidth": 1}
            style["markerfacecolor"] = f"C{number}" if row["primary"] else "white"
            label = row["figure"] + ("" if row["primary"] else ", secondary")
            style["label"] = "_" if label in told else label
            told.add(label)
            axes.errorbar(value, names.index(named(kind, row)) + shift, xerr=error, color=f"C{number}", **style)
    axes.axvline(0, color="grey", linewidth=0.8, linestyle=":", zorder=0)
    return names
