"""A comparison of two runs as console tables and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from vsre.report.compare import signed
from vsre.report.comparison import TITLES, Comparison, Contrast
from vsre.report.paired_tests import ALPHA
from vsre.report.results import DASH, markdown_name
from vsre.report.text import clean

_WIDE = 110
"""From this many console columns, an interval is placed next to its figure, not below it."""

_SHOWN = 15
"""How many rows of a long table are shown on a console."""

_ABOUT = (
    "In %, differences in points, in brackets 95 % (paired bootstrap over images). p: sign-flip test over images; "
    "Holm: corrected for the rows of the table; the verdict uses it; q (if there is room): false discovery rate "
    "(Benjamini and Hochberg). Shows from: the smallest true difference that a sample like this shows 4 times out of "
    "5, alone and (in parentheses) after the correction, given how often the two disagree here and how correlated "
    "answers about one picture are. “Not told apart” does not mean equal: there may well be differences below that."
)
_MCNEMAR = (
    "McNemar's test (exact, mid-p) counts statements as independent. Those about one picture are not, so it calls too "
    "much significant; it is given for comparison with others' tables. Use p."
)


@dataclass(frozen=True)
class Section:
    """A table as text: its title, what to know about it, its columns and rows; the first column is text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    about: str = ""


def found(c: Comparison) -> list[str]:
    """Return one sentence per headline figure: what this sample shows, or what it could have shown."""
    lines = []
    for row in c.tables["overall"]:
        change = f"{signed(row.difference)} points{_interval(row)}"
        if row.verdict != "not told apart":
            lines.append(f"{row.name}: {row.verdict}, {change}, p {_p(row.p_holm)} after Holm's correction.")
        elif row.detectable_corrected is None:
            lines.append(f"{row.name}: not told apart ({change}), and a sample like this could show no difference.")
        else:
            least = f"{100 * row.detectable_corrected:.1f}"
            lines.append(
                f"{row.name}: not told apart ({change}). A sample like this shows {least} points or more 4 times out "
                "of 5; smaller differences may be there."
            )
    return lines


def lost(c: Comparison) -> list[str]:
    """Return what was left out, in words."""
    sides = (("a", f"of A ({c.a})"), ("b", f"of B ({c.b})"), ("both", "asked of both"))
    return [
        f"left out {who}: " + ", ".join(f"{n:,} {reason}" for reason, n in counts.items())
        for side, who in sides
        if (counts := c.left_out.get(side))
    ]


def sections(c: Comparison, *, full: bool = True) -> list[Section]:
    """Return the tables; with `full` false, the long ones have only rows that are told apart."""
    over = "all wordings" if c.grouped_over is None else f"the wordings of {TITLES.get(c.grouped_over, c.grouped_over)}"
    made = [
        _contrasts("Overall", c.tables["overall"], _ABOUT),
        _contrasts(f"By meta category, over {over}", c.tables["meta_category"]),
        _cut(f"By relation, over {over}", c.tables["relation"], full),
        _cut("By wording", c.tables["template"], full, mcnemar=True),
        Section(
            "Agreement",
            ("", "questions", "same answer", "both right", "A alone", "B alone", "both wrong", "error consistency"),
            [
                (
                    r.name,
                    f"{r.questions:,}",
                    _percent(r.same) + ("" if r.low is None else f" [{_percent(r.low)}, {_percent(r.high)}]"),
                    *(f"{n:,}" for n in (r.both_right, r.a_only, r.b_only, r.both_wrong)),
                    DASH if r.kappa is None else f"{r.kappa:.2f}".replace("-", "−"),
                )
                for r in c.agreement
            ],
            "Same answer: both yes or both no. Error consistency (Cohen's kappa of right and wrong): 0 if two "
            "models err together as often as by chance, 1 if they err on the same questions.",
        ),
        Section(
            "Besides accuracy",
            ("", "A", "B", "B − A"),
            [(r.name, _percent(r.a), _percent(r.b), DASH if r.difference is None else _change(r)) for r in c.beside],
            "A difference in acc_t may come from answers that could not be read, or from leaning towards yes or no. "
            "Not corrected.",
        ),
    ]
    for side, title in (("b_right", "Statements that B gained most on"), ("a_right", "Statements that B lost most on")):
        rows = [
            (s.caption or s.key, "true" if s.truth else "false", f"{s.a_right} of {s.wordings}", f"{s.b_right}", s.key)
            for s in c.swings[side]
        ]
        made.append(
            Section(title, ("statement", "it is", "A right", "B right", "key"), rows, "The extremes, not typical.")
        )
    return [section for section in made if section.rows or section.about]


