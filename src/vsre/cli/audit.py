"""The verb that compares training and test data: audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vsre.cli.output import JsonFile, console, progress_bar, write_json

_LISTS = ("--train", "--test", "--images", "-i", "--test-images")


class _Lists(TyperCommand):
    """Let an option take several values: `--train A B` is `--train A --train B`. There are no positional arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


def spread(arguments: Sequence[str]) -> list[str]:
    """The command line with the option repeated before each value of a list."""
    out: list[str] = []
    option, values = "", 0
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            option, values = (argument if argument in _LISTS else ""), 0
        elif option:
            if values:
                out.append(option)
            values += 1
        out.append(argument)
    return out


def register(app: typer.Typer) -> None:
    app.command(cls=_Lists)(audit)


def audit(
    train: Annotated[
        list[Path], typer.Option("--train", metavar="FILE...", help="Training data: VSR JSONL, triplets or questions.")
    ],
    test: Annotated[list[Path], typer.Option("--test", metavar="FILE...", help="Test data, in the same formats.")],
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", "-i", metavar="FOLDER...", help="Pictures that the files name; Parquet has its own."),
    ] = None,
    test_images: Annotated[
        list[Path] | None,
        typer.Option("--test-images", metavar="FOLDER...", help="The test pictures, if they are elsewhere."),
    ] = None,
    near: Annotated[bool, typer.Option(help="Look for near copies of pictures; decodes each once.")] = True,
    write_clean: Annotated[
        Path | None,
        typer.Option("--write-clean", metavar="FILE", help="Write the clean test rows: FILE.jsonl or FILE.parquet."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if there is a leak, for CI.")] = False,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Check training and test data for leaks, and measure blind floors and label noise."""
    from vsre.audit import audit as run
    from vsre.audit.clean import check_clean
    from vsre.audit.rows import side_files
    from vsre.audit.show import show

    if write_clean is not None:
        check_clean(write_clean, side_files("test", test))
    with progress_bar("pictures") as tick:
        found = run(
            train, test, images=images or (), test_images=test_images or (), near=near, seed=seed, progress=tick
        )
    console.print(show(found.figures))
    write_json(json_file, found.figures)
    if write_clean is not None:
        console.print(f"{found.write_clean(write_clean):,} clean rows in {write_clean}", markup=False, highlight=False)
    if strict and found.leaks:
        raise typer.Exit(1)
