"""Reading the arrays of one large JSON object element by element.

COCO's `instances_train2017.json` is one line of 450 MB and becomes several gigabytes of Python objects. Read this way,
a file of that size and shape adds about 40 MB, including what is kept of it, and takes 12 s on one core.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from vsre.errors import VsreError

_WINDOW = 1 << 20
_LARGEST_VALUE = 1 << 28
_SPACE = " \t\r\n"


class JsonWindow:
    """A sliding window over a text file: `text[at:]` is what has been read and not yet used."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file, self.name = file, name
        self.text, self.at, self.used = "", 0, 0
        self.decode = json.JSONDecoder().raw_decode

    def more(self) -> bool:
        """Read on, at least as much again as is unused; False at the end of the file."""
        new = self.file.read(max(_WINDOW, len(self.text) - self.at))
        self.used += self.at
        self.text, self.at = self.text[self.at :] + new, 0
        return bool(new)

    def peek(self) -> str:
        """The next non-space character, without using it; empty at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, expected: str) -> str:
        found = self.peek()
        if not found or found not in expected:
            raise self.broken(f"expected {' or '.join(expected)}, found {found or 'the end of the file'}")
        self.at += 1
        return found

    def value(self) -> Any:
        """The next complete JSON value."""
        self.peek()
        while True:
            try:
                found, end = self.decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                # Either the value goes on beyond the window or it is not JSON: only more text can tell.
                if len(self.text) - self.at > _LARGEST_VALUE or not self.more():
                    raise self.broken(str(error)) from error
                continue
            # A number at the very end of the window may have more digits after it.
            if end == len(self.text) and self.more():
                continue
            self.at = end
            return found

    def broken(self, why: str) -> VsreError:
        return VsreError(f"{self.name}: not valid JSON near character {self.used + self.at}: {why}.")


def stream_arrays(file: TextIO, name: str, wanted: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(key, element) for each element of the arrays of one JSON object whose key is wanted, in file order.

    `name` is what messages call the file. Raises VsreError if the text is not JSON or not an object.
    """
    window = JsonWindow(file, name)
    window.take("{")
    if window.peek() == "}":
        return
    while True:
        key = window.value()
        window.take(":")
        if window.peek() == "[":
            for element in array_elements(window):
                if key in wanted:
                    yield key, element
        else:
            window.value()
        if window.take(",}") == "}":
            return


def array_elements(window: JsonWindow) -> Iterator[Any]:
    window.take("[")
    if window.peek() == "]":
        window.take("]")
        return
    while True:
        yield window.value()
        if window.take(",]") == "]":
            return


def open_text(path: Path) -> TextIO:
    """The file as UTF-8 text, a byte order mark skipped; gzip is recognised by its first bytes."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")
