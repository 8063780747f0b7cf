"""Sub-verbs of repaint that look at what was painted: statistics, spot-check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, write_json

Painted = Annotated[Path, typer.Argument(help="The folder of a repaint, with its ledger.")]


def statistics(
    out: Painted,
    examples: Annotated[int, typer.Option(help="Pictures to show of each setting and outcome.")] = 6,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Count how often pictures show what was asked for, by setting, relation, class and numbers;
    OUT/statistics.html."""
    from vsre.rates import share_text
    from vsre.repaint.statistics_page import write_statistics

    figures = write_statistics(out, examples=examples, seed=seed)
    table = Table("", "jobs", "pictures", "kept", "things found", "relation holds", "relation open")
    for name, found in ({"all": figures["all"]} | figures["setting"]).items():
        rates = (share_text(found[rate]) for rate in ("kept", "things_found", "relation_holds", "relation_open"))
        table.add_row(name, f"{found['jobs']:,}", f"{found['pictures']:,}", *rates)
    console.print(table)
    for status, reasons in figures["reasons"].items():
        for reason, n in reasons.items():
            console.print(f"{status} {n:,} times: {escape(reason)}", highlight=False)
    console.print(f"by relation, class and numbers, with pictures: {out / 'statistics.html'}", highlight=False)
    write_json(json_file, figures)


def spot_check(
    out: Painted,
    marks: Annotated[Path | None, typer.Option(help="Marks saved from the page: print the confusion matrix.")] = None,
    statements: Annotated[int, typer.Option(help="Statements on the page.")] = 60,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Write a page for marking statements true or false; with --marks, print the verifier's confusion matrix."""
    from vsre.rates import share_text
    from vsre.repaint.spot_check import score_marks, write_spot_check

    if marks is None:
        page = write_spot_check(out, statements=statements, seed=seed)
        console.print(f"open {page} in a browser, mark, save, then pass the file to --marks", highlight=False)
        return write_json(json_file, {"page": str(page)})
    found: dict[str, Any] = score_marks(out, marks)
    table = Table("verdict", "marked true", "marked false", "cannot tell")
    for verdict, row in found["matrix"].items():
        table.add_row(verdict.upper(), *(str(n) for n in row.values()))
    console.print(table)
    console.print(f"{found['marked']} of {found['of']} marked", highlight=False)
    for name in ("pass_is_true", "fail_is_false", "missing_is_false"):
        console.print(f"{name.replace('_', ' ')}: {share_text(found[name])}", highlight=False)
    if found["set_is_true"] is not None:
        console.print(f"true among the whole set's statements, weighted: {found['set_is_true']:.1%}", highlight=False)
    return write_json(json_file, found)
