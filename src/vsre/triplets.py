"""The one row type: a triplet (subject, relation, object) stated about an image, true or false.

A data set is a folder with one sub-folder per split, each holding Parquet files that any reader of Hugging Face
image features can open: `datasets.load_dataset("parquet", data_dir="data/scenes")` gives pictures, not bytes.
Writing and reading stream: no function here holds a data set in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.errors import VsreError, first_line

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the image's width and height, the origin at the top left."""


@cache
def triplet_schema() -> pa.Schema:
    """The columns on disk, with Hugging Face's image feature. `provenance` is a JSON object; boxes are null where
    unknown."""
    from datasets import Features, Image, Value  # takes half a second, and reading does not need it
    from datasets import List as ListFeature

    features = Features(
        {
            "key": Value("string"),
            "image_id": Value("string"),
            "image": Image(decode=False),
            "image_name": Value("string"),
            "width": Value("int32"),
            "height": Value("int32"),
            "subject": Value("string"),
            "relation": Value("string"),
            "object": Value("string"),
            "caption": Value("string"),
            "label": Value("bool"),
            "subject_box": ListFeature(Value("float64")),
            "object_box": ListFeature(Value("float64")),
            "split": Value("string"),
            "origin": Value("string"),
            "provenance": Value("string"),
        }
    )
    return features.arrow_schema


def image_content_id(data: bytes) -> str:
    """The id of an image, a hash of its encoded bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()[:24]


def triplet_key(image_id: str, caption: str) -> str:
    """A hash, 16 hex digits: the same image and caption give the same key, wherever the row came from."""
    return hashlib.sha256(f"{image_id}\n{caption}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Triplet:
    """One image, one statement about it, and whether the statement is true.

    `image` holds the encoded file (JPEG, PNG); it is None if only annotations are available, and `image_id` is
    then "name:FILE" instead of the content's hash. `provenance` says where the row came from: votes for a VSR row,
    the scene for a drawn one, painter, setting and kind of negative for a repainted one. It must be JSON.
    """

    image_id: str
    image_name: str
    subject: str
    relation: str
    object: str
    caption: str
    label: bool
    split: str
    origin: str
    image: bytes | None = None
    width: int = 0
    height: int = 0
    subject_box: Box | None = None
    object_box: Box | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return triplet_key(self.image_id, self.caption)

    def replace(self, **changes: Any) -> Triplet:
        return dataclasses.replace(self, **changes)


def to_row(triplet: Triplet) -> dict[str, Any]:
    """The triplet as a dictionary with the columns of `triplet_schema`."""
    row = {f.name: getattr(triplet, f.name) for f in dataclasses.fields(triplet)}
    row["key"] = triplet.key
    row["image"] = None if triplet.image is None else {"bytes": triplet.image, "path": triplet.image_name}
    row["provenance"] = json.dumps(triplet.provenance, sort_keys=True)
    return row


def from_row(row: dict[str, Any]) -> Triplet:
    image = row.get("image")
    values = {f.name: row[f.name] for f in dataclasses.fields(Triplet) if f.name in row}
    values["image"] = image["bytes"] if image else None
    for name in ("subject_box", "object_box"):
        box = row.get(name)
        values[name] = tuple(box) if box is not None else None
    values["provenance"] = json.loads(row["provenance"]) if row.get("provenance") else {}
    return Triplet(**values)


class ParquetShards:
    """Writes rows to PREFIX-00000.parquet, PREFIX-00001.parquet ... in a folder, in constant memory.

    All files are written aside and renamed when the last is complete: a reader never sees only some of them, and
    earlier files with the prefix stay until then. Consecutive equal images are stored once (dictionary encoding), so
    keep the rows of an image together. Raises VsreError for a prefix that names another folder.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, *, prefix: str = "part", rows_per_file: int = 5000, batch: int = 500
    ) -> None:
        if "/" in prefix or "\\" in prefix:
            raise VsreError(f"{prefix!r} cannot begin the names of files in {folder}: it names another folder.")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.schema, self.prefix, self.rows_per_file, self.batch = schema, prefix, rows_per_file, batch
        self.written = 0
        self._rows: list[dict[str, Any]] = []
        self._file = 0
        self._in_file = 0
        self._writer: pq.ParquetWriter | None = None

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{self.prefix}-{number:05d}.{kind}"

    def _remove(self, kind: str) -> None:
        """Delete the files of this kind with this prefix, but none with a longer one such as PREFIX-b."""
        ours = re.compile(rf"{re.escape(self.prefix)}-[0-9]{{5,}}\.{kind}")
        for file in [file for file in self.folder.iterdir() if ours.fullmatch(file.name)]:
            file.unlink()

    def write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= self.batch:
            self._flush()

    def write_table(self, table: pa.Table) -> None:
        """Append a whole table of this schema (the fast way for rows without images)."""
        self._flush()
        self._append(table)

    def _flush(self) -> None:
        if self._rows:
            self._append(pa.Table.from_pylist(self._rows, schema=self.schema))
            self._rows = []

    def _append(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path(self._file, "tmp"), self.schema, compression="zstd", dictionary_pagesize_limit=1 << 26
            )
        self._writer.write_table(table)
        self.written += len(table)
        self._in_file += len(table)
        if self._in_file >= self.rows_per_file:
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._in_file, self._file = None, 0, self._file + 1

    def __enter__(self) -> ParquetShards:
        self._remove("tmp")  # left by a killed process
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            self._finish()
            self._remove("parquet")
            for number in range(self._file):
                self._path(number, "tmp").rename(self._path(number, "parquet"))
            return
        if self._writer is not None:
            self._writer.close()
        self._remove("tmp")


