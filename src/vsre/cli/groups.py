"""What groups of verbs share: a default verb, and one that shows presets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from vsre.cli.output import console, key_table, write_json

if TYPE_CHECKING:
    from vsre.presets import Config, Presets

PresetName = Annotated[str | None, typer.Argument(help="A preset or YAML file to show in full, with sources.")]


class RunsByDefault(TyperGroup):
    """`vsre verify TRIPLETS` is `vsre verify run TRIPLETS`; write a folder named like a verb as "./presets"."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


def running_group(help: str) -> typer.Typer:
    """A group whose default verb is `run`."""
    return typer.Typer(cls=RunsByDefault, no_args_is_help=True, help=help, rich_markup_mode="markdown")


def show_presets(
    presets: Presets[Config],
    name: str | None,
    json_file: Path | None,
    *,
    head: tuple[str, ...],
    cells: Callable[[Config], Iterable[str]],
    notes: Iterable[str],
) -> None:
    """Print one preset or YAML file, or a table of all presets: name and `cells` under `head`, then `notes`."""
    if name is not None:
        shown = presets.load(name).model_dump(mode="json", exclude_none=True)
        key_table(name, shown)
        return write_json(json_file, shown)
    configs = {preset: presets.load(preset) for preset in presets.names()}
    table = Table(*head)
    for preset, config in configs.items():
        table.add_row(*map(escape, (preset, *cells(config))))
    console.print(table)
    for note in notes:
        console.print(note)
    write_json(
        json_file, {preset: config.model_dump(mode="json", exclude_none=True) for preset, config in configs.items()}
    )
    return None
