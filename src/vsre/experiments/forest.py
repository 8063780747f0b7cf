"""A forest plot of what is tested: each difference or effect as a point with its 95 %, beside the line of no effect."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vsre.experiments.contrasts import statements
from vsre.report.seeds import TESTED

LETTERS = 46
"""Letters in a line of a row's name."""
MARKS = "osD"

Row = Mapping[str, Any]


def forest(kind: str, figures: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[list[Row]]]:
    """What is drawn: names from top to bottom, and of each figure (test_g.acc_t, ...) its rows in that order.

    A row that a figure lacks is left out of that figure's list; names without any are left out wholly.
    """
    titles = [TESTED[figure.split(".")[0]] for figure in figures]
    mine = [row for row in rows if row["figure"] in titles]
    names = [*dict.fromkeys(named(kind, row) for row in mine)]
    return names, [[row for row in mine if row["figure"] == title] for title in titles]


def named(kind: str, row: Row) -> str:
    """A row's name: an effect's, or two arms and the statements they are compared on; in lines of LETTERS letters."""
    if kind == "effects":
        return wrapped(row["effect"], LETTERS)
    about = statements(row["relations"], row["but"], row["trained"])
    return wrapped(f"{row['before']} → {row['after']}" + (f", on {about}" if about else ""), LETTERS)


def wrapped(name: str, letters: int) -> str:
    """A name in lines of so many letters, as matplotlib draws it word for word: a $ begins no formula."""
    return textwrap.fill(name, letters).replace("$", r"\$")


def draw_forest(kind: str, figures: Sequence[str], rows: Sequence[Row], axes: Any) -> list[str]:
    """Draw the rows in percentage points; returns the names, from top to bottom, or [] where there is none.

    A bar is 95 % as the report's table has it: over seeds where there are several, else over test pictures; an
    effect's always by what the linear model leaves. What decides is filled, what was looked at beside is hollow.
    """
    names, by_figure = forest(kind, figures, rows)
    told: set[str] = set()
    for number, some in enumerate(by_figure):
        shift = 0.5 / len(figures) * (number - (len(figures) - 1) / 2)
        for row in some:
            low, high = (row["low"], row["high"]) if row["low"] is not None else row["pictures"]
            value, low, high = 100 * row["value"], 100 * low, 100 * high
            error = np.clip([[value - low], [high - value]], 0, None)  # a skewed bootstrap may leave its figure out
            style: dict[str, Any] = {"fmt": MARKS[number % len(MARKS)], "markersize": 4, "capsize": 2, "linewidth": 1}
            style["markerfacecolor"] = f"C{number}" if row["decides"] else "white"
            label = row["figure"] + ("" if row["decides"] else ", looked at beside")
            style["label"] = "_" if label in told else label
            told.add(label)
            axes.errorbar(value, names.index(named(kind, row)) + shift, xerr=error, color=f"C{number}", **style)
    axes.axvline(0, color="grey", linewidth=0.8, linestyle=":", zorder=0)
    return names
