"""Tables whose image column may hold the index of the row that has the picture, as VLMEvalKit's TSV files do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from vsre.benchmarks.rows import Aside, Row
from vsre.benchmarks.source import Source

_LONGEST_INDEX = 64


def reference(value: Any) -> str | None:
    """The index that an image field refers to, None if it holds a picture or names one."""
    said = value.strip() if isinstance(value, str) else ""
    return said if said and len(said) <= _LONGEST_INDEX and said.isdigit() else None


def dereferenced(
    source: Source,
    patterns: Sequence[str],
    columns: Sequence[str],
    optional: Sequence[str],
    wanted: Callable[[Row], bool],
) -> Iterator[Row]:
    """The wanted rows with their references resolved; rows that refer to nothing are set aside.

    Only wanted rows and what they refer to are held, so that the other categories' pictures cost no memory.
    """
    kept = [row for row in source.rows(patterns, columns, optional) if wanted(row)]
    needed = {index for row in kept if (index := reference(row.values.get("image")))}
    held: dict[str, Any] = {}
    if needed:
        counted, source.aside = source.aside, Aside()  # what cannot be read was counted the first time
        for row in source.rows(patterns, columns, optional):
            if (index := row.text("index")) in needed and not reference(row.values.get("image")):
                held[index] = row.values.get("image")
        source.aside = counted
    for row in kept:
        index = reference(row.values.get("image"))
        if index is None:
            yield row
        elif index in held:
            yield replace(row, values=row.values | {"image": held[index]})
        else:
            source.aside.add(row.file, row.number, "refers to a row without a picture", f"index {index}")
