"""One line of a VSR file: its content, checked, and what is wrong with it if it cannot be used.

The published files have traps (found by an audit of all six): votes are strings in today's files and lists in older
ones; `subj` has lost first letters ("orse", "ot dog"), so subject and object are read from the caption; and
`reference_frame` is set on true left/right rows only, so it gives the label away. It is kept with the votes under
`audit` in the provenance, which no model is shown.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from vsre.relations.grammar import parse_caption
from vsre.relations.ontology import RELATIONS
from vsre.sources.vsr.set_aside import SetAside

MAX_CAPTION = 500
"""Characters; VSR's longest caption has 58."""

MAX_NAME, MAX_PART = 1024, 255
"""Characters of a picture's name, and bytes of each folder or file name in it: disks allow no more."""

MAX_LINE = 1 << 20
"""Bytes; a longer line is set aside without being held in memory."""

_AUDIT = ("annotator_id", "vote_true_validator_id", "vote_false_validator_id", "reference_frame")
_USED = {"image", "caption", "label", "relation", "subj", "obj", *_AUDIT}


class UnusableRow(Exception):
    """Why a row is set aside: a fixed phrase that is counted, and the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(slots=True)
class Row:
    """A usable row. `audit` and `extra` (fields this reader does not know) go to the triplet's provenance."""

    image: str
    caption: str
    label: bool
    relation: str
    subject: str
    object: str
    audit: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def read_row(line: bytes, classes: Collection[str] | None) -> Row:
    """The row of one line, about things of these classes (None: of any class); raises UnusableRow."""
    fields = _fields(line)
    caption, relation, label = fields["caption"], fields["relation"], fields["label"]
    # The length comes first: nothing else should work on ten thousand characters.
    if len(caption) > MAX_CAPTION:
        raise UnusableRow("caption too long", f"{len(caption)} characters, the limit is {MAX_CAPTION}")
    if label not in (0, 1):
        raise UnusableRow("label is not 0 or 1", f"label {str(label)[:40]!r}")
    if relation not in RELATIONS:
        raise UnusableRow("unknown relation", repr(relation[:60]))
    named = parse_caption(caption, relation)
    if named is None:
        raise UnusableRow("caption does not parse", f"expected 'The X is {relation} the Y.', got {caption[:80]!r}")
    subject, object = (name.lower() for name in named)
    for name in (subject, object):
        if classes is not None and name not in classes:
            raise UnusableRow("class not found", f"{name[:60]!r} is no COCO class")
    extra = {name: value for name, value in fields.items() if name not in _USED}
    return Row(image_below(fields["image"]), caption, bool(label), relation, subject, object, _audit(fields), extra)


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(row number from 1, byte offset, line) of the lines that are not blank, cut past MAX_LINE."""
    number = offset = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        start = offset
        offset += len(line)
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE + 1)
            offset += len(rest)
        if line.removeprefix(b"\xef\xbb\xbf").strip():
            yield number, start, line


def usable_rows(path: Path, classes: Collection[str], set_aside: SetAside) -> Iterator[tuple[int, int, Row]]:
    """(row number, byte offset, row) of a file's usable rows; the others are set aside."""
    with path.open("rb") as file:
        for number, offset, line in numbered_lines(file):
            try:
                yield number, offset, read_row(line, classes)
            except UnusableRow as why:
                set_aside.add(path, number, why.reason, why.detail, line[:2000].decode(errors="replace").strip())


def _fields(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise UnusableRow("line too long", f"more than {MAX_LINE} bytes")
    try:
        fields = json.loads(line.decode("utf-8-sig"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise UnusableRow("not valid JSON", str(error)) from error
    if not isinstance(fields, dict):
        raise UnusableRow("not a JSON object", f"a {type(fields).__name__}")
    for name in ("image", "caption", "relation"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise UnusableRow("field missing", f"`{name}` is absent, empty or no text")
    for name in ("caption", "relation"):
        if any("\ud800" <= character <= "\udfff" for character in fields[name]):
            raise UnusableRow("text is not Unicode", f"`{name}` has half a surrogate pair: {fields[name][:60]!r}")
    if "label" not in fields:
        raise UnusableRow("field missing", "`label` is absent")
    return fields


def image_below(name: str) -> str:
    """A file name or a path below the image folder; raises UnusableRow if it leads out of it, or is not one."""
    parts = PurePosixPath(name).parts
    outside = name.startswith("/") or "\\" in name or ".." in parts
    # Bytes come last: half a surrogate pair, which is not printable, has none.
    if outside or not name.isprintable() or len(name) > MAX_NAME or any(len(p.encode()) > MAX_PART for p in parts):
        raise UnusableRow("image name is not a file below the image folder", repr(name[:80]))
    return name


def _audit(fields: dict[str, Any]) -> dict[str, Any]:
    audit: dict[str, Any] = {name: fields[name] for name in _AUDIT if name in fields}
    for name in ("vote_true_validator_id", "vote_false_validator_id"):
        if isinstance(audit.get(name), str):
            audit[name] = _votes(audit[name])
    return audit


def _votes(text: str) -> list[Any] | None:
    try:
        votes = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return votes if isinstance(votes, list) else None
