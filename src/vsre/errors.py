"""The one exception shown to a person as a message instead of a traceback, and summaries of other errors for it."""

from __future__ import annotations


class VsreError(Exception):
    """What is wrong, where (file, row), and what to do about it.

    The command line prints the message and exits with code 2; every other exception is a failure (code 1).
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to fit into a message; the error's type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def kind_and_line(error: BaseException) -> str:
    """The error's type and its first line: "ValueError: no such thing"."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"
