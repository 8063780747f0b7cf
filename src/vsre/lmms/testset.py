"""The expanded test sets as a Hugging Face data set: one configuration per template pack, one row per question.

    DIR/README.md                     the data set card; its front matter names the configurations
    DIR/CONFIG/test-NNNNN.parquet     the questions, with their pictures
    DIR/testset.json                  what was written: counts, packs, fingerprints
    DIR/set_aside.jsonl               rows that could not be used, and why (stays on this machine)

`datasets.load_dataset(DIR, "test_s")` opens it. The rows of a picture are adjacent, and it is stored once for them
(dictionary encoding) unless they take more than ROW_GROUP_BYTES when a reader unpacks them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

import vsre
from vsre.diagnose.metrics import HEADLINES
from vsre.diagnose.plan import askable, by_image, fingerprint_line
from vsre.diagnose.samples import meta_category
from vsre.errors import VsreError
from vsre.lmms.card import write_card
from vsre.lmms.folder import FORMAT, begin, write_summary
from vsre.rewrite import Template, TemplatePack, load_pack
from vsre.rewrite.asking import answer, slot_values
from vsre.sources.images import load_image
from vsre.sources.vsr.set_aside import SetAside
from vsre.triplets import ParquetShards, Triplet, parquet_files, read_triplets

PACKS = tuple(HEADLINES.values())
"""The packs of the headline figures: Test-S, Test-G and the unseen wordings."""

ROW_GROUP_ROWS, ROW_GROUP_BYTES = 500, 16 << 20
"""A row group ends after the picture that fills it, or within one whose rows take more bytes than this unpacked."""

ROWS_PER_FILE = 20_000


@cache
def features() -> Any:
    """The columns, as `datasets.Features`. `answer` is what a right answer looks like, `truth` whether the caption
    holds; `style` is short or full (the answer repeats the statement); `key` names the triplet, `id` the question."""
    from datasets import Features, Image, Value  # takes half a second

    text = Value("string")
    names = "format style template pack subject relation object meta_category caption key image_id split origin"
    return Features(
        {"id": text, "image": Image(), "prompt": text, "answer": text, "truth": Value("bool")}
        | dict.fromkeys(names.split(), text)
    )


def config_name(pack: str) -> str:
    """The configuration of a pack: the name of its headline figure, else its own with underscores."""
    return {name: headline for headline, name in HEADLINES.items()}.get(pack, pack.replace("-", "_").replace(".", "_"))


def write_testset(
    triplets_path: str | Path,
    out_dir: str | Path,
    packs: Sequence[str | Path | TemplatePack] = PACKS,
    *,
    limit: int | None = None,
    protocol: str | None = None,
    licence: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write the questions of every template of `packs` about every triplet; returns the content of testset.json.

    The same questions that `vsre.diagnose.diagnose` asks about the same triplets, in the same order: `limit` stops
    after the image that reaches this number of triplets, a triplet that occurs twice is asked once, and one without
    boxes is not asked with templates that state them. A triplet whose picture is missing or cannot be opened is set
    aside. `protocol` and `licence` go into the card. Streams: only the questions of one row group and the keys of the
    triplets are held in memory. `progress` is called with the number of questions written. Run again, it replaces what
    it wrote before. Raises VsreError if there is nothing to ask, or OUT_DIR holds something else.
    """
    loaded = [pack if isinstance(pack, TemplatePack) else load_pack(pack) for pack in packs]
    if limit is not None and limit < 1:
        raise VsreError(f"The limit is {limit}: give 1 or more triplets, or leave it out.")
    writers = {config_name(pack.name): _Config(pack) for pack in loaded}
    if len(writers) < len(loaded) or not loaded:
        raise VsreError(
            f"Each pack makes one configuration, and {', '.join(p.name for p in loaded) or 'no pack'} was asked for. "
            "Name one or more packs, each once."
        )
    parquet_files(triplets_path)  # first, so that a mistyped name does not remove an earlier test set
    out = Path(out_dir)
    begin(out, writers)
    tally = _Tally()
    skipped = {"no_boxes": 0, "duplicate_rows": 0}
    with SetAside(out / "set_aside.jsonl") as set_aside:
        with ExitStack() as stack:
            for name, writer in writers.items():
                shards = ParquetShards(out / name, features().arrow_schema, prefix="test", rows_per_file=ROWS_PER_FILE)
                writer.shards = stack.enter_context(shards)
            for triplets in by_image(tally.numbered(read_triplets(triplets_path)), limit, skipped):
                if (usable := _usable(triplets, tally, set_aside, str(triplets_path))) is None:
                    continue
                for triplet in usable:
                    tally.add(triplet)
                for writer in writers.values():
                    skipped["no_boxes"] += writer.add(usable)
                if progress:
                    progress(sum(writer.rows for writer in writers.values()))
            for writer in writers.values():
                writer.flush()
        if not tally.triplets:
            if set_aside.total:
                raise set_aside.nothing_usable(str(triplets_path))
            raise VsreError(f"{triplets_path}: no triplets in it, so there is nothing to ask.")
    for name, writer in writers.items():
        if not writer.rows:
            raise VsreError(
                f"{triplets_path}: all templates of pack {writer.pack.name} state boxes, and no triplet here has both "
                "of its boxes. Leave that pack out."
            )
        writer.bytes = sum(file.stat().st_size for file in (out / name).glob("test-*.parquet"))
    summary = {
        "format": FORMAT,
        "finished": True,
        "vsre": vsre.__version__,
        "protocol": protocol,
        "licence": licence,
        "limit": limit,
        **tally.summary(),
        "skipped": skipped,
        "set_aside": dict(set_aside.counts.most_common()),
        "configs": {name: writer.summary() for name, writer in writers.items()},
    }
    write_card(out, summary, features())
    write_summary(out, summary)
    return summary


