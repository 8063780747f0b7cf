"""The ledger of a repaint: one row per job, whatever became of it, with all that is needed to paint it again.

OUT/ledger/shard-NNNNN.parquet   one file per shard, its rows in the order of the plan; columns: `schema`
OUT/shards/shard-NNNNN.parquet   the pictures: `job`, `image` (an encoded file), `known` (JSON: `vsre.repaint.outcome`)

`status` says what became of a job:

- "painted": there is a picture, and `statements` are about it;
- "rejected": there is a picture, but the verifier or the safety checker rejected it; `statements` are what the job
  asked for;
- "refused": there is no picture, because the painter could not do the job honestly or the model gave none; `reason`
  says why.

Rejected pictures are in the shards too, so that people can look at them. JSON_COLUMNS names the columns that hold JSON.
Long texts that repeat are dictionary-encoded, in the files and in memory. Whatever is unknown or does not apply is
null; a null `safety` says that no safety checker looked.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.errors import VsreError

Status = Literal["painted", "rejected", "refused"]

_WORD = pa.dictionary(pa.int32(), pa.string())
"""Text that has few different values in a set."""

_BOX = pa.list_(pa.float64())

_STATEMENT = pa.struct(
    [
        ("subject", pa.string()),
        ("relation", pa.string()),
        ("object", pa.string()),
        ("caption", pa.string()),
        ("kind", pa.string()),
        ("label", pa.bool_()),
        ("subject_box", _BOX),
        ("object_box", _BOX),
    ]
)

_PIXEL_BOX = pa.struct([("name", pa.string()), *((edge, pa.float32()) for edge in ("x0", "y0", "x1", "y1"))])

NOTES: dict[str, pa.DataType] = {
    "prompt": pa.string(),
    "negative_prompt": _WORD,
    "generator_seed": pa.int64(),
    "steps": pa.int32(),
    "steps_run": pa.int32(),
    "guidance": pa.float64(),
    "strength": pa.float64(),
    "strength_run": pa.float64(),
    "canvas": pa.list_(pa.int32()),
    "batch": pa.struct([("size", pa.int32()), ("place", pa.int32())]),
    "scheduler": _WORD,
    "model": _WORD,
    "licence": _WORD,
    "weights": _WORD,
    "dtype": _WORD,
    "device": _WORD,
    "versions": _WORD,
    "mask": pa.string(),
    "replaced_by": _WORD,
    "source_licence": _WORD,
    "verifier": _WORD,
    "verdicts": pa.string(),
}
"""What painters and verifiers note about a picture, each in a column of its name. `steps` were asked for and
`steps_run` were run, `strength` was asked for and `strength_run` is where they began; `batch` is how many were painted
together and the picture's place among them; `licence` is the model's."""

JSON_NOTES = frozenset(("scheduler", "model", "weights", "versions", "mask", "verdicts"))

JSON_COLUMNS = frozenset((*JSON_NOTES, "parameters", "notes"))
"""Columns of JSON text; `notes` has whatever else was noted about a picture, for example the scene that was drawn."""

schema = pa.schema(
    [
        ("job", pa.string()),
        ("place", pa.int64()),  # in the plan, from 0
        ("shard", pa.int32()),
        ("batch_number", pa.int64()),  # jobs with one number were handed to the painter together
        ("setting", _WORD),
        ("asked", pa.bool_()),  # what "t2i" should make of the caption; null in the other settings
        ("seed", pa.int64()),
        ("source_key", pa.string()),
        ("source_image", pa.string()),
        ("source_made_from", pa.string()),  # what `source_image` was made from, the first of a chain
        ("source_name", pa.string()),
        ("source_split", _WORD),
        ("subject", _WORD),  # of the source triplet, as are the next four
        ("relation", _WORD),
        ("object", _WORD),
        ("caption", pa.string()),
        ("label", pa.bool_()),
        ("painter", _WORD),
        ("parameters", _WORD),
        ("status", _WORD),
        ("reason", _WORD),
        ("truth", _WORD),  # drawn, intended or verified
        *NOTES.items(),
        ("notes", pa.string()),
        ("picture", pa.string()),  # sha256 of the file, hexadecimal
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("pixels", _WORD),  # "ok", "one colour", "no numbers" (NaN or infinite)
        ("dhash", pa.uint64()),  # see `vsre.repaint.alike_pictures`
        ("safety", pa.float64()),
        ("safety_checker", _WORD),
        ("statements", pa.list_(_STATEMENT)),  # boxes as fractions of the picture
        ("boxes", pa.list_(_PIXEL_BOX)),  # the same boxes in pixels of the picture, one per thing
        ("seconds", pa.float64()),  # of painting and judging its batch, divided evenly
    ]
)


LEDGER, PICTURES = "ledger", "shards"
"""The folders in OUT."""

_LATER = ("source_made_from", "strength_run")
"""Columns that ledgers of earlier versions lack; they are null there."""

_TOGETHER = 32
"""Number of shards whose tables are merged at a time."""


def ledger_tables(out: Path | str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows painted so far, in the order of the plan: for each shard a table of `schema`, or of these columns of it.

    Raises VsreError if there is no ledger, for a damaged file and for an unknown column.
    """
    if unknown := set(columns or ()) - set(schema.names):
        raise VsreError(f"The ledger has no column {min(unknown)!r}. It has {', '.join(schema.names)}.")
    return (read_shard_ledger(file, columns) for file in ledger_files(out))


