"""How fast, and with how much memory, 500,000 questions are written from 11,000 triplets.

    python benchmarks/rewrite_speed.py [--json OUT]

The triplets are made up (COCO class names, relations of VSR); each is asked in 46 of the pool's 50 templates.
Memory is the peak resident size of a fresh process that does the rewriting and nothing else.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vsre.relations.grammar import caption
from vsre.rewrite import rewrite
from vsre.triplets import Triplet, write_triplets

TRIPLETS, PER_TRIPLET = 11_000, 46
THINGS = [
    "person",
    "cat",
    "dog",
    "dining table",
    "teddy bear",
    "bed",
    "pizza",
    "cake",
    "truck",
    "potted plant",
]
RELATIONS = ["touching", "in front of", "left of", "contains", "has as a part", "at the right side of", "on"]


def triplets() -> Iterator[Triplet]:
    draw = random.Random(0)
    for number in range(TRIPLETS):
        subject, object = draw.sample(THINGS, 2)
        relation = draw.choice(RELATIONS)
        yield Triplet(
            image_id=f"name:{number:012d}.jpg",
            image_name=f"{number:012d}.jpg",
            subject=subject,
            relation=relation,
            object=object,
            caption=caption(subject, relation, object),
            label=draw.random() < 0.5,
            split="train",
            origin="benchmark",
        )


def measure(folder: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak megabytes of `rewrite`, in this process; called in a fresh one."""
    start, start_cpu = time.perf_counter(), time.process_time()
    summary = rewrite(folder / "triplets", folder / "questions", "pool", per_triplet=PER_TRIPLET, seed=0)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    size = sum(f.stat().st_size for f in (folder / "questions").glob("*.parquet"))
    return {
        "triplets": summary["triplets"],
        "questions": summary["questions"],
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "questions_per_second": round(summary["questions"] / seconds),
        "peak_rss_mb": round(peak),
        "file_mb": round(size / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_triplets(folder / "triplets", triplets())
        command = [sys.executable, __file__, "--measure", str(folder)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    result |= {"python": platform.python_version(), "machine": platform.machine()}
    for key, value in result.items():
        print(f"{key:>22}  {value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
