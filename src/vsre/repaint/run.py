"""Repaint a set of triplets: plan the jobs, paint them, keep a balanced choice of captions, write Parquet.

OUT/part-NNNNN.parquet   the new triplets
OUT/set_aside.jsonl      one line a refused job, with the reason
OUT/repaint.json         what was made, counted
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.repaint.balance import Balance
from vsre.repaint.painter import (
    KINDS,
    SETTINGS,
    BatchPainter,
    Painted,
    Painter,
    PaintJob,
    Refused,
    Vocabulary,
    paint_all,
)
from vsre.repaint.plan import checked_settings, jobs, survey
from vsre.repaint.scene_painter import ScenePainter
from vsre.repaint.verify import Verifier, verified
from vsre.sources.protocols import image_names
from vsre.triplets import ParquetShards, image_content_id, to_row, triplet_schema

SAME_PICTURE = "the same picture was painted for another triplet"
HELD_OUT_CAPTION = "the caption stands in a held-out split"
HELD_OUT_IMAGE = "the source picture stands in a held-out split"
_CHUNK = 16


def repaint(
    triplets_path: Path | str,
    out: Path | str,
    *,
    settings: Sequence[str] = SETTINGS,
    per_triplet: int = 1,
    seed: int = 0,
    limit: int | None = None,
    painter: Callable[[Vocabulary], Painter] | None = None,
    scenes: Path | str | None = None,
    captions_per_image: int = 8,
    workers: int = 1,
    allow_held_out: bool = False,
    held_out: Sequence[Path] = (),
    verifier: Verifier | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Paint `per_triplet` pictures a triplet and setting; returns (and writes to repaint.json) what was made.

    `painter` makes the painter from the vocabulary it may use; the default paints scenes, and `scenes` is then the
    scenes.jsonl of the world that the triplets come from (without it, layouts are approached from boxes). `limit`:
    paint from so many triplets only, spread evenly over the set. `captions_per_image`: further captions kept of a
    picture, at most; see `balance`. `progress(done, total)` counts jobs. The same arguments give the same files,
    whatever `workers` is. What OUT held before is replaced.

    Nothing is painted from rows, pictures or captions of a split called test or dev: of the source itself (which is
    an error), of the folders of those names beside it, and of the folders in `held_out`. `verifier` looks at every
    picture, and only what it bears out is written; without one, what a painter did not draw itself but was only asked
    for is written as `intended`.

    Raises VsreError where the source holds rows of a test or dev split (unless `allow_held_out`), for
    settings that the painter does not have, and when every job was refused.
    """
    source, out = Path(triplets_path), Path(out)
    if per_triplet < 1 or workers < 1 or captions_per_image < 0 or (limit is not None and limit < 1):
        raise VsreError("per_triplet, limit and workers start at 1, captions_per_image at 0.")
    if out.resolve() in (source.resolve(), source.resolve().parent):
        raise VsreError(f"{out}: this is where the source triplets are. Write the new ones to another folder.")
    vocabulary, count, folders = survey(source, allow_held_out=allow_held_out, held_out=held_out)
    make = painter or partial(ScenePainter, scenes=scenes)
    ours = make(vocabulary)
    chosen = checked_settings(settings, ours)
    taken = min(count, limit or count)
    total = taken * len(chosen) * per_triplet
    plan = jobs(source, ours, chosen, per_triplet=per_triplet, seed=seed, count=count, limit=taken)
    balance, counts = Balance(captions_per_image), _Counts()
    out.mkdir(parents=True, exist_ok=True)
    (out / "repaint.json").unlink(missing_ok=True)
    with (
        (out / "set_aside.jsonl").open("w", encoding="utf-8") as set_aside,
        ParquetShards(out, triplet_schema()) as shards,
    ):
        for done, result in enumerate(_new(_results(ours, vocabulary, plan, workers)), start=1):
            if verifier is not None and isinstance(result, Painted):
                result = verified(result, verifier)
            if isinstance(result, Refused):
                counts.refused[result.reason] += 1
                set_aside.write(json.dumps(_set_aside(result)) + "\n")
            else:
                rows = result.triplets(balance.choose(result))
                for row in rows:
                    shards.write(to_row(row))
                counts.add(result, [r.provenance["kind"] for r in rows])
            if progress:
                progress(done, total)
    if not counts.images:
        reasons = "; ".join(f"{reason} ({n})" for reason, n in counts.refused.most_common())
        raise VsreError(f"{source}: not one picture could be painted: {reasons}. See {out / 'set_aside.jsonl'}.")
    summary = {
        "painter": {"name": ours.name, **ours.parameters},
        "source": {"triplets": taken, "seed": seed, "per_triplet": per_triplet},
        **counts.summary(),
        **({"verifier": verifier.name} if verifier is not None else {}),
        "held_out": {
            "from": [folder.name for folder in folders],
            "captions": len(vocabulary.captions),
            "images": len(vocabulary.images),
            "class_pairs": len(vocabulary.pairs),
        },
    }
    (out / "repaint.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


class _Counts:
    def __init__(self) -> None:
        self.images = 0
        self.settings: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.truth: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def add(self, painted: Painted, kinds: Sequence[str]) -> None:
        self.images += 1
        self.settings[painted.job.setting] += 1
        self.truth[painted.truth] += 1
        self.kinds.update(kinds)

    def summary(self) -> dict[str, Any]:
        rows = self.kinds.total()
        return {
            "rows": rows,
            "images": self.images,
            "by_setting": {s: self.settings[s] for s in SETTINGS if s in self.settings},
            "by_kind": {k: self.kinds[k] for k in KINDS},
            "by_truth": dict(self.truth),
            "refused": dict(self.refused.most_common()),
            "true_share": round(self.kinds["positive"] / rows, 4) if rows else None,
        }


def _set_aside(refused: Refused) -> dict[str, Any]:
    job = refused.job
    return {
        "job": job.id,
        "key": job.triplet.key,
        "image": job.triplet.image_name,
        "caption": job.triplet.caption,
        "setting": job.setting,
        "reason": refused.reason,
    }


_Result = Painted | Refused


def _new(results: Iterator[_Result]) -> Iterator[_Result]:
    """The results, with a picture that was painted before refused: its captions would be keys met twice."""
    met: set[str] = set()
    for result in results:
        if isinstance(result, Painted):
            image_id = image_content_id(result.image)
            if image_id in met:
                result = Refused(result.job, SAME_PICTURE)
            met.add(image_id)
        yield result


def _results(painter: Painter, vocabulary: Vocabulary, plan: Iterator[PaintJob], workers: int) -> Iterator[_Result]:
    """The results in the order of the jobs; with several workers, a few chunks ahead and no more.

    The jobs are cut into the same chunks whatever the number of workers, so batches are the same too.
    """
    chunk = _CHUNK if not isinstance(painter, BatchPainter) else painter.batch_size * len(painter.settings)
    chunks = iter(lambda: list(islice(plan, chunk)), [])
    if workers == 1:
        for jobs in chunks:
            yield from paint_allowed(painter, vocabulary, jobs)
        return
    waiting: deque[Future[list[_Result]]] = deque()
    # Spawned, not forked: Parquet is read by threads, and a fork copies their locks as they happen to be.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(painter, vocabulary)) as pool:
        for jobs in chunks:
            waiting.append(pool.submit(_paint_chunk, jobs))
            if len(waiting) > 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def paint_allowed(painter: Painter, vocabulary: Vocabulary, jobs: Sequence[PaintJob]) -> list[_Result]:
    """One result a job, in their order; what is held out is refused before the painter sees it."""
    refused = {
        index: Refused(job, why) for index, job in enumerate(jobs) if (why := _held_out(job, vocabulary)) is not None
    }
    painted = iter(paint_all(painter, [job for index, job in enumerate(jobs) if index not in refused]))
    return [refused[index] if index in refused else next(painted) for index in range(len(jobs))]


def _held_out(job: PaintJob, vocabulary: Vocabulary) -> str | None:
    if job.triplet.caption in vocabulary.captions:
        return HELD_OUT_CAPTION
    return HELD_OUT_IMAGE if image_names(job.triplet) & vocabulary.images else None


_worker: list[tuple[Painter, Vocabulary]] = []


def _start(painter: Painter, vocabulary: Vocabulary) -> None:
    _worker.append((painter, vocabulary))


def _paint_chunk(chunk: Sequence[PaintJob]) -> list[_Result]:
    painter, vocabulary = _worker[0]
    return paint_allowed(painter, vocabulary, chunk)
