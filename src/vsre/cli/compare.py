"""Verbs that set runs side by side: compare, leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsre.cli.output import JsonFile, console, write_json


def register(app: typer.Typer) -> None:
    app.command()(compare)
    app.command()(leaderboard)


def compare(
    a: Annotated[Path, typer.Argument(help="A run folder of `vsre diagnose`: the baseline.")],
    b: Annotated[Path, typer.Argument(help="Another run folder, on the same triplets and packs.")],
    pack: Annotated[
        str | None, typer.Option(help="The pack for the tables by relation and category; default: pool, or all.")
    ] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="Print every relation and wording.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all tables to FILE, as Markdown.")
    ] = None,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Compare two runs on the questions both answered: how much they differ, and whether the sample can show it.

    Images are the unit of resampling. Tables are corrected for multiple comparisons; every row states the smallest
    difference that its sample could have shown.
    """
    from vsre.report.paired import compare_runs
    from vsre.report.paired_text import comparison_markdown, console_parts

    found = compare_runs(a, b, pack=pack, seed=seed)
    for part in console_parts(found, full=all_rows, width=console.width):
        console.print(part)
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(comparison_markdown(found), encoding="utf-8")
    write_json(json_file, found.as_json())


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `vsre diagnose`, on any test data.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("leaderboard.html"),
    by: Annotated[str, typer.Option(help="Rank by test_s, test_g or unseen.")] = "test_g",
    title: str = "Leaderboard",
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Write one self-contained page on many runs, ranked as far as the sample allows.

    Runs on different test data are never ranked against each other; the paper's figures are listed separately, as
    published.
    """
    from vsre.report.leaderboard import make_leaderboard
    from vsre.report.leaderboard_page import console_parts, write_leaderboard

    board = make_leaderboard(runs, by=by, seed=seed)
    for part in console_parts(board, width=console.width):
        console.print(part)
    path = write_leaderboard(out, board, title=title)
    console.print(f"leaderboard: {path}", highlight=False, soft_wrap=True)
    write_json(json_file, board.as_json())
