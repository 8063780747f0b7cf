"""What a benchmark's loader reads from: a local copy as distributed, or a data set on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsre.benchmarks.item import Item
from vsre.benchmarks.pictures import Picture, Pictures
from vsre.benchmarks.rows import Aside, Columns, Row, Unusable, read_rows
from vsre.errors import VsreError

_HUB = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<config>[\w.-]+))?(?::(?P<split>[\w.-]+))?")


@dataclass(frozen=True)
class HubId:
    """OWNER/NAME, with @CONFIG and :SPLIT if the benchmark's usual ones are not meant."""

    id: str
    parts: tuple[tuple[str | None, str], ...]


class Source:
    """One copy of a benchmark: its rows, its pictures, and what had to be set aside."""

    def __init__(
        self,
        path: str | Path,
        *,
        images: Sequence[str | Path] = (),
        hub_parts: Sequence[tuple[str | None, str]] = ((None, "test"),),
        wants: str = "",
    ) -> None:
        self.name, self.wants, self.aside = str(path), wants, Aside()
        self.path = Path(path)
        self.hub: HubId | None = None
        if not self.path.exists():
            match = _HUB.fullmatch(self.name)
            if match is None:
                raise VsreError(f"{path}: no such file or folder. {wants}")
            config, split = match["config"], match["split"]
            parts = tuple((config or c, split or s) for c, s in hub_parts)
            self.hub = HubId(match["id"], tuple(dict.fromkeys(parts)))
        for folder in map(Path, images):
            if not folder.is_dir():
                raise VsreError(f"{folder}: no such folder of pictures.")
        own = [] if self.hub else [self.path if self.path.is_dir() else self.path.parent]
        self.pictures = Pictures([*own, *map(Path, images)])

    def files(self, *patterns: str) -> list[Path]:
        """The file that was named, or the folder's files that match the first fitting pattern."""
        if self.path.is_file():
            return [self.path]
        for pattern in patterns:
            if found := sorted(p for p in self.path.glob(pattern) if p.is_file() and not p.name.startswith(".")):
                return found
        raise VsreError(f"{self.path}: none of {', '.join(patterns)} here. {self.wants}")

    def rows(self, patterns: Sequence[str], columns: Iterable[str], optional: Iterable[str] = ()) -> Iterator[Row]:
        """All rows; for a hub data set with its pictures as bytes."""
        columns, optional = tuple(columns), tuple(optional)
        if self.hub is not None:
            yield from hub_rows(self.hub, Columns(columns, optional))
            return
        for file in self.files(*patterns):
            yield from read_rows(file, columns, self.aside, optional=optional)

    def picture(self, row: Row, value: Any, *, folders: Sequence[str] = ()) -> Picture:
        return self.pictures.take(value, folders=folders, beside=None if self.hub else Path(row.file).parent)

    def items(self, rows: Iterable[Row], make: Callable[[Row, Source], Item | None]) -> Iterator[Item]:
        """make(row, self) for each row; Unusable sets the row aside, None leaves it out."""
        keys: set[str] = set()
        for row in rows:
            try:
                item = make(row, self)
                if item is not None and item.key in keys:
                    raise Unusable("a key stands twice", item.key)
            except Unusable as problem:
                self.aside.add(row.file, row.number, problem.reason, problem.detail)
                continue
            if item is not None:
                keys.add(item.key)
                yield item


def hub_rows(hub: HubId, columns: Columns) -> Iterator[Row]:
    """The rows of a data set through `datasets`; pictures stay encoded."""
    from datasets import load_dataset  # takes seconds, and local copies do without

    for config, split in hub.parts:
        name = f"{hub.id}{'@' + config if config else ''}:{split}"
        try:
            data = load_dataset(hub.id, config, split=split)
        except Exception as error:  # the hub, its cache and dataset scripts raise anything
            raise VsreError(
                f"{name}: neither a local path nor a data set that can be loaded ({type(error).__name__}: {error})."
            ) from error
        columns.check(name, data.column_names)
        kept = data.select_columns([c for c in columns.all if c in data.column_names])
        number = 0
        for batch in kept.with_format("arrow").iter(batch_size=64):
            for values in batch.to_pylist():
                number += 1
                yield Row(name, number, values)
