"""Planning 500,000 jobs and reading a ledger of as many rows: within a minute and a gigabyte together.

    python benchmarks/repaint_plan.py [--jobs N] [--folder FOLDER] [--json OUT]

The triplets and the ledger are made up first, by other processes, and not timed: rows without pictures, nominally
painted by SDXL, each with its prompt, scheduler, weights, mask, verdicts and boxes, written by the code that writes
real ones. Then one process plans (`make_plan`: reading the source, held-out captions, job ids, writing the plan) and
reads the ledger (`ledger_tables`: every column of every row, checksums verified, one shard at a time). Its wall time,
CPU time and peak memory are reported; exits with 1 beyond the limits. Wall time is what a person waits, CPU time what
it costs on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import pyarrow.compute as pc

from vsre.relations.grammar import caption
from vsre.repaint.ledger import ledger_tables
from vsre.repaint.outcome import Outcome
from vsre.repaint.painter import Painted, Statement
from vsre.repaint.plan_files import Planned, read_plan
from vsre.repaint.planning import make_plan
from vsre.repaint.presets import load_config
from vsre.repaint.shards import ShardWriter
from vsre.repaint.source import SourceRows
from vsre.repaint.specs import Diffusion
from vsre.sources.coco import CATEGORY_ID
from vsre.triplets import Triplet, write_triplets

SECONDS, MEGABYTES = 60, 1000
SETTINGS = ("t2i", "i2i", "inpaint")
_RELATIONS = ("left of", "right of", "on", "under", "above", "inside", "near", "behind", "touching", "facing")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, help="where triplets, plan and ledger go; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", choices=("make", "measure"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step == "make":
        make(arguments.folder, arguments.jobs)
        return 0
    if arguments.step == "measure":
        print(json.dumps(measure(arguments.folder)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        step(folder, arguments.jobs, "make")
        found = json.loads(step(folder, arguments.jobs, "measure"))
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["within"] else 1


def step(folder: Path, jobs: int, name: str) -> str:
    command = [sys.executable, __file__, "--folder", str(folder), "--jobs", str(jobs), "--step", name]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(folder: Path) -> dict[str, object]:
    again = folder / "again"
    shutil.rmtree(again, ignore_errors=True)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    plan, _ = make_plan(folder / "train", again, Diffusion(config=load_config("sdxl")), settings=SETTINGS)
    planned, planned_cpu = time.perf_counter(), time.process_time()
    rows = painted = size = 0
    for table in ledger_tables(folder / "out"):
        rows += len(table)
        painted += pc.sum(pc.equal(table["status"], "painted")).as_py()
        size += table.nbytes
    end, end_cpu = time.perf_counter(), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    return {
        "jobs": plan.head.jobs,
        "ledger_rows": rows,
        "painted": painted,
        "ledger_files": plan.shards,
        "plan_seconds": round(planned - begin, 1),
        "ledger_seconds": round(end - planned, 1),
        "seconds": round(end - begin, 1),
        "plan_cpu_seconds": round(planned_cpu - begin_cpu, 1),
        "ledger_cpu_seconds": round(end_cpu - planned_cpu, 1),
        "peak_megabytes": round(peak),
        "ledger_megabytes": round(size / 1e6),
        "within": end - begin <= SECONDS and peak <= MEGABYTES,
    }


def make(folder: Path, jobs: int) -> None:
    """Write the triplets, their plan, and a ledger as if all had been painted and verified."""
    rng = Random(0)
    rows = -(-jobs // len(SETTINGS))
    write_triplets(folder / "train", (triplet(rng, number, "train") for number in range(rows)), rows_per_file=50_000)
    write_triplets(folder / "test", (triplet(rng, number, "test") for number in range(rows, rows + 2000)))
    plan, painter = make_plan(
        folder / "train", folder / "out", Diffusion(config=load_config("sdxl")), settings=SETTINGS
    )
    source = SourceRows(folder / "train")
    for shard in range(plan.shards):
        with ShardWriter(plan, shard) as writer:
            for batch in plan.batches(shard, source, NoPictures(painter)):
                writer.add(batch, [outcome(planned) for planned in batch])
    assert read_plan(folder / "out").digest == plan.digest


class NoPictures:
    """Stands in for the painter of the plan, for triplets that have no pictures."""

    reads_images = False

    def __init__(self, painter: object) -> None:
        self.name = painter.name


def triplet(rng: Random, number: int, split: str) -> Triplet:
    subject, object = rng.sample(sorted(CATEGORY_ID), 2)
    relation = rng.choice(_RELATIONS)
    x, y = rng.uniform(0, 0.6), rng.uniform(0, 0.6)
    return Triplet(
        image_id=f"sha256:{rng.getrandbits(96):024x}",
        image_name=f"{number:012d}.jpg",
        subject=subject,
        relation=relation,
        object=object,
        caption=caption(subject, relation, object),
        label=rng.random() < 0.5,
        split=split,
        origin="vsr",
        width=640,
        height=480,
        subject_box=(x, y, x + 0.3, y + 0.3),
        object_box=(y, x, y + 0.25, x + 0.35),
        provenance={"rows": [f"random/train.jsonl:{number}"], "audit": {"vote_true": [1, 2, 3], "vote_false": []}},
    )


def outcome(planned: Planned) -> Outcome:
    job, source = planned.job, planned.job.triplet
    rng = Random(job.id)
    if rng.random() < 0.2:
        return Outcome(job, "refused", "the subject covers too much of the object")
    said = Statement(source.subject, source.relation, source.object, "positive", source.subject_box, source.object_box)
    boxes = {source.subject: list(source.subject_box or ()), source.object: list(source.object_box or ())}
    notes = {
        "prompt": f"a photo of a {source.subject} {source.relation} a {source.object}",
        "negative_prompt": "",
        "generator_seed": int(job.id, 16) >> 1,
        "steps": 30,
        "guidance": 5.0,
        "steps_run": 30,
        "canvas": [1152, 864],
        "batch": {"size": 4, "place": 1},
        "model": {"repository": "stabilityai/stable-diffusion-xl-base-1.0", "revision": "0" * 40},
        "licence": "openrail++",
        "weights": dict.fromkeys(("unet", "vae", "text_encoder", "text_encoder_2"), "0" * 32),
        "scheduler": {f"option_{n}": n for n in range(25)},
        "dtype": "float16",
        "device": "cuda",
        "versions": {"diffusers": "0", "torch": "0", "transformers": "0"},
        "mask": {"dilation": 0.075, "mode": "apart", "box": boxes[source.subject]},
        "verifier": "some/1",
        "verdicts": [
            {
                "caption": source.caption,
                "verdict": "pass",
                "margin": rng.random(),
                "boxes": boxes,
                "evidence": {"found": [[name, box, rng.random()] for name, box in boxes.items() for _ in range(2)]},
            }
        ],
    }
    painted = Painted(job, job.id.encode(), 1152, 864, (said,), notes=notes, truth="verified")
    return Outcome(job, "painted", None, painted, "ok", rng.getrandbits(64), None, None, 2.5)


if __name__ == "__main__":
    sys.exit(main())
