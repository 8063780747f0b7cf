"""A plan on disk: what is to be painted, fixed before painting begins.

OUT/plan/plan.json         what the plan was made from and with: `PlanHead`
OUT/plan/jobs.parquet      one row per job, in order: `jobs_schema`
OUT/plan/vocabulary.json   what may be said, and what is held out (`vsre.repaint.painter.Vocabulary`)

A batch is a run of jobs handed to the painter together, a shard a run of batches. Both depend on the plan alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from vsre.errors import VsreError
from vsre.repaint.painter import Painter, PaintJob, Setting, Vocabulary
from vsre.repaint.safety import SafetySpec
from vsre.repaint.source import SourceRows, row_digest
from vsre.repaint.specs import PainterSpec, VerifierSpec
from vsre.repaint.verify import Policy

PLAN = "plan"
"""The folder in OUT."""

_WORD = pa.dictionary(pa.int32(), pa.string())

jobs_schema = pa.schema(
    [
        ("job", pa.string()),  # a hash of what follows, of the caption's words and of the painter's parameters
        ("shard", pa.int32()),
        ("batch", pa.int64()),
        ("setting", _WORD),
        ("asked", pa.bool_()),
        ("seed", pa.int64()),
        ("row", pa.int64()),  # of the source triplets, from 0
        ("source_key", pa.string()),
        ("source_image", pa.string()),
        ("caption", pa.string()),
        ("relation", _WORD),
        ("label", pa.bool_()),
        ("source_digest", pa.string()),
        ("source_licence", _WORD),
    ]
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MadeWith(_Part):
    """Where things were and what ran when the plan was made, and the painter's own account of its parameters; none of
    it is part of the plan's identity."""

    triplets: Path
    painter: PainterSpec | None
    parameters: dict[str, Any]
    verifier: VerifierSpec | None
    safety: SafetySpec | None
    versions: dict[str, str]


class HeldOut(_Part):
    """The held-out folders, each with its digest, and what was found in them."""

    folders: tuple[tuple[str, str], ...]
    captions: int
    images: int
    class_pairs: int
    allowed: bool


class PlanHead(_Part):
    """`painter`, `verifier` and `safety` are names with revisions, `parameters` the painter's by setting, `source` and
    `licences` digests of files. `policy` is what becomes of the verifier's verdicts; it is not part of the verifier's
    name, which says who looks. It is None without a verifier, and in plans of earlier versions, which did not record
    it. `rows` of `of_rows` triplets are painted from; `repeated` jobs occur twice in the source and are planned once.
    `ids` is a digest of all jobs' ids in order."""

    format: int = 1
    source: str
    rows: int
    of_rows: int
    settings: tuple[Setting, ...]
    per_triplet: int
    seed: int
    painter: str
    parameters: dict[str, Any]
    verifier: str | None
    policy: Policy | None = None
    safety: str | None
    licences: str | None
    vocabulary: str
    held_out: HeldOut
    batch_jobs: int
    shard_jobs: int
    jobs: int = 0
    repeated: int = 0
    ids: str = ""
    made_with: MadeWith

    def identity(self) -> dict[str, Any]:
        """What distinguishes this plan from any other; the jobs follow from it."""
        said = self.model_dump(mode="json", exclude={"made_with", "jobs", "repeated", "ids"})
        if said["policy"] is None:
            del said["policy"]  # so plans of earlier versions keep their digest, and their shards
        return said


@dataclass(frozen=True)
class Planned:
    """A job at its place in the plan, from 0, and the licence of its source's picture if known."""

    place: int
    job: PaintJob
    licence: str | None


