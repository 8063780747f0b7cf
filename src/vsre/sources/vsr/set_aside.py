"""Rows that cannot be used: written to a file with their place and reason, and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from vsre.errors import VsreError

ROW_CHARACTERS = 300
"""How much of a row is kept in the file."""


class SetAside:
    """Collects unusable rows; as a context manager it writes them to `path`, one JSON object per line.

    A line holds `file`, `row` (from 1, blank lines counted), `reason` (a short fixed phrase, by which `counts` counts),
    `detail` (what exactly) and `content` (the row's first characters). Without a path, rows are only counted.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._by_file: dict[str, Counter[str]] = {}
        self.first: dict[str, str] = {}
        self._file: TextIO | None = None

    def add(self, file: Path | str, row: int, reason: str, detail: str = "", content: str = "") -> None:
        self.counts[reason] += 1
        self._by_file.setdefault(str(file), Counter())[reason] += 1
        self.first.setdefault(reason, f"{file}, row {row}" + (f": {detail}" if detail else ""))
        if self._file is not None:
            shown = content if len(content) <= ROW_CHARACTERS else content[:ROW_CHARACTERS] + "..."
            line = {"file": str(file), "row": row, "reason": reason, "detail": detail, "content": shown}
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    @property
    def total(self) -> int:
        return self.counts.total()

    def of(self, files: Iterable[Path]) -> Counter[str]:
        """The reasons, counted over these files only."""
        return sum((self._by_file.get(str(file), Counter()) for file in files), Counter[str]())

    def nothing_usable(self, where: str) -> VsreError:
        """The error for a source without a usable row: the most common reasons, each with its first place."""
        if not self.counts:
            return VsreError(f"{where}: no rows here. Expected VSR rows, one JSON object a line.")
        reasons = "\n".join(
            f"  {n} x {reason}, first in {self.first[reason]}" for reason, n in self.counts.most_common(3)
        )
        return VsreError(f"{where}: none of the {self.total} rows can be used.\n{reasons}")

    def __enter__(self) -> SetAside:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