def read_ledger(out: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """`ledger_tables` as one table: 1 to 2 kB per row in memory with all columns. Raises VsreError likewise."""
    tables: list[pa.Table] = []
    waiting: list[pa.Table] = []
    for table in ledger_tables(out, columns):
        waiting.append(table)
        # Thousands of small buffers take twice their bytes.
        if len(waiting) == _TOGETHER:
            tables.append(pa.concat_tables(waiting).combine_chunks())
            waiting = []
    return pa.concat_tables([*tables, *waiting]).unify_dictionaries()


def ledger_rows(out: Path | str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows painted so far, in the order of the plan, streaming; JSON columns are parsed. Raises VsreError like
    `read_ledger`."""
    parsed = [name for name in columns or schema.names if name in JSON_COLUMNS]
    for table in ledger_tables(out, columns):
        for row in table.to_pylist():
            for name in parsed:
                if row[name] is not None:
                    row[name] = json.loads(row[name])
            yield row


def read_pictures(out: Path | str, jobs: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """(job, encoded picture) for those of the jobs that have one, in the order of the plan, one at a time in memory.

    Raises VsreError if a job is not in the ledger, and if its shard of pictures is missing or damaged.
    """
    wanted = set(jobs)
    for file in ledger_files(out):
        rows = read_shard_ledger(file, ["job", "picture"]).to_pylist()
        here = {row["job"] for row in rows if row["job"] in wanted}
        wanted -= here
        if any(row["picture"] for row in rows if row["job"] in here):
            for job, image, _ in shard_pictures(Path(out) / PICTURES / file.name):
                if job in here:
                    yield job, image
    if wanted:
        raise VsreError(f"{out}: the ledger has no job {min(wanted)!r} ({len(wanted)} are missing).")


def ledger_files(out: Path | str) -> list[Path]:
    """The ledger's files in the order of the plan. Raises VsreError if there are none."""
    files = sorted(Path(out, LEDGER).glob("shard-*.parquet"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise VsreError(f"{out}: no ledger of a repaint here, or nothing is painted yet. See `vsre repaint`.")
    return files


def shard_pictures(file: Path) -> Iterator[tuple[str, bytes, str]]:
    """(job, image, known) of each picture of a shard, in the order of the plan. Raises VsreError if it is missing or
    damaged."""
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        for batch in parquet.iter_batches(batch_size=8, columns=["job", "image", "known"]):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise VsreError(f"{file}: missing or damaged ({error}).") from error


def read_shard_ledger(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One file of the ledger, or these columns of it. Raises VsreError if it is missing or damaged."""
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
        # A shard's part is small: threads would take longer to start than to read.
        table = parquet.read(columns=columns and list(columns), use_threads=False)
        wanted = list(columns or schema.names)
        for name in set(_LATER) & set(wanted) - set(table.column_names):
            nulls = pa.nulls(parquet.metadata.num_rows, schema.field(name).type)
            table = table.append_column(schema.field(name), nulls)
        return table.select(wanted)
    except (OSError, KeyError, pa.ArrowException, UnicodeDecodeError) as error:
        raise VsreError(
            f"{file}: missing or damaged ({error}). `vsre repaint` paints a damaged shard again."
        ) from error
