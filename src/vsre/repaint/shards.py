"""One shard on disk: its pictures and its part of the ledger, written to temporary files and renamed once complete.

A shard is done when its ledger exists, which is renamed last. Parquet's pages carry checksums, so that a byte that
changes later is noticed when it is read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.files import full_disk_told, locked
from vsre.repaint.ledger import LEDGER, PICTURES, schema
from vsre.repaint.outcome import Outcome, known_text, ledger_row
from vsre.repaint.plan_files import Plan, Planned

DAMAGED = "damaged"
"""The folder in OUT for shards that cannot be read; nothing reads it."""

pictures_schema = pa.schema([("job", pa.string()), ("image", pa.binary()), ("known", pa.string())])

_PLAN_KEY = b"vsre.plan"


def shard_file(out: Path, folder: str, number: int) -> Path:
    return out / folder / f"shard-{number:05d}.parquet"


def is_done(out: Path, number: int) -> bool:
    return shard_file(out, LEDGER, number).is_file()


def belongs(ledger: Path, plan: Plan) -> bool:
    """Whether a shard's ledger was written for this plan. Raises OSError or ArrowException if it is damaged."""
    metadata = pq.read_schema(ledger).metadata or {}
    return metadata.get(_PLAN_KEY) == plan.digest.encode()


def put_aside(out: Path, number: int) -> None:
    """Move whatever there is of a shard to OUT/damaged, so that it is painted again."""
    for folder in (LEDGER, PICTURES):
        file = shard_file(out, folder, number)
        if file.is_file():
            aside = out / DAMAGED / folder / file.name
            aside.parent.mkdir(parents=True, exist_ok=True)
            file.replace(aside)


@contextmanager
def claimed(out: Path, number: int, *, wait: bool) -> Iterator[bool]:
    """Hold a shard for painting. Yields False if it is done, or if another process holds it and `wait` is False. Files
    that a killed process left of it are removed."""
    with locked(out, f"shard-{number:05d}", wait=wait) as lock:
        if lock == "elsewhere" or is_done(out, number):
            yield False
            return
        if lock == "held":
            for folder in (LEDGER, PICTURES):
                file = shard_file(out, folder, number)
                for left in file.parent.glob(f".{file.name}.*.tmp"):
                    left.unlink(missing_ok=True)
        yield True


class ShardWriter:
    """Writes a shard batch by batch; leaves both of its files, or neither.

    Raises VsreError if the disk is full.
    """

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan, self.number = plan, number
        self._rows: list[dict[str, Any]] = []
        self._aside: dict[str, Path] = {}
        for folder in (LEDGER, PICTURES):
            file = shard_file(plan.out, folder, number)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._aside[folder] = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> ShardWriter:
        with full_disk_told(self.plan.out):
            self._file: BinaryIO = self._aside[PICTURES].open("wb")
            try:
                self._writer = _writer(self._file, pictures_schema, image=True)
            except BaseException:
                self._give_up()
                raise
        return self

    def add(self, batch: Sequence[Planned], outcomes: Sequence[Outcome]) -> None:
        """The outcomes of a batch, in the order of its jobs."""
        rows = [
            {"job": o.job.id, "image": o.painted.image, "known": known_text(o.painted.others)}
            for o in outcomes
            if o.painted is not None
        ]
        with full_disk_told(self.plan.out):
            if rows:
                self._writer.write_table(pa.Table.from_pylist(rows, pictures_schema))
        for planned, outcome in zip(batch, outcomes, strict=True):
            assert planned.job is outcome.job
            number = planned.place // self.plan.head.batch_jobs
            self._rows.append(ledger_row(outcome, place=planned.place, shard=self.number, batch_number=number))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert len(self._rows) == self.plan.jobs_in(self.number)
                with full_disk_told(self.plan.out):
                    self._finish()
        finally:
            if not self._file.closed:
                with suppress(OSError, pa.ArrowException):
                    self._writer.close()
            self._give_up()

    def _give_up(self) -> None:
        """Remove everything that was not renamed."""
        # On a full disk, closing fails as well.
        with suppress(OSError):
            self._file.close()
        for aside in self._aside.values():
            aside.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._writer.close()
        _to_disk(self._file)
        metadata = {_PLAN_KEY: self.plan.digest.encode()}
        with self._aside[LEDGER].open("wb") as file:
            with _writer(file, schema.with_metadata(metadata), image=False) as writer:
                writer.write_table(pa.Table.from_pylist(self._rows, schema).replace_schema_metadata(metadata))
            _to_disk(file)
        for folder in (PICTURES, LEDGER):
            self._aside[folder].replace(shard_file(self.plan.out, folder, self.number))


def _writer(file: BinaryIO, columns: pa.Schema, *, image: bool) -> pq.ParquetWriter:
    options: dict[str, Any] = {"compression": "zstd"}
    if image:
        # Encoded pictures do not compress further, and no two are equal.
        options = {"compression": {"job": "none", "image": "none", "known": "zstd"}, "use_dictionary": False}
    return pq.ParquetWriter(file, columns, write_page_checksum=True, **options)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
