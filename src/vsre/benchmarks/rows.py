"""Rows of benchmark files (TSV, CSV, JSON, JSONL, Parquet), each with its place; missing columns are named."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.errors import VsreError
from vsre.sources.vsr.jsonstream import JsonWindow, array_elements, open_text, stream_arrays
from vsre.sources.vsr.set_aside import SetAside


class Unusable(VsreError):
    """Why a row is set aside: a short fixed phrase, which is counted, and the details."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Aside(SetAside):
    """Counts unusable rows and keeps them as dicts of file, row, reason, detail."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def add(self, file: Path | str, row: int, reason: str, detail: str = "", content: str = "") -> None:
        super().add(file, row, reason, detail, content)
        self.rows.append({"file": str(file), "row": row, "reason": reason, "detail": detail})


@dataclass(frozen=True, slots=True)
class Row:
    """One row with its place; `number` counts from 1, a table's header not counted. `cells` holds a JSON list."""

    file: str
    number: int
    values: dict[str, Any]
    cells: tuple[Any, ...] = ()

    def text(self, *names: str) -> str:
        """The first field of these names that holds anything, as text; "" if none does."""
        for name in names:
            value = self.values.get(name)
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # a column of numbers with gaps, as in other tools' tables
            said = clean(value)
            if said and said != "nan":
                return said
        return ""

    def need(self, *names: str) -> str:
        """As `text`, but raises Unusable if there is nothing."""
        if said := self.text(*names):
            return said
        raise Unusable("a field is empty", " or ".join(names))

    def list_of_text(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < 2:
            raise Unusable("no list of options", f"{name} holds {str(value)[:60]}")
        return tuple(clean(v) for v in value)


def clean(value: Any) -> str:
    """A field as text that any file can hold: JSON may have lone surrogates."""
    return str(value).encode("utf-8", "replace").decode("utf-8").strip()


def option_index(answer: str, options: int) -> int:
    """The index of the option that "B", "(B)" or "b" names; raises Unusable if there is none."""
    letter = answer.strip().strip("()").upper()
    index = ord(letter) - ord("A") if len(letter) == 1 else -1
    if not 0 <= index < options:
        raise Unusable("the answer names no option", f"{answer[:40]!r} of {options} options")
    return index


def read_rows(path: Path, columns: Iterable[str], aside: Aside, *, optional: Iterable[str] = ()) -> Iterator[Row]:
    """The rows of a file, by its suffix.

    `columns` are required, "a|b" means either; others are ignored unless they are `optional`. Rows that cannot be
    parsed or lack a field go to `aside`. Raises VsreError if the file cannot be read, is of no known kind, or has no
    such columns at all.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise VsreError(f"{path}: what kind of file is it? Known are {', '.join(READERS)}.")
    try:
        yield from reader(path, Columns(tuple(columns), tuple(optional)), aside)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise VsreError(f"{path}: cannot be read ({error}). Copy or download it again.") from error


@dataclass(frozen=True)
class Columns:
    """What a benchmark needs of a row, and what else it may use."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        return [name for entry in (*self.needed, *self.optional) for name in entry.split("|")]

    def lacking(self, present: Iterable[str]) -> list[str]:
        there = set(present)
        return [entry.replace("|", " or ") for entry in self.needed if not there.intersection(entry.split("|"))]

    def check(self, file: str, present: Sequence[str]) -> None:
        if lacks := self.lacking(present):
            raise VsreError(
                f"{file}: lacks the column{'s' if len(lacks) > 1 else ''} {', '.join(lacks)}. "
                f"It has {', '.join(map(str, present)) or 'none'}."
            )


def _table(path: Path, columns: Columns, aside: Aside) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # base64 pictures are far beyond the default of 128 KB
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        header = next(lines, [])
        columns.check(str(path), header)
        number = 0
        while True:
            number += 1
            try:
                fields = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                aside.add(path, number, "the row cannot be parsed", str(error))
                continue
            if not fields:
                number -= 1
            elif len(fields) != len(header):
                aside.add(path, number, "not as many fields as the header", f"{len(fields)} of {len(header)}")
            else:
                yield Row(str(path), number, dict(zip(header, fields, strict=True)))


def _parquet(path: Path, columns: Columns, aside: Aside) -> Iterator[Row]:
    file = pq.ParquetFile(path)
    present = file.schema_arrow.names
    columns.check(str(path), present)
    wanted = [name for name in columns.all if name in present]
    number = 0
    for batch in file.iter_batches(batch_size=64, columns=wanted):
        for values in batch.to_pylist():
            number += 1
            yield Row(str(path), number, values)


def json_elements(path: Path, key: str = "questions") -> Iterator[Any]:
    """The elements of a file that is one JSON list, or of the list under `key` of one object; never all at once."""
    with open_text(path) as file:
        window = JsonWindow(file, str(path))
        if window.peek() == "[":
            yield from array_elements(window)
            return
    with open_text(path) as file:
        for _, element in stream_arrays(file, str(path), (key,)):
            yield element


def _json(path: Path, columns: Columns, aside: Aside) -> Iterator[Row]:
    yield from _objects(path, columns, aside, enumerate(json_elements(path), 1))


def _jsonl(path: Path, columns: Columns, aside: Aside) -> Iterator[Row]:
    def elements(file: Iterable[str]) -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    aside.add(path, number, "the row cannot be parsed", str(error))

    with open_text(path) as file:
        yield from _objects(path, columns, aside, elements(file))


def _objects(path: Path, columns: Columns, aside: Aside, elements: Iterable[tuple[int, Any]]) -> Iterator[Row]:
    met: dict[str, None] = {}
    usable = objects = 0
    for number, value in elements:
        if not isinstance(value, dict):
            aside.add(path, number, "not a JSON object", type(value).__name__)
            continue
        objects += 1
        met |= dict.fromkeys(value)
        if lacks := columns.lacking(value):
            aside.add(path, number, "lacks a field", ", ".join(lacks))
            continue
        usable += 1
        yield Row(str(path), number, {name: value[name] for name in columns.all if name in value})
    if objects and not usable:
        columns.check(str(path), list(met))


READERS: dict[str, Callable[[Path, Columns, Aside], Iterator[Row]]] = {
    ".tsv": _table,
    ".csv": _table,
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
