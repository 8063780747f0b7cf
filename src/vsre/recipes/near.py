"""Suggesting which name was meant, for unknown names in a recipe."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence for the end of a message: the nearest known name, or all of them if none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), {n.lower(): n for n in names}, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {next(n for n in names if n.lower() == near[0])!r}?"
    return f"There are: {', '.join(names) or 'none'}."
