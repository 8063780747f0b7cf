"""Making a plan: the jobs and everything they depend on, fixed and written before painting begins."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.errors import VsreError
from vsre.files import locked
from vsre.repaint.licences import coco_licences, licence_of
from vsre.repaint.painter import SETTINGS, BatchPainter, Painter, PaintJob, Vocabulary
from vsre.repaint.plan import checked_settings, jobs, survey
from vsre.repaint.plan_files import (
    PLAN,
    HeldOut,
    MadeWith,
    Plan,
    PlanHead,
    differences,
    jobs_schema,
    read_plan,
    vocabulary_text,
)
from vsre.repaint.safety import SafetySpec
from vsre.repaint.source import files_digest, row_digest
from vsre.repaint.specs import Diffusion, Scenes, VerifierSpec
from vsre.repaint.verify import Verifier, policy_of
from vsre.triplets import Triplet

BATCH_JOBS, SHARD_JOBS = 16, 256
"""Jobs per batch (for painters without a size of their own) and per shard, roughly."""

_SHARDS = 64
"""A small set gets smaller shards, so that there are this many, provided that each holds at least one batch."""

_BATCHES_AHEAD = 4
"""A painter's batches are of one setting and size, so it is handed jobs for several at once to fill them."""

_ROWS_A_GROUP = 8192
"""Rows of jobs.parquet that are read at once, roughly."""

_VERSIONS = ("vsre", "torch", "transformers", "diffusers", "pillow", "pyarrow")


def make_plan(
    triplets: Path,
    out: Path,
    painter: Callable[[Vocabulary], Painter],
    *,
    settings: Sequence[str] = SETTINGS,
    per_triplet: int = 1,
    seed: int = 0,
    limit: int | None = None,
    verifier: Verifier | VerifierSpec | None = None,
    safety: SafetySpec | None = None,
    allow_held_out: bool = False,
    held_out: Sequence[Path] = (),
    instances: Sequence[Path] = (),
    shard_jobs: int | None = None,
) -> tuple[Plan, Painter]:
    """Plan what `vsre.repaint.repaint` paints, write the plan to OUT/plan, and return it with the painter. If OUT has
    this plan already, that one is returned.

    `painter` and `verifier` may be specs (`vsre.repaint.specs`), from which any process can make them again, or Python
    objects, which only this program knows. `instances`: COCO files that give the photos' licences.

    Raises VsreError like `repaint`, and if OUT has another plan, saying what the two differ in.
    """
    if per_triplet < 1 or (limit is not None and limit < 1) or (shard_jobs is not None and shard_jobs < 1):
        raise VsreError("per_triplet, limit and shard_jobs must be at least 1.")
    if out.resolve() in (triplets.resolve(), triplets.resolve().parent):
        raise VsreError(f"{out}: this is where the source triplets are. Write the new ones to another folder.")
    vocabulary, count, folders = survey(triplets, allow_held_out=allow_held_out, held_out=held_out)
    ours = painter(vocabulary)
    chosen = checked_settings(settings, ours)
    licences = coco_licences(instances)
    looks = verifier() if isinstance(verifier, VerifierSpec) else verifier
    taken_rows = min(count, limit or count)
    batch = BATCH_JOBS
    if isinstance(ours, BatchPainter):
        batch = ours.batch_size * len(chosen) * _BATCHES_AHEAD
    head = PlanHead(
        source=files_digest(triplets),
        rows=taken_rows,
        of_rows=count,
        settings=chosen,
        per_triplet=per_triplet,
        seed=seed,
        painter=ours.name,
        parameters={setting: _json(ours.parameters_for(setting)) for setting in chosen},
        verifier=looks.name if looks is not None else None,
        policy=policy_of(looks) if looks is not None else None,
        safety=safety.name if safety is not None else None,
        licences=_digest(json.dumps(sorted(licences.items()))) if licences else None,
        vocabulary=_digest(vocabulary_text(vocabulary)),
        held_out=HeldOut(
            folders=tuple((folder.name, files_digest(folder)) for folder in folders),
            captions=len(vocabulary.captions),
            images=len(vocabulary.images),
            class_pairs=len(vocabulary.pairs),
            allowed=allow_held_out,
        ),
        batch_jobs=batch,
        shard_jobs=_shard_jobs(taken_rows * len(chosen) * per_triplet, batch, shard_jobs),
        made_with=MadeWith(
            triplets=triplets.resolve(),
            painter=painter.anywhere() if isinstance(painter, Scenes | Diffusion) else None,
            parameters=_json(ours.parameters),
            verifier=verifier.anywhere() if isinstance(verifier, VerifierSpec) else None,
            safety=safety,
            versions={
                name: importlib.metadata.version(name) for name in _VERSIONS if find_spec(_MODULE.get(name, name))
            },
        ),
    )
    with locked(out, "plan", wait=True):
        if (out / PLAN).is_dir():
            there = read_plan(out)
            if unlike := differences(there.head, head):
                raise VsreError(
                    f"{out} holds another plan. {'; '.join(unlike)}. Go on with the arguments it was made with, or "
                    "choose another folder."
                )
            return there, ours
        planned = jobs(triplets, ours, chosen, per_triplet=per_triplet, seed=seed, count=count, limit=taken_rows)
        return _written(out, head, vocabulary, planned, licences), ours


