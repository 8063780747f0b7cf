"""One side of a comparison: a run folder's record and its samples, checked before use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import vsre
from vsre.diagnose.samples import ERROR, NO, SCHEMA, UNANSWERED, YES, sample_files
from vsre.errors import VsreError
from vsre.sources.protocols import PROTOCOLS

NEEDED = ("pack", "template", "key", "image_id", "relation", "meta_category", "truth", "reading", "correct")
WANTED = ("caption", "prompt")
"""Read if present: captions to show, prompts to check that both were asked in the same words."""

SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Half:
    """One run of a comparison: its folder, its record and its samples (one row per question)."""

    name: str
    folder: Path
    info: dict[str, Any]
    table: pa.Table
    counts: dict[str, int]

    def setting(self, *path: str) -> Any:
        at: Any = self.info
        for name in path:
            at = at.get(name) if isinstance(at, dict) else None
        return at

    @property
    def leaks(self) -> bool:
        """Whether the model was trained under a protocol that lets test rows into training."""
        protocol = PROTOCOLS.get(str(self.info.get("protocol")))
        return protocol is not None and not protocol.removes


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return each folder's name, with as many parents as it takes to distinguish it from the others."""
    parts = [f.resolve().parts for f in folders]
    names = []
    for mine in parts:
        depths = range(1, len(mine) + 1)
        apart = (d for d in depths if all(other[-d:] != mine[-d:] for other in parts if other != mine))
        names.append("/".join(mine[-next(apart, len(mine)) :]))
    return names


def open_half(folder: Path, name: str) -> Half:
    """Read one run folder; raises VsreError saying what is missing and what to do."""
    files = sample_files(folder / "samples")
    path = folder / "run.json"
    if not folder.is_dir():
        raise VsreError(f"{folder}: no such folder. Give a run folder of `vsre diagnose`.")
    if not path.is_file():
        raise VsreError(f"{folder}: no run.json in it, so it is not a run folder of `vsre diagnose`.")
    if not files:
        raise VsreError(
            f"{folder}: no samples (samples/part-*.parquet), and a comparison needs the answers in them. Either this "
            "is a run of another kind or they were not copied along: give a run folder as `vsre diagnose` made it."
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise VsreError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(info, dict):
        raise VsreError(f"{path}: expected a JSON object, found {type(info).__name__}.")
    if info.get("benchmark"):
        raise VsreError(
            f"{folder}: a run of the benchmark {info['benchmark']}. Only runs of `vsre diagnose` can be compared "
            "question by question."
        )
    table = pa.concat_tables([_read(file, str(info.get("vsre", "an unknown version"))) for file in files])
    counts = {"asked": len(table)}
    known = pc.is_valid(table["key"])
    for column in NEEDED[:-1]:
        known = pc.and_(known, pc.is_valid(table[column]))
    table = table.filter(known)
    counts["incomplete row"] = counts["asked"] - len(table)
    ids = joined(table, "pack", "template", "key")
    first = np.sort(np.unique(pc.dictionary_encode(ids).indices.to_numpy(), return_index=True)[1])
    counts["asked twice"] = len(table) - len(first)
    table = table.take(pa.array(first))
    strange = sorted(set(pc.unique(table["reading"]).to_pylist()) - {YES, NO, UNANSWERED, ERROR})
    if strange:
        raise VsreError(
            f"{folder}: samples with readings that vsre {vsre.__version__} does not know: {', '.join(strange)}. They "
            f"were written by vsre {info.get('vsre', 'of unknown version')}. Run `vsre diagnose` again."
        )
    return Half(name, folder, info, table, counts)


def _read(file: Path, version: str) -> pa.Table:
    try:
        there = pq.read_schema(file)
        missing = [c for c in NEEDED if c not in there.names]
        if missing:
            raise VsreError(
                f"{file}: the columns {', '.join(missing)} are missing; the run was made by vsre {version}, this is "
                f"{vsre.__version__}. Run `vsre diagnose` again with this version."
            )
        columns = [c for c in (*NEEDED, *WANTED) if c in there.names]
        table = pq.read_table(file, columns=columns).select(columns)
    except (pa.ArrowException, OSError) as error:
        raise VsreError(f"{file}: cannot be read as Parquet ({error}). Copy the run folder again.") from error
    for column in columns:
        try:
            cast = table[column].cast(SCHEMA.field(column).type)
        except pa.ArrowException as error:
            kind = there.field(column).type
            raise VsreError(
                f"{file}: column {column} holds {kind}, expected {SCHEMA.field(column).type}; the run was made by vsre "
                f"{version}, this is {vsre.__version__}. Run `vsre diagnose` again with this version."
            ) from error
        table = table.set_column(table.column_names.index(column), column, cast)
    for column in WANTED:
        if column not in columns:
            table = table.append_column(column, pa.nulls(len(table), pa.string()))
    return table


def joined(table: pa.Table, *columns: str) -> pa.Array:
    """Join columns into one string per row, for looking rows up."""
    ids = pc.binary_join_element_wise(*(table[c] for c in columns), SEPARATOR)
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
