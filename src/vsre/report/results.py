"""The result table: one row per model, then the blind floor and chance; for the page, a console, Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from vsre.report.also import also_json
from vsre.report.compare import blind_floor
from vsre.report.inputs import Estimate, ReportRun, Run, open_run
from vsre.report.text import clean

DASH = "–"


@dataclass(frozen=True)
class Column:
    """A figure of the result table: its place in metrics.json and how it is written."""

    title: str
    about: str
    path: tuple[str, ...]
    scale: float = 100.0
    digits: int = 1
    floor: bool = False
    chance: float | None = None

    def of(self, run: Run) -> Estimate:
        return run.estimate(*self.path)

    def number(self, value: float | None) -> str:
        return DASH if value is None else f"{self.scale * value:.{self.digits}f}".replace("-", "−")

    def interval(self, e: Estimate) -> str:
        return "" if e.low is None else f"[{self.number(e.low)}, {self.number(e.high)}]"

    def short_interval(self, e: Estimate) -> str:
        """Return the interval with one digit fewer and no brackets, so that the table fits 80 columns: "48–53"."""
        if e.low is None or e.high is None:
            return ""
        low, high = (f"{self.scale * v:.{self.digits - 1}f}".replace("-", "−") for v in (e.low, e.high))
        return f"{low}–{high}"


COLUMNS = (
    Column("Test-S", "one fixed wording", ("test_s", "acc_t"), floor=True, chance=0.5),
    Column("Test-G", "mean over all wordings of the pool", ("test_g", "acc_t"), floor=True, chance=0.5),
    Column("Unseen", "wordings never trained on", ("unseen", "acc_t"), floor=True, chance=0.5),
    Column("Yes/no gap", "accuracy on true against false; 0 is best", ("bias",), chance=0.0),
    Column("Answered", "answers that can be read", ("answered",)),
    Column("Consistency", "pairs of wordings that agree", ("consistency", "pairwise")),
    Column("AUROC", "0.5 is blind, 1 perfect", ("auroc",), scale=1, digits=3, chance=0.5),
)


NON_SPATIAL = Column("Non-spatial", "is there a cat? a cat or a dog? on other scenes", ("general", "acc_t"))
"""Shown if some run measured it (a recipe's diagnose.general)."""


def columns(runs: Sequence[Run]) -> tuple[Column, ...]:
    """Return the columns of the table of these runs."""
    return (*COLUMNS, NON_SPATIAL) if any(NON_SPATIAL.of(run).value is not None for run in runs) else COLUMNS


@dataclass(frozen=True)
class Cell:
    """One figure as text: the number, its interval, and its n if the column does not share one."""

    number: str
    interval: str = ""
    n: str = ""
    why: str = ""
    short: str = ""


@dataclass(frozen=True)
class Row:
    name: str
    kind: str
    note: str
    cells: tuple[Cell, ...]


def shared_n(column: Column, runs: Sequence[Run]) -> int | None:
    """Return the n that every model has in a column, to be shown once; None if they differ."""
    found = {column.of(run).n for run in runs}
    return found.pop() if len(found) == 1 else None


def _cell(column: Column, run: Run, *, say_n: bool) -> Cell:
    e = column.of(run)
    if e.value is None:
        return Cell(DASH, why=missing_reason(run, column))
    n = f"n {e.n:,}" if say_n and e.n is not None else ""
    return Cell(column.number(e.value), column.interval(e), n, short=column.short_interval(e))


def missing_reason(run: Run, column: Column) -> str:
    """Return why a figure is absent if the run says so; otherwise that it was not measured."""
    reason = run.section("missing").get(column.path[0])
    return reason if isinstance(reason, str) else "not measured"


def rows(runs: Sequence[Run]) -> list[Row]:
    """Return the models in order, then what needs no picture: the blind floor of the same test, and chance."""
    shown = columns(runs)
    shared = [shared_n(c, runs) for c in shown]
    table = [
        Row(
            run.name,
            run.spec.role,
            run.spec.note,
            tuple(_cell(c, run, say_n=n is None) for c, n in zip(shown, shared, strict=True)),
        )
        for run in runs
    ]
    if runs:
        found = [blind_floor(run) for run in runs]
        name, floor = next((pair for pair in found if pair[1].value is not None), found[0])
        cells = (
            Cell(c.number(floor.value), c.interval(floor), short=c.short_interval(floor)) if c.floor else Cell("")
            for c in shown
        )
        table.append(Row("Blind floor", "floor", f"no picture; uses {name}", tuple(cells)))
    chance = (Cell("" if c.chance is None else c.number(c.chance)) for c in shown)
    table.append(Row("Chance", "chance", "a fair coin", tuple(chance)))
    return table


def more(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per model of what the result table has no room for, as text."""
    plain = Column("", "", (), scale=1, digits=2)
    table = []
    for run in runs:
        spread = run.section("test_g").get("acc_t_over_templates") or {}
        edges = [COLUMNS[0].number(Estimate.of(spread.get(k)).value) for k in ("min", "max")]
        figures = {
            "d′": (plain, run.estimate("dprime")),
            "criterion (above 0: leans to no)": (plain, run.estimate("criterion")),
            "yes less no accuracy": (COLUMNS[0], run.estimate("signed_bias")),
            "Test-S on blank pictures": (COLUMNS[0], run.estimate("blank", "acc_t")),
            "all wordings agree": (COLUMNS[0], run.estimate("consistency", "all_agree")),
        }
        if figures["Test-S on blank pictures"][1].value is None:
            del figures["Test-S on blank pictures"]
        cells = {name: f"{c.number(e.value)} {c.interval(e)}".strip() for name, (c, e) in figures.items()}
        table.append({"model": run.name, **cells, "lowest and highest wording": " to ".join(edges)})
    return table


def _loaded(runs: Sequence[ReportRun | Run]) -> list[Run]:
    return [run if isinstance(run, Run) else open_run(run) for run in runs]


def result_table(runs: Sequence[ReportRun | Run], *, title: str = "Result") -> Table:
    """Return the result table for a console: number above interval, every model, the blind floor, chance."""
    loaded = _loaded(runs)
    table = Table(
        title=title,
        caption=_caption(loaded),
        caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("Model", min_width=8)
    for column in columns(loaded):
        table.add_column(column.title, justify="right")
    for row in rows(loaded):
        cells = ["\n".join(filter(None, (c.number, c.short, c.n))) for c in row.cells]
        table.add_row(Text(clean(row.name)), *cells, style="dim" if row.kind in ("floor", "chance") else None)
    return table


def markdown_table(runs: Sequence[ReportRun | Run]) -> str:
    """Return the result table as GitHub Markdown, each figure with its interval, for a README or a model card."""
    loaded = _loaded(runs)
    titles = [c.title for c in columns(loaded)]
    lines = ["| Model | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for row in rows(loaded):
        cells = [" ".join(filter(None, (c.number, c.interval, c.n))) for c in row.cells]
        lines.append(f"| {markdown_name(row.name)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _caption(loaded)]) + "\n"


def markdown_name(name: str) -> str:
    """Escape a model's name for a Markdown table."""
    return clean(name).replace("|", "\\|").replace("<", "&lt;")


def _caption(runs: Sequence[Run]) -> str:
    counts = [f"{c.title} n {n:,}" for c in columns(runs) if (n := shared_n(c, runs)) is not None]
    about = "Accuracies, gap, answered and consistency in %, with 95 % intervals (bootstrap over images)."
    return " ".join([about, *(["; ".join(counts) + "."] if counts else [])])


def as_json(runs: Sequence[ReportRun | Run]) -> list[dict[str, Any]]:
    """Return the same figures for programs: one object per model, fractions, null if unknown."""
    loaded = _loaded(runs)
    return [
        {
            "model": run.name,
            "role": run.spec.role,
            **{c.title: {k: getattr(c.of(run), k) for k in ("value", "low", "high", "n")} for c in columns(loaded)},
            **({"also": also} if (also := also_json(run)) else {}),
        }
        for run in loaded
    ]