def _cut(title: str, rows: Sequence[Contrast], full: bool, *, mcnemar: bool = False) -> Section:
    """Return a long table whole, or only its rows that are told apart, largest difference first."""
    if full:
        return _contrasts(title, rows, _MCNEMAR if mcnemar else "", mcnemar=mcnemar)
    apart = sorted((r for r in rows if r.p_holm < ALPHA), key=lambda r: -abs(r.difference))
    least = min((r.detectable_corrected for r in rows if r.detectable_corrected is not None), default=None)
    told = f"{len(apart)} of {len(rows)} rows are told apart after Holm's correction"
    told += f", the first {_SHOWN} are shown" if len(apart) > _SHOWN else ""
    best = "" if least is None else f"; no row's sample could show a difference below {100 * least:.1f} points"
    about = f"{told}{best}. All rows: --all, --markdown, --json."
    if mcnemar and apart:
        about += f" {_MCNEMAR}"
    return _without(_contrasts(title, apart[:_SHOWN], about, mcnemar=mcnemar), "McNemar exact", "q")


def _without(section: Section, *columns: str) -> Section:
    keep = [i for i, name in enumerate(section.columns) if name not in columns]
    rows = [[row[i] for i in keep] for row in section.rows]
    return Section(section.title, [section.columns[i] for i in keep], rows, section.about)


def _contrasts(title: str, rows: Sequence[Contrast], about: str = "", *, mcnemar: bool = False) -> Section:
    columns = ["", "n", "A", "B", "B − A", "p", "Holm", "q", "shows from", "verdict"]
    columns[5:5] = ["McNemar exact", "mid-p"] if mcnemar else []
    often = Counter(r.name for r in rows)
    table = []
    for r in rows:
        least = DASH if r.detectable is None else f"{100 * r.detectable:.1f}"
        corrected = DASH if r.detectable_corrected is None else f"{100 * r.detectable_corrected:.1f}"
        cells = [
            r.name if often[r.name] == 1 else f"{r.pack}: {r.name}",
            f"{r.statements:,}/{r.images:,}",
            _percent(r.a),
            _percent(r.b),
            _change(r),
            _p(r.p),
            _p(r.p_holm),
            _p(r.q_bh),
            f"{least} ({corrected})",
            r.verdict,
        ]
        if mcnemar:
            cells[5:5] = [DASH if p is None else _p(p) for p in (r.mcnemar, r.mcnemar_mid)]
        table.append(cells)
    return Section(title, columns, table, about)


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def _interval(r: object) -> str:
    low, high = getattr(r, "low", None), getattr(r, "high", None)
    return "" if low is None or high is None else f" [{signed(low)}, {signed(high)}]"


def _change(r: object) -> str:
    return signed(getattr(r, "difference", 0.0)) + _interval(r)


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 0.9995 else "1"


def console_parts(c: Comparison, *, full: bool = False, width: int = _WIDE) -> Iterator[RenderableType]:
    """Yield what the command prints, top to bottom, for `width` columns; text from data is shown as it is."""
    yield Text.assemble(("A ", "bold"), clean(c.a), ("   B ", "bold"), clean(c.b))
    yield Text(_counted(c))
    for line in lost(c):
        yield Text(line, style="yellow")
    for note in c.notes:
        yield Text(clean(note, 1000), style="yellow")
    for line in found(c):
        yield Text(line, style="bold")
    for section in sections(c, full=full):
        table = Table(
            title=section.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
        )
        if width < _WIDE:
            section = _without(section, "q")
        for i, name in enumerate(section.columns):
            text = i == 0 or name == "verdict"
            table.add_column(name, justify="left" if text else "right", overflow="fold")
        for row in section.rows:
            first, *rest = map(clean, row)
            if width < _WIDE:  # an interval below its figure
                rest = [cell.replace(" [", "\n[").replace(" (", "\n(") for cell in rest]
            table.add_row(Text(first), *map(Text, rest))
        yield table if section.rows else Text(f"\n{section.title}", style="italic")
        if section.about:
            yield Text(section.about, style="dim")


def _counted(c: Comparison) -> str:
    return (
        f"Both answered {c.questions:,} questions: {c.statements:,} statements about {c.images:,} images "
        "(n: statements/images)."
    )


def comparison_markdown(c: Comparison) -> str:
    """Return all tables as GitHub Markdown."""
    lines = [f"# {_cell(c.b)} (B) against {_cell(c.a)} (A)", "", _counted(c)]
    for line in (*lost(c), *c.notes):
        lines += ["", f"> {_cell(line)}"]
    lines += ["", *(f"- {_cell(line)}" for line in found(c))]
    for section in sections(c):
        lines += ["", f"## {section.title}", ""]
        if section.rows:
            lines.append("| " + " | ".join(section.columns) + " |")
            lines.append("|---|" + "---:|" * (len(section.columns) - 1))
            lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in section.rows]
        lines += ["", section.about] if section.about else []
    lines += ["", f"Seed {c.seed}, {c.resamples:,} resamples of images."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return markdown_name(clean(text, 1000))
