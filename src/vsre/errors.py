"""The one exception that reaches a person as a message instead of a traceback, and what it says of others."""

from __future__ import annotations


class VsreError(Exception):
    """What is wrong, where (file, row), and what to do about it.

    The command line prints the message and exits with code 2; every other exception is a failure (code 1).
    """


def first_line(error: BaseException) -> str:
    """The first line of what another library said, short enough for a message; the error's kind if it said nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def kind_and_line(error: BaseException) -> str:
    """The error's kind and its first line: "ValueError: no such thing"."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"
