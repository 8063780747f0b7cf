"""The verdicts on a set of triplets as a table: one row per triplet, with everything its verdict rests on.

OUT/parts/part-NNNNN.parquet   during a run; each file is complete once it is there
OUT/verdicts.parquet           the whole, once all is verified
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.diagnose.samples import sample_files
from vsre.errors import VsreError, first_line
from vsre.repaint.verify import MISSING, Verification
from vsre.triplets import Triplet

_BOX = pa.list_(pa.float64())

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("image_name", pa.string()),
        ("subject", pa.string()),
        ("relation", pa.string()),
        ("object", pa.string()),
        ("caption", pa.string()),
        ("label", pa.bool_()),
        ("origin", pa.string()),
        ("kind", pa.string()),
        ("truth", pa.string()),
        ("verdict", pa.string()),
        ("missing", pa.bool_()),
        ("margin", pa.float64()),
        ("reason", pa.string()),
        ("rule", pa.string()),
        ("subject_state", pa.string()),
        ("object_state", pa.string()),
        ("subject_box", _BOX),
        ("object_box", _BOX),
        ("subject_score", pa.float64()),
        ("object_score", pa.float64()),
        ("evidence", pa.string()),
    ]
)
"""`kind` and `truth` come from a repainted triplet's provenance and are null otherwise. `missing` marks a FAIL because
a thing is not there, not because of where things are. Boxes (those that were judged) and scores are null if nothing
counts; states are those of `vsre.verify.presence`. `evidence` is JSON."""


def to_row(triplet: Triplet, found: Verification) -> dict[str, Any]:
    """One row of SCHEMA."""
    seen: Mapping[str, Any] = found.evidence.get("seen", {})
    row = {
        name: getattr(triplet, name)
        for name in ("key", "image_id", "image_name", "subject", "relation", "object", "caption", "label", "origin")
    }
    for part in ("subject", "object"):
        name = getattr(triplet, part)
        box = found.boxes.get(name)
        row[f"{part}_state"] = seen.get(name, {}).get("state")
        row[f"{part}_box"] = None if box is None else list(box)
        row[f"{part}_score"] = _score(box, seen.get(name, {}).get("boxes", ()))
    return row | {
        "kind": triplet.provenance.get("kind"),
        "truth": triplet.provenance.get("truth"),
        "verdict": str(found.verdict),
        "missing": found.reason == MISSING,
        "margin": round(found.margin, 4),
        "reason": found.reason,
        "rule": found.evidence.get("rule") or None,
        "evidence": json.dumps(found.evidence, sort_keys=True, allow_nan=False),
    }


def _score(box: Any, boxes: Any) -> float | None:
    """The score of the box that was judged, from the detector whose boxes count."""
    if box is None:
        return None
    rounded = [round(x, 4) for x in box]
    return next((one["score"] for one in boxes if one["counts"] and one["box"] == rounded), None)


def whole(out: Path) -> Path:
    return out / "verdicts.parquet"


def parts(out: Path) -> Path:
    return out / "parts"


def read_verdicts(out: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[dict[str, Any]]:
    """The verdicts in a run's folder so far, finished or not: each key once, one batch in memory at a time."""
    for batch in _batches(out, [*dict.fromkeys(("key", *columns))]):
        yield from batch.select(columns).to_pylist()


def join_parts(out: Path) -> None:
    """Merge everything into verdicts.parquet and delete the parts. Raises VsreError if one of the files is damaged."""
    if whole(out).is_file() and not sample_files(parts(out)):
        return
    # A unique name: on a disk without locks, another process may be doing the same.
    draft = whole(out).with_name(f".{whole(out).name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with pq.ParquetWriter(draft, SCHEMA, compression="zstd") as writer:
            for batch in _batches(out, SCHEMA.names):
                writer.write_batch(batch)
        draft.replace(whole(out))
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    for file in sample_files(parts(out)):
        file.unlink()
    if parts(out).is_dir():
        parts(out).rmdir()


def _batches(out: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    met: set[str] = set()
    for file in (whole(out), *sample_files(parts(out))):
        if file.is_file():
            for batch in _read(file, columns):
                new = [i for i, key in enumerate(batch["key"].to_pylist()) if not (key in met or met.add(key))]  # type: ignore[func-returns-value]
                yield batch.take(pa.array(new, pa.int64()))


def _read(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Raises VsreError if the file is damaged or does not hold verdicts."""
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(columns=list(columns)):
                yield batch.select(columns)
    except (OSError, KeyError, pa.ArrowException, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:  # from the disk, not from Parquet
            raise VsreError(f"{file}: cannot be read ({first_line(error)}).") from error
        raise VsreError(
            f"{file}: damaged, or no verdicts ({first_line(error)}). Delete it: its rows are looked at again."
        ) from error
