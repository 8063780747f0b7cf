"""Read triplets back from an export: WebDataset tars as `vsre.repaint.export` writes them, or Parquet files of
triplets.

OUT/part-NNNNN.parquet   the triplets; OUT/set_aside.jsonl   what could not be used, with the place and the reason
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from vsre.errors import VsreError, first_line
from vsre.sources.images import MAX_BYTES, open_header
from vsre.triplets import (
    ParquetShards,
    Triplet,
    image_content_id,
    is_split_name,
    source_files,
    to_row,
    triplet_schema,
)

BAD_SPLIT = "the split cannot name a file"
CUT_SHORT = "the archive is cut short"
NO_PICTURE = "annotations without their picture"
NO_ANNOTATIONS = "a picture without its annotations"
NOT_OURS = "the annotations are not as `vsre repaint export` writes them"
OTHER_PICTURE = "the picture is not the one that the annotations name"
TOO_LARGE = "a file of the archive is larger than a picture may be"

_PICTURES = ("png", "jpg", "jpeg", "webp")
_TAR_END = 1024
"""A tar ends with two blocks of 512 zero bytes."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Statement(_Strict):
    key: str
    subject: str
    relation: str
    object: str
    caption: str
    label: bool
    subject_box: tuple[float, float, float, float] | None
    object_box: tuple[float, float, float, float] | None
    provenance: dict[str, Any]


class _Said(_Strict):
    """What is said about a picture: a sample's JSON as `vsre.repaint.export` writes it, or a row of a Parquet file."""

    image_id: str
    image_name: str
    width: int
    height: int
    split: str
    origin: str
    provenance: dict[str, Any]
    triplets: list[_Statement]


@dataclass(frozen=True)
class _Bad:
    place: str
    reason: str


def import_export(source: Path | str, out: Path | str) -> dict[str, Any]:
    """Read SRC (a folder, a tar or a Parquet file) into triplets in OUT; returns how many, and what was set aside by
    reason. Triplets already in OUT are replaced once the new ones are complete. Raises VsreError if SRC holds neither
    tars nor Parquet files, if OUT is its folder, and if nothing in it can be used."""
    source, out = Path(source), Path(out)
    tars = [source] if source.suffix == ".tar" and source.is_file() else sorted(source.glob("*.tar"))
    if out.resolve() == source.resolve():
        raise VsreError(f"{out}: this is where the export is. Write the triplets to another folder.")
    found: Iterator[Triplet | _Bad] = _from_tars(tars) if tars else _from_parquet(source_files(source, out))
    reasons: Counter[str] = Counter()
    pictures: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    with (
        (out / "set_aside.jsonl").open("w", encoding="utf-8") as set_aside,
        ParquetShards(out, triplet_schema()) as shards,
    ):
        for item in found:
            if isinstance(item, _Bad):
                reasons[item.reason] += 1
                set_aside.write(json.dumps({"place": item.place, "reason": item.reason}) + "\n")
            else:
                shards.write(to_row(item))
                pictures.add(item.image_id)
        if not pictures:
            raise VsreError(f"{source}: not one picture in it can be used. See {out / 'set_aside.jsonl'}.")
    return {"rows": shards.written, "images": len(pictures), "set_aside": dict(reasons.most_common())}


def _from_parquet(files: Sequence[Path]) -> Iterator[Triplet | _Bad]:
    for file in files:
        for number, row in enumerate(_rows(file), 1):
            place = f"{file.parent.name}/{file.name}:{number}"
            image = (row["image"] or {}).get("bytes")
            if image is None:
                yield _Bad(place, NO_PICTURE)
            else:
                yield from _sample(place, image, partial(_said_of, row))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Raises VsreError if the file cannot be read or does not hold triplets."""
    names = triplet_schema().names
    try:
        with pq.ParquetFile(file) as parquet:
            if missing := [name for name in names if name not in parquet.schema_arrow.names]:
                raise VsreError(f"{file}: not a triplet file, it lacks the columns {', '.join(missing)}.")
            for batch in parquet.iter_batches(batch_size=64, columns=names):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise VsreError(f"{file}: cannot be read as Parquet ({first_line(error)}). Export it again.") from error


def _said_of(row: Mapping[str, Any]) -> _Said:
    """A row of a Parquet file as a sample with one triplet. Raises ValueError if it is not one."""
    boxes = {name: None if row[name] is None else tuple(row[name]) for name in ("subject_box", "object_box")}
    provenance = json.loads(row["provenance"]) if row["provenance"] else {}
    return _Said.model_validate({**row, "provenance": {}, "triplets": [{**row, **boxes, "provenance": provenance}]})


def _from_tars(tars: list[Path]) -> Iterator[Triplet | _Bad]:
    for path in tars:
        waiting: dict[str, dict[str, bytes]] = {}
        for item in _members(path):
            if isinstance(item, _Bad):
                yield item
                continue
            key, extension, data = item
            parts = waiting.setdefault(key, {})
            parts["json" if extension == "json" else "picture"] = data
            if len(parts) == 2:
                sample = waiting.pop(key)
                read = partial(_Said.model_validate_json, sample["json"])
                yield from _sample(f"{path.name}:{key}", sample["picture"], read)
        for key, parts in waiting.items():
            yield _Bad(f"{path.name}:{key}", NO_PICTURE if "json" in parts else NO_ANNOTATIONS)


def _members(path: Path) -> Iterator[tuple[str, str, bytes] | _Bad]:
    """(key, extension, content) of the files that count. Names never become paths."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, extension = Path(member.name).name.partition(".")
                if not member.isfile() or extension not in (*_PICTURES, "json"):
                    continue
                if member.size > MAX_BYTES:
                    yield _Bad(f"{path.name}:{key}", TOO_LARGE)
                    continue
                opened = tar.extractfile(member)
                assert opened is not None
                data = opened.read()
                if len(data) == member.size:
                    yield key, extension, data
    except (tarfile.TarError, EOFError):
        pass  # Missing parts are noticed below, by the end of the archive.
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _TAR_END, 0))
        if size < _TAR_END or file.read().strip(b"\0"):
            yield _Bad(path.name, CUT_SHORT)


def _sample(place: str, image: bytes, read: Callable[[], _Said]) -> Iterator[Triplet | _Bad]:
    """The triplets of a picture, or _Bad for what cannot be used. `read` parses what is said about it, and may raise
    ValueError."""
    try:
        said = read()
        open_header(image, name=place)
    except (ValueError, VsreError):  # pydantic's and JSON's errors are ValueErrors
        yield _Bad(place, NOT_OURS)
        return
    if said.image_id != image_content_id(image):
        yield _Bad(place, OTHER_PICTURE)
        return
    if not is_split_name(said.split):
        yield _Bad(place, BAD_SPLIT)
        return
    common = said.model_dump(exclude={"provenance", "triplets"})
    for row in said.triplets:
        words = row.model_dump(exclude={"key", "provenance"})
        triplet = Triplet(**common, **words, image=image, provenance={**said.provenance, **row.provenance})
        yield triplet if triplet.key == row.key else _Bad(place, NOT_OURS)
