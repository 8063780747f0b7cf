"""One row of LLaVA's training JSON, and what makes it unusable here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.sources.vsr.jsonstream import JsonWindow, array_elements, open_text

IMAGE = "<image>"
"""The mark that stands for the picture in a question."""

_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant")


class Unusable(Exception):
    """A row that cannot be used: a short fixed reason, and the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Conversation:
    """A usable row: its picture's name, and its questions with their answers."""

    image: str
    pairs: tuple[tuple[str, str], ...]


def parse_row(row: Any) -> Conversation:
    """What a row of LLaVA's JSON says, without the picture's mark; raises Unusable if it cannot be used here."""
    if isinstance(row, Unusable):
        raise row
    if not isinstance(row, dict):
        raise Unusable("not an object", type(row).__name__)
    if "video" in row:
        raise Unusable("a video")
    image = row.get("image")
    if isinstance(image, list) and len(image) > 1:
        raise Unusable("several pictures", f"{len(image)}")
    if isinstance(image, list) and image:
        image = image[0]
    if not image:
        raise Unusable("no picture")
    if not isinstance(image, str):
        raise Unusable("no picture", f"image is a {type(image).__name__}")
    said = row.get("conversations")
    if not isinstance(said, list) or not said:
        raise Unusable("no conversation")
    texts = [_text(turn, _MODEL if n % 2 else _HUMAN) for n, turn in enumerate(said)]
    if len(texts) % 2:
        raise Unusable("a question without an answer", f"{len(texts)} turns")
    marks = [text.count(IMAGE) for text in texts]
    if marks[0] > 1:
        raise Unusable("several pictures", f"{marks[0]} marks {IMAGE}")
    if any(marks[1:]):
        raise Unusable("a picture after the first question")
    texts[0] = texts[0].replace(IMAGE, "").strip()
    if not all(texts):
        raise Unusable("an empty question or answer", f"turn {texts.index('') + 1}")
    return Conversation(image, tuple(zip(texts[::2], texts[1::2], strict=True)))


def _text(turn: Any, speakers: tuple[str, ...]) -> str:
    if not isinstance(turn, dict) or turn.get("from") not in speakers or not isinstance(turn.get("value"), str):
        found = turn.get("from") if isinstance(turn, dict) else turn
        raise Unusable("turns are not human and gpt by turns", f"expected {speakers[0]}, found {str(found)[:50]!r}")
    text: str = turn["value"].strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("text that is not Unicode", str(error)) from None
    return text


def read_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """(row, content), from 1: the elements of a JSON list or, if the file does not begin with one, the values of its
    lines.

    A line that is not JSON comes as an Unusable; blank ones are counted and skipped. Raises VsreError if a list is
    broken: nothing tells where the next element begins.
    """
    try:
        with open_text(file) as text:
            window = JsonWindow(text, str(file))
            if window.peek() == "[":
                yield from enumerate(array_elements(window), 1)
                return
        with open_text(file) as text:
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield number, _value(line)
    except (UnicodeDecodeError, EOFError) as error:
        raise VsreError(f"{file}: cannot be read as UTF-8 text ({error}). Save or copy it again.") from error


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unusable("not JSON", f"{error}: {line[:100]}")
