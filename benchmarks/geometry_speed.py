"""How fast relations are judged from boxes: all rows of VSR within a second.

    python benchmarks/geometry_speed.py --triplets FILE... --boxes FILE [--json OUT] [--rounds N]

Each round calls `vsre.relations.photo_rules.judge` once per row, in one process, from boxes in memory; reading files
and loading the rules are not counted. Wall time is what a person waits, CPU time what it costs on a machine that does
other things too. Exits with 1 if the fastest round takes longer than a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from vsre.relations.photo_rules import judge, shipped_rules
from vsre.relations.study.rows import read_rows

LIMIT = 1.0
"""Seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", type=Path, nargs="+", required=True)
    parser.add_argument("--boxes", type=Path, nargs="+", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [
        (row.triplet.relation, list(row.subjects), list(row.objects))
        for row in read_rows(arguments.triplets, arguments.boxes).rows
    ]
    shipped_rules()
    wall, cpu = [], []
    for _ in range(arguments.rounds):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        verdicts = [judge(relation, subject, object).verdict for relation, subject, object in rows]
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
    found = {
        "rows": len(rows),
        "verdicts": {name: verdicts.count(name) for name in sorted(set(verdicts))},
        "wall_seconds": sorted(wall),
        "cpu_seconds": sorted(cpu),
        "rows_a_second": len(rows) / min(wall),
        "within": min(wall) <= LIMIT,
    }
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["within"] else 1


if __name__ == "__main__":
    sys.exit(main())