_MODULE = {"pillow": "PIL"}


def _shard_jobs(total: int, batch: int, asked: int | None) -> int:
    """Jobs per shard: whole batches, at least one."""
    return batch * max(1, (asked or min(SHARD_JOBS, total // _SHARDS)) // batch)


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they are read back from a file."""
    read: dict[str, Any] = json.loads(json.dumps(values))
    return read


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _written(
    out: Path,
    head: PlanHead,
    vocabulary: Vocabulary,
    planned: Iterator[tuple[int, PaintJob]],
    licences: Mapping[str, str],
) -> Plan:
    """Write the plan to a temporary folder and rename it."""
    aside = out / f"{PLAN}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    (aside / "vocabulary.json").write_text(vocabulary_text(vocabulary), encoding="utf-8")
    group = head.shard_jobs * max(1, _ROWS_A_GROUP // head.shard_jobs)
    rows: list[dict[str, Any]] = []
    met: set[int] = set()
    ids = hashlib.sha256()
    count = repeated = 0
    of_row, source = -1, {}
    with pq.ParquetWriter(aside / "jobs.parquet", jobs_schema, compression="zstd") as writer:
        for row, job in planned:
            number = int(job.id, 16)
            if number in met:
                repeated += 1
                continue
            met.add(number)
            ids.update(job.id.encode())
            if row != of_row:
                of_row, source = row, _source(row, job.triplet, licences)
            rows.append(
                {
                    "job": job.id,
                    "shard": count // head.shard_jobs,
                    "batch": count // head.batch_jobs,
                    "setting": job.setting,
                    "asked": job.truth,
                    "seed": job.seed,
                    **source,
                }
            )
            count += 1
            if len(rows) == group:
                writer.write_table(pa.Table.from_pylist(rows, jobs_schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, jobs_schema))
    whole = head.model_copy(update={"jobs": count, "repeated": repeated, "ids": ids.hexdigest()[:24]})
    (aside / "plan.json").write_text(whole.model_dump_json(indent=1) + "\n", encoding="utf-8")
    aside.replace(out / PLAN)
    return Plan(out, whole)


def _source(row: int, triplet: Triplet, licences: Mapping[str, str]) -> dict[str, Any]:
    """The columns that the jobs of one triplet share."""
    return {
        "row": row,
        "source_key": triplet.key,
        "source_image": triplet.image_id,
        "caption": triplet.caption,
        "relation": triplet.relation,
        "label": triplet.label,
        "source_digest": row_digest(triplet),
        "source_licence": licence_of(triplet, licences),
    }