def write_triplets(folder: Path | str, triplets: Iterable[Triplet], *, rows_per_file: int = 5000) -> int:
    """Write triplets to FOLDER/part-NNNNN.parquet, replacing what was there; returns how many."""
    with ParquetShards(Path(folder), triplet_schema(), rows_per_file=rows_per_file) as shards:
        for triplet in triplets:
            shards.write(to_row(triplet))
    return shards.written


def parquet_files(path: Path | str) -> list[Path]:
    """The Parquet files behind a file or folder (its own or, if it has none, those of its split folders), in order."""
    path = Path(path)
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))
    if not files:
        raise VsreError(f"{path}: no Parquet files here. Make a data set with `vsre scenes` or `vsre vsr` first.")
    return files


def parquet_schema(file: Path) -> pa.Schema:
    """The columns of a Parquet file; raises VsreError if it cannot be read as one."""
    with _as_parquet(file):
        return pq.read_schema(file)


def parquet_batches(file: Path, columns: Sequence[str] | None = None, *, size: int = 256) -> Iterator[pa.RecordBatch]:
    """Stream a Parquet file, or some of its columns; raises VsreError if it cannot be read as one."""
    with _as_parquet(file), pq.ParquetFile(file) as parquet:
        yield from parquet.iter_batches(batch_size=size, columns=columns)


@contextmanager
def _as_parquet(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        lines = file.suffix in (".jsonl", ".json")
        hint = "Read VSR's JSONL with `vsre vsr` first." if lines else "Write or copy it again."
        raise VsreError(f"{file}: cannot be read as Parquet ({first_line(error)}). {hint}") from error


def source_files(source: Path | str, out: Path | str) -> list[Path]:
    """The Parquet files behind a file or folder from which something is to be made in OUT. Raises VsreError if there
    are none, and if OUT is their folder, where the output would replace them."""
    files = parquet_files(source)
    folders = {Path(source).resolve()} | {folder for f in files for folder in (f.parent.resolve(), f.resolve().parent)}
    if Path(out).resolve() in folders:
        raise VsreError(f"{out}: this is where the source is. Write to another folder.")
    return files


_SPLIT = re.compile(r"\w[\w.-]{0,59}")


def is_split_name(split: object) -> bool:
    """Whether a split's name may be used in file names: letters, digits and "_", after the first character also "." and
    "-", at most 60 (a file name holds 255 bytes). Splits from elsewhere may be called anything, even a path."""
    return isinstance(split, str) and _SPLIT.fullmatch(split) is not None


def read_triplets(path: Path | str, *, images: bool = True, columns: Sequence[str] | None = None) -> Iterator[Triplet]:
    """Stream the triplets of a file, a split folder or a data set folder; `images=False` skips the bytes."""
    names = list(columns or (f.name for f in dataclasses.fields(Triplet)))
    if not images:
        names = [n for n in names if n != "image"]
    for file in parquet_files(path):
        there = parquet_schema(file).names
        missing = [n for n in names if n not in there]
        if missing:
            raise VsreError(f"{file}: not a triplet file, it lacks the columns {', '.join(missing)}.")
        for batch in parquet_batches(file, names):
            for row in batch.to_pylist():
                yield from_row(row)
