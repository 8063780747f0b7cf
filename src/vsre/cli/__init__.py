"""The command line: one verb per job.

Exit codes: 0 done, 2 bad input (the message says what is wrong, where, and what to do), 1 a failure of vsre itself or a
full disk, 130 interrupted by the user.
"""

from __future__ import annotations

import os
import sys
import warnings

# Set before transformers is imported: no telemetry, and no notes about torchvision, which vsre does not need.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", str(int(not sys.stderr.isatty())))

import typer

from vsre.cli import (
    audit,
    benchmarks,
    compare,
    data,
    diagnosis,
    experiments,
    export,
    features,
    geometry,
    lmms,
    models,
    recipes,
    repaint,
    verify,
)
from vsre.cli.output import errors
from vsre.errors import VsreError
from vsre.files import FULL

app = typer.Typer(
    name="vsre",
    help="Measure and fix how vision-language models see space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for group in (
    data,
    geometry,
    repaint,
    verify,
    audit,
    models,
    diagnosis,
    benchmarks,
    features,
    experiments,
    recipes,
    compare,
    lmms,
    export,
):
    group.register(app)


def main() -> None:
    """Run the command line; the module docstring lists the exit codes."""
    # transformers' processors pass themselves a max_length, then warn that it is ignored.
    warnings.filterwarnings("ignore", message="`max_length` is ignored")
    try:
        app()
    except VsreError as error:
        errors.print(f"[bold red]error[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        told = (
            f"{where}no space left on the disk ({error.strerror or error}). Free some space, also in /tmp if that is a "
        )
        told += "separate disk, and run the same command again."
        errors.print(f"[bold red]error[/] {_plain(told)}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # Typer's exit code for Ctrl-C
            errors.print("stopped; run the same command again")
        raise


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