@dataclass(frozen=True)
class Plan:
    """A plan as stored in `out`."""

    out: Path
    head: PlanHead

    @cached_property
    def digest(self) -> str:
        """24 hex digits: the same for the same jobs, painter and judge."""
        text = json.dumps([self.head.identity(), self.head.ids], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def shards(self) -> int:
        return -(-self.head.jobs // self.head.shard_jobs)

    def jobs_in(self, shard: int) -> int:
        """How many jobs a shard has."""
        return min(self.head.shard_jobs, self.head.jobs - shard * self.head.shard_jobs)

    def vocabulary(self) -> Vocabulary:
        return read_vocabulary(self.out / PLAN / "vocabulary.json")

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """The shard's rows of jobs.parquet."""
        parquet = self._jobs
        first = shard * self.head.shard_jobs
        group_rows: int = parquet.metadata.row_group(0).num_rows
        table = parquet.read_row_group(first // group_rows)
        rows: list[dict[str, Any]] = table.slice(first % group_rows, self.jobs_in(shard)).to_pylist()
        if [row["shard"] for row in rows] != [shard] * self.jobs_in(shard):
            raise VsreError(f"{self.out / PLAN}: jobs.parquet and plan.json do not belong together.")
        return rows

    def batches(self, shard: int, source: SourceRows, painter: Painter) -> Iterator[list[Planned]]:
        """The shard's jobs, batch by batch, with their triplets (and pictures, if the painter reads them).

        Raises VsreError if the source or the painter is not the one that the plan was made with.
        """
        rows = self.rows(shard)
        size = self.head.batch_jobs
        for at in range(0, len(rows), size):
            batch = rows[at : at + size]
            reads = painter.reads_images and any(row["setting"] != "t2i" for row in batch)
            triplets = source.read([row["row"] for row in batch], images=reads)
            first = shard * self.head.shard_jobs + at
            yield [self._job(first + i, row, triplets[row["row"]], painter) for i, row in enumerate(batch)]

    def _job(self, place: int, row: Mapping[str, Any], triplet: Any, painter: Painter) -> Planned:
        if row_digest(triplet) != row["source_digest"]:
            raise VsreError(
                f"{self.head.made_with.triplets}, row {row['row']}: not the triplet that the plan was made with "
                f"({row['caption']!r}). The set has changed; plan it again in another folder."
            )
        parameters = self.head.parameters[row["setting"]]
        job = PaintJob(triplet, row["setting"], row["seed"], self.head.painter, parameters, row["asked"])
        if job.id != row["job"] or painter.name != self.head.painter:
            raise VsreError(f"{self.out}: job {row['job']} was planned for another painter than {painter.name}.")
        return Planned(place, job, row["source_licence"])

    @cached_property
    def _jobs(self) -> pq.ParquetFile:
        path = self.out / PLAN / "jobs.parquet"
        try:
            return pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise VsreError(
                f"{path}: missing or damaged ({error}). Delete {self.out / PLAN} and plan again."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Open files are not handed to worker processes."""
        return {"out": self.out, "head": self.head}


def read_plan(out: Path | str) -> Plan:
    """The plan in OUT. Raises VsreError if there is none, or if it cannot be read."""
    path = Path(out) / PLAN / "plan.json"
    if not path.is_file():
        raise VsreError(f"{out}: no plan in there. `vsre repaint plan TRIPLETS {out}` makes one.")
    try:
        return Plan(Path(out), PlanHead.model_validate_json(path.read_bytes()))
    except (ValidationError, UnicodeDecodeError) as error:
        raise VsreError(f"{path}: not a plan that this version reads ({error}).") from error


def differences(there: PlanHead, here: PlanHead) -> list[str]:
    """What two plans differ in, one line each."""
    a, b = _flat(there.identity()), _flat(here.identity())
    if there.verifier is not None and there.policy is None:
        b = {name: value for name, value in b.items() if not name.startswith("policy.")}
        return [NO_POLICY, *_unlike(a, b)]
    return _unlike(a, b)


NO_POLICY = "policy: the plan there is from an earlier version of vsre, which did not record what becomes of verdicts"


def _unlike(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [f"{name}: {a.get(name)!r} there, {b.get(name)!r} now" for name in a | b if a.get(name) != b.get(name)]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}.{name}" if prefix else name)
    return flat


def vocabulary_text(vocabulary: Vocabulary) -> str:
    """The vocabulary as JSON, the same for equal vocabularies."""
    said = {
        "classes": list(vocabulary.classes),
        "relations": sorted(vocabulary.relations),
        "captions": sorted(vocabulary.captions),
        "pairs": sorted(vocabulary.pairs),
        "images": sorted(vocabulary.images),
    }
    return json.dumps(said, indent=0)


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in a file. Raises VsreError if it is missing or damaged."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Vocabulary(
            tuple(said["classes"]),
            frozenset(said["relations"]),
            frozenset(said["captions"]),
            frozenset((a, b) for a, b in said["pairs"]),
            frozenset(said["images"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VsreError(f"{path}: missing or damaged ({error}). Plan again in another folder.") from error
