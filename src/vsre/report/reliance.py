"""What answers depend on, for people: one sentence per model, and a table of the probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from vsre.report.compare import signed
from vsre.report.inputs import Run
from vsre.report.text import clean

_ROWS = {
    ("acc_t", "base"): "right, with its picture",
    ("acc_t", "blank"): "right, with a grey frame instead",
    ("acc_t", "other"): "right, with another row's picture",
    ("acc_t", "words"): "right, without a picture (its language model)",
    ("gain", "blank"): "gained by the picture, over the grey frame",
    ("gain", "other"): "gained by the picture, over another one",
    ("gain", "words"): "gained by the picture, over none at all",
    ("kept", "blank"): "answers kept without the picture",
    ("kept", "other"): "answers kept under another picture",
    ("follows", "left and right in the mirror"): "mirrored: left and right turn",
    ("follows", "left and right in mirror and words"): "mirrored in words too: left and right stay",
    ("follows", "anything else in the mirror"): "mirrored: anything else stays",
    ("follows", "the inverse"): "said from the other side: stays",
    ("follows", "symmetric, swapped"): "symmetric relations, things exchanged: stays",
    ("follows", "one-way, swapped"): "one-way relations, things exchanged: turns",
    ("follows", "the opposite"): "exclusive opposite: turns",
    ("follows", "the denial"): "denial: turns",
    ("contradiction", "opposite"): "contradiction: a statement and its opposite both affirmed",
    ("contradiction", "negated"): "contradiction: a statement and its denial both affirmed",
}
"""Each figure of `vsre.diagnose.reliance` in words; shares of "stays" and "turns" are of the pairs that call for it."""


def reliance_line(run: Run) -> str | None:
    """Return one sentence on how much the picture adds; None if no probes were asked."""
    found = run.metrics.get("picture_reliance")
    gain = (found or {}).get("gain", {}).get("blank")
    if not found or gain is None or gain["value"] is None:
        return None
    right, blank = (100 * found["acc_t"][name]["value"] for name in ("base", "blank"))
    text = f"right {right:.1f} % of the time with the picture, {blank:.1f} % with a grey frame in its place"
    if gain["low"] is None:
        return text + "."
    interval = f"[{signed(gain['low'])}, {signed(gain['high'])}]"
    if gain["low"] > 0:
        return f"{text}: it looks, which gains {signed(gain['value'])} points {interval}."
    if gain["high"] < 0:
        return f"{text}: the picture misleads it, {signed(gain['value'])} points {interval}."
    told = f"{signed(gain['value'])} points {interval}, {found['n_triplets']:,} statements"
    return f"{text}: no sign that it looks ({told})."


def reliance_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Return one row per figure, one column per model: in %, the interval in brackets, then what chance gives."""
    probed = [run for run in runs if run.metrics.get("picture_reliance")]
    table = []
    for (group, name), title in _ROWS.items():
        figures = {run.name: run.metrics["picture_reliance"].get(group, {}).get(name) for run in probed}
        if any(figures.values()):
            table.append({"probe": title} | {run: _cell(group, figure) for run, figure in figures.items()})
    return table


def _cell(group: str, figure: dict[str, Any] | None) -> str:
    if not figure or figure["value"] is None:
        return "–"
    number = signed if group == "gain" else lambda v: f"{100 * v:.1f}"
    text = str(number(figure["value"]))
    if figure["low"] is not None:
        text += f" [{number(figure['low'])}, {number(figure['high'])}]"
    return text + (f", chance {100 * figure['by_chance']:.0f}" if "by_chance" in figure else "")


def likelihood_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Return acc_t of the answers given and of the likelier option, by headline; one row per model."""
    table = []
    for run in runs:
        found = run.metrics.get("likelihood") or {}
        row = {"model": run.name}
        for headline, title in (("test_s", "Test-S"), ("test_g", "Test-G"), ("unseen", "Unseen")):
            said = run.estimate(headline, "acc_t").value
            if said is None:
                continue
            row[f"{title}, said"] = f"{100 * said:.1f}"
            for kind, name in (("sum", "likelier"), ("mean", "likelier a token")):
                figure = found.get(kind, {}).get(headline)
                row[f"{title}, {name}"] = "–" if not figure else _cell("acc_t", figure)
        if found:
            table.append(row)
    return table


def reliance_table(run: Run) -> Table | None:
    """Return the probes of one model as a console table."""
    rows = reliance_rows([run])
    if not rows:
        return None
    table = Table(
        "probe", "%", title="What the answers depend on", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    for row in rows:
        table.add_row(row["probe"], Text(clean(row[run.name])))
    return table