@dataclass
class _Tally:
    """Counts of the triplets asked about, and their fingerprint as `vsre.diagnose` takes it (run.json)."""

    triplets: int = 0
    images: int = 0
    true: int = 0
    dissent: int = 0
    voted: int = 0
    origins: Counter[str] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    digest: Any = field(default_factory=hashlib.sha256)
    rows: dict[str, int] = field(default_factory=dict)
    """The data row of each triplet that is not yet dealt with, by key."""

    def numbered(self, triplets: Iterable[Triplet]) -> Iterator[Triplet]:
        for row, triplet in enumerate(triplets, start=1):
            self.rows.setdefault(triplet.key, row)
            yield triplet

    def add(self, t: Triplet) -> None:
        self.triplets += 1
        self.true += t.label
        self.origins[t.origin] += 1
        self.relations[t.relation] += 1
        votes = t.provenance.get("audit") or {}
        against = votes.get(f"vote_{'false' if t.label else 'true'}_validator_id")
        self.voted += against is not None
        self.dissent += bool(against)
        self.digest.update(f"{fingerprint_line(t)}\n".encode())

    def summary(self) -> dict[str, Any]:
        return {
            "triplets": self.triplets,
            "images": self.images,
            "labelled_true": self.true,
            "votes": {"known": self.voted, "with_dissent": self.dissent},
            "origins": dict(self.origins.most_common()),
            "relations": dict(self.relations.most_common()),
            "fingerprint": "sha256:" + self.digest.hexdigest()[:24],
        }


@dataclass
class _Config:
    """One configuration while it is being written."""

    pack: TemplatePack
    shards: ParquetShards | None = None
    rows: int = 0
    bytes: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    _waiting: list[dict[str, Any]] = field(default_factory=list)
    _size: int = 0

    def add(self, triplets: Sequence[Triplet]) -> int:
        """Take the questions about one image; returns how many were left out for lack of boxes."""
        left_out = 0
        for triplet in triplets:
            templates = askable(triplet, self.pack.templates)
            left_out += len(self.pack.templates) - len(templates)
            for row in _rows(triplet, templates):
                size = len(triplet.image or b"")
                if self._waiting and self._size + size > ROW_GROUP_BYTES:
                    self.flush()
                self._waiting.append(row)
                self._size += size
                self.rows += 1
                self.asked[row["template"]] += 1
        if len(self._waiting) >= ROW_GROUP_ROWS:
            self.flush()
        return left_out

    def flush(self) -> None:
        if self._waiting and self.shards is not None:
            self.shards.write_table(pa.Table.from_pylist(self._waiting, schema=self.shards.schema))
        self._waiting, self._size = [], 0

    def summary(self) -> dict[str, Any]:
        return {
            "pack": self.pack.name,
            "purpose": self.pack.purpose,
            "questions": self.rows,
            "bytes": self.bytes,
            "templates": [
                {"id": t.id, "format": t.format.name, "style": t.style, "questions": self.asked[t.id]}
                for t in self.pack.templates
            ],
        }


def _rows(triplet: Triplet, templates: Sequence[Template]) -> Iterator[dict[str, Any]]:
    values, key = slot_values(triplet), triplet.key
    about = {
        "image": {"bytes": triplet.image, "path": triplet.image_name},
        "truth": triplet.label,
        "subject": triplet.subject,
        "relation": triplet.relation,
        "object": triplet.object,
        "meta_category": meta_category(triplet.relation),
        "caption": triplet.caption,
        "key": key,
        "image_id": triplet.image_id,
        "split": triplet.split,
        "origin": triplet.origin,
    }
    for t in templates:
        yield about | {
            "id": f"{key}/{t.id}",
            "prompt": t.text.format_map(values),
            "answer": answer(t, values, triplet.label),
            "format": t.format.name,
            "style": t.style,
            "template": t.id,
            "pack": t.pack,
        }


def _usable(triplets: list[Triplet], tally: _Tally, set_aside: SetAside, file: str) -> list[Triplet] | None:
    """The triplets of one image with one copy of its bytes; None, and set aside, if it cannot be shown."""
    data, rows = triplets[0].image, [tally.rows.pop(triplet.key) for triplet in triplets]
    try:
        if data is None:
            raise VsreError("no picture in the row: read the annotations again with the folder of images")
        load_image(data, name=triplets[0].image_name or "the picture")
    except VsreError as error:
        reason = "no picture" if data is None else "picture cannot be opened"
        for row, triplet in zip(rows, triplets, strict=True):
            set_aside.add(file, row, reason, str(error), f"{triplet.key}: {triplet.caption}")
        return None
    tally.images += 1
    return [triplet.replace(image=data) for triplet in triplets]
