"""What became of a job, as a row of the ledger and back, without losing anything that the finished triplets need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vsre.repaint.ledger import JSON_NOTES, NOTES, Status
from vsre.repaint.painter import Painted, PaintJob, Pixels, Statement, made_from
from vsre.sources.protocols import SOURCE_IMAGE
from vsre.triplets import Box, Triplet


@dataclass(frozen=True)
class Outcome:
    """What became of a job. `painted` is the picture with the statements about it; None if the job was refused."""

    job: PaintJob
    status: Status
    reason: str | None = None
    painted: Painted | None = None
    pixels: Pixels | None = None
    dhash: int | None = None
    safety: float | None = None
    safety_checker: str | None = None
    seconds: float = 0.0


def ledger_row(outcome: Outcome, *, place: int, shard: int, batch_number: int) -> dict[str, Any]:
    """One row in the columns of `schema`."""
    job, painted = outcome.job, outcome.painted
    source = job.triplet
    row: dict[str, Any] = {
        "job": job.id,
        "place": place,
        "shard": shard,
        "batch_number": batch_number,
        "setting": job.setting,
        "asked": job.truth,
        "seed": job.seed,
        "source_key": source.key,
        "source_image": source.image_id,
        "source_made_from": made_from(source),
        "source_name": source.image_name,
        "source_split": source.split,
        "subject": source.subject,
        "relation": source.relation,
        "object": source.object,
        "caption": source.caption,
        "label": source.label,
        "painter": job.painter,
        "parameters": _text(dict(job.parameters)),
        "status": outcome.status,
        "reason": outcome.reason,
        "pixels": outcome.pixels,
        "dhash": outcome.dhash,
        "safety": outcome.safety,
        "safety_checker": outcome.safety_checker,
        "seconds": outcome.seconds,
    }
    if painted is None:
        return row
    return row | {
        "truth": painted.truth,
        **_note_columns(painted.notes),
        "picture": hashlib.sha256(painted.image).hexdigest(),
        "bytes": len(painted.image),
        "width": painted.width,
        "height": painted.height,
        "statements": [_statement_row(s) for s in painted.statements],
        "boxes": _pixel_boxes(painted),
    }


def painted_of(row: Mapping[str, Any], image: bytes, known: str) -> Painted:
    """The picture as it was given to `ledger_row`, restored from a row; its source triplet has only what the ledger
    holds. `known` is the shard's column: `known_text` of what else was known about the picture."""
    first = row["source_made_from"]
    source = Triplet(
        image_id=row["source_image"],
        image_name=row["source_name"],
        subject=row["subject"],
        relation=row["relation"],
        object=row["object"],
        caption=row["caption"],
        label=row["label"],
        split=row["source_split"],
        origin="",
        provenance={} if first is None else {SOURCE_IMAGE: first},
    )
    job = PaintJob(source, row["setting"], row["seed"], row["painter"], json.loads(row["parameters"]), row["asked"])
    notes = {
        name: json.loads(row[name]) if name in JSON_NOTES else row[name] for name in NOTES if row[name] is not None
    }
    statements = tuple(_statement(s) for s in row["statements"])
    return Painted(
        job,
        image,
        row["width"],
        row["height"],
        statements,
        tuple(_statement(dict(zip(_KNOWN, s, strict=True))) for s in json.loads(known)),
        {**notes, **json.loads(row["notes"])},
        row["truth"],
    )


_KNOWN = ("subject", "relation", "object", "kind", "subject_box", "object_box")


def known_text(statements: Sequence[Statement]) -> str:
    """The statements known about a picture beyond those its job asked for, as JSON."""
    return json.dumps([[getattr(s, name) for name in _KNOWN] for s in statements])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _note_columns(notes: Mapping[str, Any]) -> dict[str, Any]:
    """The notes in their columns; whatever no column can hold exactly stays in `notes`."""
    columns: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in notes.items():
        if name in NOTES and _fits(value, name):
            columns[name] = _text(value) if name in JSON_NOTES else value
        else:
            rest[name] = value
    return columns | {"notes": _text(rest)}


def _fits(value: Any, name: str) -> bool:
    if value is None or isinstance(value, bool):
        return False
    if name in JSON_NOTES:
        return True
    kind = NOTES[name]
    if name == "batch":
        return isinstance(value, dict) and value.keys() == {"size", "place"}
    if pa.types.is_list(kind):
        return isinstance(value, list) and all(type(x) is int for x in value)
    wanted = int if pa.types.is_integer(kind) else float if pa.types.is_floating(kind) else str
    return type(value) is wanted


def _statement_row(statement: Statement) -> dict[str, Any]:
    row = {name: getattr(statement, name) for name in _KNOWN}
    return row | {"caption": statement.caption, "label": statement.label}


def _statement(row: Mapping[str, Any]) -> Statement:
    return Statement(
        row["subject"], row["relation"], row["object"], row["kind"], _box(row["subject_box"]), _box(row["object_box"])
    )


def _box(values: Sequence[float] | None) -> Box | None:
    if values is None:
        return None
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1


def _pixel_boxes(painted: Painted) -> list[dict[str, Any]]:
    boxes: dict[str, Box] = {}
    for s in painted.statements:
        for name, box in ((s.subject, s.subject_box), (s.object, s.object_box)):
            if box is not None:
                boxes.setdefault(name, box)
    sides = (painted.width, painted.height) * 2
    return [
        {"name": name, **{edge: x * side for edge, x, side in zip(("x0", "y0", "x1", "y1"), box, sides, strict=True)}}
        for name, box in boxes.items()
    ]
