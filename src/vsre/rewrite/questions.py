"""Questions on disk: the triplets of a data set asked through the templates of a pack, in Parquet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.rewrite.asking import Question, Template, TemplatePack, answer, has_boxes, slot_values
from vsre.rewrite.packs import load_pack
from vsre.triplets import (
    ParquetShards,
    Triplet,
    parquet_batches,
    parquet_files,
    parquet_schema,
    read_triplets,
    source_files,
)

QUESTION_SCHEMA = pa.schema(
    [(f.name, pa.bool_() if f.name == "truth" else pa.string()) for f in dataclasses.fields(Question)]
)
"""The columns on disk are the fields of Question."""

SUMMARY = "rewrite.json"

_TRIPLET_COLUMNS = (
    *("image_id", "image_name", "subject", "relation", "object", "caption", "label", "split", "origin"),
    *("subject_box", "object_box"),
)
_CHUNK = 20_000  # rows built in Python before they become Arrow columns: about 10 MB


def rewrite(
    triplets_path: Path | str,
    out_folder: Path | str,
    pack: TemplatePack | str | Path,
    per_triplet: int | None = None,
    seed: int = 0,
    *,
    templates: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Ask the triplets of a file or folder through a pack; write OUT/part-NNNNN.parquet and rewrite.json.

    With `per_triplet=k` each triplet is asked through k templates of the pack, drawn by a hash of seed, triplet key and
    template id: the same whatever else is in the data set and in whatever order it comes. Rows keep the order of the
    triplets and, within a triplet, of the pack. A triplet without boxes is asked only through templates that need none.
    A triplet that occurs twice in the data is asked once, so that a question's id names one row. With `templates=n`
    only n of the pack's templates are used (`some_templates`).

    Returns (and writes) the summary: `triplets`, `repeated`, `questions`, `not_asked` (questions that were wanted but
    could not be asked because the boxes are unknown), the pack, its templates, the seed. `progress` is called now and
    then with the number of triplets done. The same input and seed give the same bytes. Questions already in OUT are
    replaced once the new ones are complete. Raises VsreError if there is nothing to read, and if OUT is the folder of
    the triplets.
    """
    out = Path(out_folder)
    source_files(triplets_path, out)
    pack = pack if isinstance(pack, TemplatePack) else load_pack(pack)
    if templates is not None:
        pack = some_templates(pack, templates, seed)
    if per_triplet is not None and not 1 <= per_triplet <= len(pack.templates):
        raise VsreError(
            f"Cannot ask each triplet through {per_triplet} templates: "
            f"pack {pack.name} has {len(pack.templates)}. "
            f"Give a number from 1 to {len(pack.templates)}, or none for all of them."
        )
    without_boxes = tuple(t for t in pack.templates if not t.needs_boxes)
    wanted = per_triplet or len(pack.templates)
    triplets = repeated = not_asked = 0
    seen: set[str] = set()
    rows: list[tuple[Any, ...]] = []
    with ParquetShards(out, QUESTION_SCHEMA, rows_per_file=100_000) as shards:
        for triplet in read_triplets(triplets_path, columns=_TRIPLET_COLUMNS):
            key = triplet.key
            if key in seen:
                repeated += 1
                continue
            seen.add(key)
            triplets += 1
            asked = pack.templates if has_boxes(triplet) else without_boxes
            if per_triplet is not None:
                asked = _draw(asked, per_triplet, seed, key)
            not_asked += wanted - len(asked)
            rows += _rows(triplet, key, asked)
            if len(rows) >= _CHUNK:
                shards.write_table(_table(rows))
                rows.clear()
                if progress:
                    progress(triplets)
        if rows:
            shards.write_table(_table(rows))
        (out / SUMMARY).unlink(missing_ok=True)  # It describes the questions that are replaced now.
    summary = {
        "triplets": triplets,
        "repeated": repeated,
        "questions": shards.written,
        "not_asked": not_asked,
        "pack": pack.name,
        "templates": [t.id for t in pack.templates],
        "per_triplet": per_triplet,
        "seed": seed,
    }
    write_aside(out / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def some_templates(pack: TemplatePack, count: int, seed: int) -> TemplatePack:
    """The pack with `count` of its templates, in the pack's order; with one seed, a smaller choice is part of a larger
    one.

    The first is worded as Test-S asks, or as close to it as the pack allows: in its format, short, without boxes. Then
    the answer formats take turns for as long as they have templates; the seed decides which of a format's comes next.
    Raises VsreError if the pack does not have that many.
    """
    if not 1 <= count <= len(pack.templates):
        raise VsreError(
            f"Cannot take {count} templates: pack {pack.name} has {len(pack.templates)}. Give a number from 1 to that."
        )
    (plain,) = load_pack("test-s").templates

    def ticket(text: str) -> bytes:
        return hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest()

    def unlike_plain(t: Template) -> tuple[bool, ...]:
        return t.text != plain.text, t.format != plain.format, t.style != plain.style, t.needs_boxes

    left = sorted(pack.templates, key=lambda t: (unlike_plain(t), ticket(t.id)))
    taken = [left.pop(0)]
    left.sort(key=lambda t: ticket(t.id))
    uses = Counter([taken[0].format.name])
    while len(taken) < count:
        name = min({t.format.name for t in left}, key=lambda name: (uses[name], ticket(name)))
        uses[name] += 1
        taken.append(left.pop(next(i for i, t in enumerate(left) if t.format.name == name)))
    ids = {t.id for t in taken}
    return dataclasses.replace(pack, templates=tuple(t for t in pack.templates if t.id in ids))


def _draw(templates: tuple[Template, ...], count: int, seed: int, key: str) -> tuple[Template, ...]:
    """`count` of the templates (all if there are fewer), in the pack's order."""
    if len(templates) <= count:
        return templates
    start = hashlib.blake2b(f"{seed}\n{key}\n".encode(), digest_size=8)

    def ticket(index: int) -> bytes:
        number = start.copy()
        number.update(templates[index].id.encode())
        return number.digest()

    return tuple(templates[i] for i in sorted(sorted(range(len(templates)), key=ticket)[:count]))


def _rows(triplet: Triplet, key: str, templates: tuple[Template, ...]) -> Iterator[tuple[Any, ...]]:
    """The questions of one triplet as tuples in the order of QUESTION_SCHEMA: half the time of `ask`."""
    values = slot_values(triplet)
    image_id, truth, split = triplet.image_id, triplet.label, triplet.split
    for t in templates:
        prompt = t.text.format_map(values)
        yield key, image_id, t.id, t.pack, prompt, answer(t, values, truth), truth, t.format.name, split


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = [
        pa.array(column, type=field.type)
        for column, field in zip(zip(*rows, strict=True), QUESTION_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=QUESTION_SCHEMA)


def read_questions(path: Path | str) -> Iterator[Question]:
    """Stream the questions of a file or folder, in the order they were written."""
    names = QUESTION_SCHEMA.names
    for file in parquet_files(path):
        there = parquet_schema(file).names
        missing = [n for n in names if n not in there]
        if missing:
            raise VsreError(f"{file}: not a question file, it lacks the columns {', '.join(missing)}.")
        tables = (batch.to_pydict() for batch in parquet_batches(file, names, size=4096))
        yield from chain.from_iterable(map(Question, *(table[n] for n in names)) for table in tables)
