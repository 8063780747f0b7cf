"""The test rows that an audit leaves, written so that the next step reads them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.audit.rows import TRIPLETS, VSR, Row, Side
from vsre.errors import VsreError


def write_clean(side: Side, rows: Sequence[Row], path: Path | str) -> int:
    """Write rows of a side to FILE.jsonl, or to FILE.parquet where the side is triplets; returns how many.

    JSONL holds the rows of VSR files as they stand there; of triplets it holds the fields of VSR's format and their
    key, of questions the key. Parquet holds the triplets as they are, pictures included. The file appears when it is
    whole. Raises VsreError for another ending, and for Parquet where the rows come from anything but triplets.
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".parquet"):
        raise VsreError(f"{path}: clean rows are written to a .jsonl file, or triplets to a .parquet file.")
    wanted: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        wanted[row.file].append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    if path.suffix == ".jsonl":
        with partial.open("w", encoding="utf-8") as out:
            for file, some in wanted.items():
                out.writelines(line + "\n" for line in _lines(side, file, some))
    else:
        _parquet(side, wanted, partial)
    partial.replace(path)
    return len(rows)


def _lines(side: Side, file: int, rows: list[Row]) -> Iterator[str]:
    if side.kinds[file] == VSR:
        numbers = {row.number for row in rows}
        with side.files[file].open(encoding="utf-8-sig", errors="replace") as lines:
            yield from (line.rstrip("\r\n") for number, line in enumerate(lines, 1) if number in numbers)
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
        yield json.dumps(({} if side.kinds[file] != TRIPLETS else stated) | {"key": row.key}, ensure_ascii=False)


def _parquet(side: Side, wanted: dict[int, list[Row]], path: Path) -> None:
    others = [str(side.files[file]) for file, kind in enumerate(side.kinds) if kind != TRIPLETS]
    if others:
        raise VsreError(f"{others[0]}: holds no triplets, so clean rows cannot go to Parquet. Name a .jsonl file.")
    schema = pq.read_schema(side.files[0])
    with pq.ParquetWriter(path, schema, compression="zstd", dictionary_pagesize_limit=1 << 26) as writer:
        for file, rows in wanted.items():
            numbers, before = {row.number for row in rows}, 0
            for batch in pq.ParquetFile(side.files[file]).iter_batches(batch_size=256):
                mask = pa.array([before + i in numbers for i in range(1, len(batch) + 1)])
                before += len(batch)
                kept = batch.filter(mask)
                if len(kept):
                    writer.write_table(pa.Table.from_batches([kept]).select(schema.names).cast(schema))
