"""Pictures as benchmark files hold them: bytes, base64, data URIs, or the name of a file. Nothing is ever fetched."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vsre.benchmarks.rows import Unusable
from vsre.errors import VsreError
from vsre.files import is_file
from vsre.sources.images import MAX_BYTES, open_header
from vsre.triplets import image_content_id

_URL = re.compile(r"\s*(?:[a-z][a-z0-9+.-]+:|//|\\\\)", re.IGNORECASE)
_DATA = re.compile(r"\s*data:image/[\w.+-]+;base64,", re.IGNORECASE)
_LONGEST_NAME = 1024
_SUFFIXES = ("", ".jpg", ".jpeg", ".png")
_IN_MEMORY = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture that is read when it is needed. `id` identifies its content."""

    id: str
    name: str
    _at: Path | tuple[Any, int, int]

    def read(self) -> bytes:
        """The encoded bytes; raises VsreError if the file is gone."""
        if isinstance(self._at, Path):
            try:
                return self._at.read_bytes()
            except OSError as error:
                raise VsreError(f"{self._at}: the picture cannot be read any more ({error.strerror}).") from error
        spool, offset, length = self._at
        spool.seek(offset)
        return spool.read(length)


class Pictures:
    """Takes pictures from rows, once per content.

    Embedded ones go to a temporary file once there are many, so that a benchmark need not fit into memory. Files are
    looked for only under `roots`: a name that leads elsewhere is refused.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(roots)
        # Stays open as long as its pictures are used.
        self._spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._end = 0
        self._known: dict[str, Picture] = {}

    def take(self, value: Any, *, folders: Sequence[str] = (), beside: Path | None = None) -> Picture:
        """The picture of a row's field.

        `value` is bytes, a Hugging Face image ({"bytes", "path"}), a list with one of these, a data URI, a file's name
        or base64; a Path comes from the loader itself and is opened wherever it is. `folders` are tried under every
        root, `beside` is the folder of the row's own file. Raises Unusable.
        """
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            found = [v for v in value if v is not None]
            if len(found) != 1:
                raise Unusable("not one picture", f"{len(found)} pictures in the field")
            value = found[0]
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, memoryview | bytearray):
            value = bytes(value)
        if value is None or value == "" or value == b"":
            raise Unusable("no picture", "the field is empty")
        if isinstance(value, bytes):
            return self._keep(value, "embedded")
        if isinstance(value, Path):
            return self._keep_file(value)
        if not isinstance(value, str):
            raise Unusable("no picture", f"a field of type {type(value).__name__}")
        if match := _DATA.match(value):
            return self._keep(_decode(value[match.end() :]), "embedded")
        if _URL.match(value):
            raise Unusable("the picture is a URL", f"nothing is fetched: {value.strip()[:100]}")
        named = len(value) < 64 or "." in value[:_LONGEST_NAME]  # no base64 picture is this short, or has dots
        if not named:
            try:
                return self._keep(_decode(value), "embedded")
            except Unusable as problem:
                if "/" not in value or value.startswith("/") or len(value) > _LONGEST_NAME:
                    raise
                return self._named(value, folders, beside, problem)
        return self._named(value[:_LONGEST_NAME], folders, beside, None)

    def _named(self, name: str, folders: Sequence[str], beside: Path | None, problem: Unusable | None) -> Picture:
        """The picture in a file of this name; `problem` is the error from reading the name as base64."""
        for path in self._places(name.strip(), folders, beside):
            if is_file(path):
                return self._keep_file(path)
        under = ", ".join(map(str, self._under(beside))) or "any folder"
        raise problem or Unusable("no such picture file", f"{name[:100]} is not under {under}")

    def _under(self, beside: Path | None) -> list[Path]:
        return list(dict.fromkeys([*([beside] if beside else []), *self.roots]))

    def _places(self, name: str, folders: Sequence[str], beside: Path | None) -> Iterator[Path]:
        """Where a named file may be: data often name more leading folders than a local copy has."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
            raise Unusable("the picture lies outside the data", f"{name[:100]}: use names under the data's folder")
        for first in range(len(parts)):
            for root in self._under(beside):
                for folder in ("", *folders):
                    place = root.joinpath(folder, *parts[first:])
                    yield from (place.with_name(place.name + suffix) for suffix in _SUFFIXES)

    def _keep_file(self, path: Path) -> Picture:
        _check(path, str(path))
        try:
            id_ = image_content_id(path.read_bytes())
        except OSError as error:
            raise Unusable("the picture cannot be opened", f"{path}: {error.strerror}") from error
        return self._known.setdefault(id_, Picture(id_, path.name, path))

    def _keep(self, data: bytes, name: str) -> Picture:
        _check(data, "the embedded picture")
        id_ = image_content_id(data)
        if id_ not in self._known:
            self._spool.seek(self._end)
            self._spool.write(data)
            self._known[id_] = Picture(id_, name, (self._spool, self._end, len(data)))
            self._end += len(data)
        return self._known[id_]


def _check(source: bytes | Path, name: str) -> None:
    try:
        open_header(source, name=name).close()
    except VsreError as error:
        raise Unusable("the picture cannot be opened", str(error)) from error


def _decode(text: str) -> bytes:
    if len(text) > MAX_BYTES * 4 // 3 + 4:
        raise Unusable("the picture cannot be opened", f"{len(text):,} characters of base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unusable("not base64", f"{text[:40]}...: {error}") from error
