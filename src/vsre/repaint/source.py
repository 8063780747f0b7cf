"""The source triplets of a repaint by row number, and the digests that identify them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.errors import VsreError
from vsre.triplets import Triplet, from_row, parquet_files

_json = json.JSONEncoder(sort_keys=True).encode

_PARQUET_END = 8
"""Bytes of a Parquet file after its footer: the footer's length and a mark."""


def files_digest(path: Path) -> str:
    """A digest of the Parquet files of a file or folder, from their sizes and footers: those say where each column
    lies, how long it is, and its minimum and maximum. Fast at any size; names play no part."""
    digest = hashlib.sha256()
    for file in parquet_files(path):
        size = file.stat().st_size
        with file.open("rb") as opened:
            opened.seek(max(size - _PARQUET_END, 0))
            length = int.from_bytes(opened.read(4), "little")
            opened.seek(max(size - _PARQUET_END - length, 0))
            digest.update(size.to_bytes(8, "little") + opened.read())
    return "sha256:" + digest.hexdigest()[:24]


def row_digest(triplet: Triplet) -> str:
    """16 hex digits over all that a triplet says; of its picture, only the id."""
    said = [
        *(triplet.image_id, triplet.image_name, triplet.width, triplet.height, triplet.subject, triplet.relation),
        *(triplet.object, triplet.caption, triplet.label, triplet.split, triplet.origin),
        *(triplet.subject_box, triplet.object_box, triplet.provenance),
    ]
    return hashlib.sha256(_json(said).encode()).hexdigest()[:16]


class SourceRows:
    """The triplets of a file or folder by number, in the order in which `read_triplets` gives them.

    Only the positions of the files' row groups are kept. Raises VsreError if there are no files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups: list[tuple[Path, int]] = []
        self._starts: list[int] = []
        self.count = 0
        for file in parquet_files(path):
            metadata = pq.ParquetFile(file).metadata
            for group in range(metadata.num_row_groups):
                self._groups.append((file, group))
                self._starts.append(self.count)
                self.count += metadata.row_group(group).num_rows

    def read(self, rows: Sequence[int], *, images: bool) -> dict[int, Triplet]:
        """Row -> triplet; only the row groups that hold one of the rows are read. Raises VsreError for a row that the
        files do not have."""
        if outside := [row for row in rows if not 0 <= row < self.count]:
            raise VsreError(f"{self.path}: no row {outside[0]}, it has {self.count:,}. Has the set changed?")
        wanted: defaultdict[int, set[int]] = defaultdict(set)
        for row in rows:
            wanted[bisect_right(self._starts, row) - 1].add(row)
        found: dict[int, Triplet] = {}
        for group, members in wanted.items():
            found |= self._read_group(group, members, images=images)
        return found

    def _read_group(self, group: int, rows: set[int], *, images: bool) -> dict[int, Triplet]:
        file, number = self._groups[group]
        columns = [f.name for f in dataclasses.fields(Triplet) if images or f.name != "image"]
        found: dict[int, Triplet] = {}
        at = self._starts[group]
        for batch in pq.ParquetFile(file).iter_batches(batch_size=64, row_groups=[number], columns=columns):
            here = sorted(row for row in rows if at <= row < at + len(batch))
            if here:
                taken = batch.take(pa.array([row - at for row in here])).to_pylist()
                found |= {row: from_row(values) for row, values in zip(here, taken, strict=True)}
            at += len(batch)
            if len(found) == len(rows):
                break
        return found
