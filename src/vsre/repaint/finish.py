"""From shards to triplets: the pictures in the order of the plan, each once, with a balanced choice of captions.

OUT/part-NNNNN.parquet      the new triplets
OUT/set_aside.jsonl         one line per job that gave none, with the reason
OUT/near_duplicates.jsonl   one line per picture that looks like an earlier one (`vsre.repaint.alike_pictures`); kept
OUT/repaint.json            counts of what was made; written last

Every picture is read again and compared with the hash in its ledger. A damaged shard is moved to OUT/damaged, to be
painted again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vsre.errors import VsreError
from vsre.files import full_disk_told, locked, write_aside
from vsre.repaint.alike_pictures import near_duplicates
from vsre.repaint.balance import Balance
from vsre.repaint.ledger import LEDGER, PICTURES, read_shard_ledger, shard_pictures
from vsre.repaint.outcome import painted_of
from vsre.repaint.painter import KINDS, SETTINGS, Painted
from vsre.repaint.plan_files import Plan
from vsre.repaint.shards import belongs, is_done, put_aside, shard_file
from vsre.triplets import ParquetShards, to_row, triplet_schema

SAME_PICTURE = "the same picture was painted for another triplet"
REPEATED = "the same triplet stands in the source before"
SUMMARY = "repaint.json"

_PARTS = "part-*.parquet"

_IN_MEMORY, _A_FILE = 1 << 26, 1 << 30
"""Bytes of pictures, roughly."""


class DamagedShards(VsreError):
    """Shards that cannot be read; they were moved aside and must be painted again."""


def finish(
    plan: Plan, *, captions_per_image: int = 8, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Gather the shards into triplets; returns (and writes to repaint.json) what was made. Files of an earlier finish
    are replaced, each atomically, once the new ones are complete; if this very finish was done already, they stay as
    they are.

    `captions_per_image`: maximum number of further captions kept per picture; see `balance`.

    Raises VsreError if shards are not painted yet, DamagedShards if some cannot be read, and VsreError if there is not
    one picture.
    """
    if captions_per_image < 0:
        raise VsreError("captions_per_image must be at least 0.")
    with locked(plan.out, "finish", wait=True), full_disk_told(plan.out):
        # Check only now: whoever held the lock may have gathered everything, or moved damaged shards aside.
        if (done := finished(plan, captions_per_image)) is not None:
            return done
        missing = [number for number in range(plan.shards) if not is_done(plan.out, number)]
        if missing:
            raise VsreError(
                f"{plan.out}: {len(missing)} of {plan.shards} shards are not painted yet. `vsre repaint work "
                f"{plan.out}` paints them."
            )
        if not (plan.out / PICTURES).is_dir():
            raise VsreError(f"{plan.out / PICTURES}: the pictures are gone, so nothing can be gathered.")
        return _Finish(plan, captions_per_image, progress).run()


def finished(plan: Plan, captions_per_image: int) -> dict[str, Any] | None:
    """The summary, if this plan has been finished in this way already and its triplets are there; else None."""
    path = plan.out / SUMMARY
    if not path.is_file():
        return None
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    same = summary.get("plan") == plan.digest and summary.get("captions_per_image") == captions_per_image
    return summary if same and _rows(plan.out) == summary.get("rows") else None


def _rows(out: Path) -> int | None:
    """Number of rows of the gathered triplets, from their files' metadata; None if one cannot be read."""
    try:
        return sum(pq.read_metadata(file).num_rows for file in out.glob(_PARTS))
    except (OSError, pa.ArrowException):
        return None


