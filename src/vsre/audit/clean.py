"""Writing the test rows that an audit leaves, so that the next step can read them."""

from __future__ import annotations

import codecs
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.audit.rows import TRIPLETS, VSR, Row, Side, kind_of
from vsre.errors import VsreError
from vsre.sources.vsr.rows import numbered_lines
from vsre.triplets import parquet_batches, parquet_schema


def write_clean(side: Side, rows: Sequence[Row], path: Path | str) -> int:
    """Write rows of a side to FILE.jsonl, or to FILE.parquet if the side is triplets; return how many.

    JSONL holds the rows of VSR files unchanged; for triplets it holds the fields of VSR's format and their key, for
    questions the key. Parquet holds the triplets as they are, pictures included. The file appears only once complete.
    Raises VsreError as `check_clean` does.
    """
    path = Path(path)
    check_clean(path, side.files)
    wanted: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        wanted[row.file].append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    if path.suffix == ".jsonl":
        with partial.open("wb") as out:
            for file, some in wanted.items():
                out.writelines(line + b"\n" for line in _lines(side, file, some))
    else:
        _parquet(side, wanted, partial)
    partial.replace(path)
    return len(rows)


def check_clean(path: Path, files: Iterable[Path]) -> None:
    """Check that the clean rows of these files can be written there; raises VsreError for a suffix other than .jsonl
    and .parquet, and for .parquet if a file holds anything but triplets."""
    if path.suffix not in (".jsonl", ".parquet"):
        raise VsreError(f"{path}: clean rows are written to a .jsonl file, or triplets to a .parquet file.")
    others = [file for file in files if kind_of(file) != TRIPLETS] if path.suffix == ".parquet" else []
    if others:
        raise VsreError(f"{others[0]}: holds no triplets, so clean rows cannot go to Parquet. Name a .jsonl file.")


def _lines(side: Side, file: int, rows: list[Row]) -> Iterator[bytes]:
    if side.kinds[file] == VSR:
        numbers = {row.number for row in rows}
        with side.files[file].open("rb") as lines:
            for number, _, line in numbered_lines(lines):
                if number in numbers:
                    yield line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
        return
    for row in rows:
        stated = {
            "image": row.names[-1].removeprefix("name:"),
            "caption": row.caption,
            "label": int(row.label),
            "relation": row.relation,
            "subj": row.subject,
            "obj": row.object,
        }
        kept = ({} if side.kinds[file] != TRIPLETS else stated) | {"key": row.key}
        yield json.dumps(kept, ensure_ascii=False).encode()


def _parquet(side: Side, wanted: dict[int, list[Row]], path: Path) -> None:
    schema = parquet_schema(side.files[0])
    with pq.ParquetWriter(path, schema, compression="zstd", dictionary_pagesize_limit=1 << 26) as writer:
        for file, rows in wanted.items():
            numbers, before = {row.number for row in rows}, 0
            for batch in parquet_batches(side.files[file]):
                mask = pa.array([before + i in numbers for i in range(1, len(batch) + 1)])
                before += len(batch)
                kept = batch.filter(mask)
                if len(kept):
                    writer.write_table(pa.Table.from_batches([kept]).select(schema.names).cast(schema))
