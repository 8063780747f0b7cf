"""What the verbs print for people and write for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vsre.files import write_aside

console = Console()
errors = Console(stderr=True)

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures to FILE, for programs.")
]


def write_json(path: Path | None, figures: Any) -> None:
    """Write what was printed as JSON, if a path was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, json.dumps(figures, indent=1, default=str, sort_keys=False) + "\n")


def key_table(title: str, values: Mapping[str, Any]) -> None:
    """Print a two-column table; nested mappings become dotted keys, text from data is printed as is."""
    console.print(f"[bold]{escape(title)}[/]", highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2))
    for key, value in _flat(values):
        table.add_row(escape(key), escape(_show(value)))
    console.print(table)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value and len(value) <= 40:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _show(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_show(v) for v in value)
    return str(value)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[..., None]]:
    """A bar with the time left, on stderr; the callable takes the number done and, if known, the total."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)
