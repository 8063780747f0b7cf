"""The one exception that reaches a person as a message instead of a traceback."""

from __future__ import annotations


class VsreError(Exception):
    """What is wrong, where (file, row), and what to do about it.

    The command line prints the message and exits with code 2; every other exception is a failure (code 1).
    """