class _Finish:
    def __init__(self, plan: Plan, captions_per_image: int, progress: Callable[[int, int], None] | None) -> None:
        self.plan, self.progress = plan, progress
        self.captions_per_image = captions_per_image
        self.balance = Balance(captions_per_image)
        self.images = 0
        self.counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("settings", "kinds", "truth", "refused", "licences", "devices")
        }
        self.met: set[bytes] = set()
        self.hashes: list[int] = []
        self.kept: list[tuple[str, str]] = []

    def run(self) -> dict[str, Any]:
        out = self.plan.out
        aside = out / "finishing"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        damaged: list[str] = []
        size = _mean_size(self.plan)
        shards = ParquetShards(
            aside,
            triplet_schema(),
            batch=min(500, max(1, _IN_MEMORY // size)),
            rows_per_file=min(5000, max(1, _A_FILE // size)),
        )
        with (aside / "set_aside.jsonl").open("w", encoding="utf-8") as set_aside, shards as parts:
            for number in range(self.plan.shards):
                try:
                    for row, painted in _shard(self.plan, number):
                        # Once a shard is damaged, the rest are only read, to find all damaged ones.
                        if not damaged:
                            set_aside.writelines(self._add(row, painted, parts))
                except _Damaged as error:
                    damaged.append(f"{number} ({error})")
                    put_aside(out, number)
                if self.progress:
                    done = number * self.plan.head.shard_jobs + self.plan.jobs_in(number)
                    self.progress(done, self.plan.head.jobs)
        if damaged:
            raise DamagedShards(
                f"{out}: damaged shards, moved to {out / 'damaged'}: {'; '.join(damaged)}. `vsre repaint work {out}` "
                "paints them again."
            )
        if not self.images:
            (aside / "set_aside.jsonl").replace(out / "set_aside.jsonl")
            shutil.rmtree(aside)
            reasons = "; ".join(f"{reason} ({n})" for reason, n in self.counts["refused"].most_common())
            raise VsreError(f"{out}: not one picture is left: {reasons}. See {out / 'set_aside.jsonl'}.")
        near = self._near_duplicates(aside / "near_duplicates.jsonl")
        (out / SUMMARY).unlink(missing_ok=True)
        new = sorted(aside.iterdir())
        for file in new:
            file.replace(out / file.name)
        # Surplus files of an earlier finish go last: no name disappears for a reader and then comes back.
        for surplus in set(out.glob(_PARTS)) - {out / file.name for file in new}:
            surplus.unlink()
        aside.rmdir()
        summary = self._summary(near)
        write_aside(out / SUMMARY, json.dumps(summary, indent=2) + "\n")
        return summary

    def _add(self, row: dict[str, Any], painted: Painted | None, parts: ParquetShards) -> Iterator[str]:
        """Write the triplets of a picture, or yield its line of set_aside.jsonl."""
        reason = row["reason"]
        if row["status"] == "painted" and painted is not None:
            digest = bytes.fromhex(row["picture"])
            # Its captions would repeat keys.
            reason = SAME_PICTURE if digest in self.met else None
            self.met.add(digest)
        if reason is not None:
            self.counts["refused"][reason] += 1
            named = {"job": "job", "key": "source_key", "image": "source_name", "caption": "caption"}
            line = {name: row[column] for name, column in named.items()}
            yield json.dumps(line | {"setting": row["setting"], "reason": reason}) + "\n"
            return
        assert painted is not None
        triplets = painted.triplets(self.balance.choose(painted))
        for triplet in triplets:
            parts.write(to_row(triplet))
        self.images += 1
        self.hashes.append(row["dhash"])
        self.kept.append((row["job"], row["source_image"]))
        self.counts["settings"][row["setting"]] += 1
        self.counts["truth"][painted.truth] += 1
        self.counts["kinds"].update(triplet.provenance["kind"] for triplet in triplets)
        self.counts["licences"][row["source_licence"] or "unknown"] += 1

    def _near_duplicates(self, path: Path) -> dict[str, int]:
        counts: Counter[str] = Counter()
        with path.open("w", encoding="utf-8") as lines:
            for index, earlier, bits in near_duplicates(self.hashes):
                (job, source), (of, source_of) = self.kept[index], self.kept[earlier]
                counts["of_the_same_source" if source == source_of else "of_another_source"] += 1
                lines.write(json.dumps({"job": job, "of": of, "bits": bits, "same_source": source == source_of}) + "\n")
        return {name: counts[name] for name in ("of_the_same_source", "of_another_source")}

    def _summary(self, near: dict[str, int]) -> dict[str, Any]:
        head, counts = self.plan.head, self.counts
        rows = counts["kinds"].total()
        refused = counts["refused"] + Counter({REPEATED: head.repeated} if head.repeated else {})
        return {
            "painter": {"name": head.painter, **head.made_with.parameters},
            "source": {"triplets": head.rows, "seed": head.seed, "per_triplet": head.per_triplet},
            "rows": rows,
            "images": self.images,
            "by_setting": {s: counts["settings"][s] for s in SETTINGS if s in counts["settings"]},
            "by_kind": {k: counts["kinds"][k] for k in KINDS},
            "by_truth": dict(counts["truth"]),
            "refused": dict(refused.most_common()),
            "true_share": round(counts["kinds"]["positive"] / rows, 4) if rows else None,
            "near_duplicates": near,
            "source_licences": dict(counts["licences"].most_common()),
            "verifier": head.verifier,
            "safety_checker": head.safety,
            "held_out": {
                "from": [name for name, _ in head.held_out.folders],
                "captions": head.held_out.captions,
                "images": head.held_out.images,
                "class_pairs": head.held_out.class_pairs,
            },
            "captions_per_image": self.captions_per_image,
            "plan": self.plan.digest,
        }


def _mean_size(plan: Plan) -> int:
    """Mean bytes per picture, from the first shard."""
    try:
        ledger = read_shard_ledger(shard_file(plan.out, LEDGER, 0), ["bytes"])
    except VsreError:
        return 1  # Damaged, which is reported when its turn comes.
    return int(pc.mean(ledger["bytes"]).as_py() or 1)


class _Damaged(Exception):
    """What is wrong with a shard."""


def _shard(plan: Plan, number: int) -> Iterator[tuple[dict[str, Any], Painted | None]]:
    """Each job of a shard, with its picture if it has one. Raises _Damaged if something is missing or is not what was
    written."""
    try:
        ledger = shard_file(plan.out, LEDGER, number)
        if not belongs(ledger, plan):
            raise _Damaged("painted for another plan")
        rows = read_shard_ledger(ledger).to_pylist()
    except (VsreError, OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _Damaged(error) from error
    if [row["job"] for row in rows] != [row["job"] for row in plan.rows(number)]:
        raise _Damaged("its jobs are not those of the plan")
    pictures = shard_pictures(shard_file(plan.out, PICTURES, number))
    for row in rows:
        if row["picture"] is None:
            yield row, None
            continue
        try:
            job, image, known = next(pictures, ("", b"", ""))
        except VsreError as error:
            raise _Damaged(error) from error
        if job != row["job"] or hashlib.sha256(image).hexdigest() != row["picture"]:
            raise _Damaged(f"the picture of job {row['job']} is not the one that was painted")
        yield row, painted_of(row, image, known)
