"""A repaint that kills itself with SIGKILL at a chosen moment inside a shard's writing, or waits to be killed; run in a
process of its own.

    python killed.py SOURCE OUT PAINTER WORKERS [MOMENT SHARD]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from quick_painter import QuickPainter

from vsre.repaint import Vocabulary, repaint, shards
from vsre.repaint.specs import Diffusion

MOMENTS: dict[str, tuple[Any, str, int, int]] = {
    "before the first picture is written": (shards.pq.ParquetWriter, "write_table", 1, 3),
    "between two batches of pictures": (shards.pq.ParquetWriter, "write_table", 2, 3),
    "after the pictures, before the ledger": (shards, "_to_disk", 1, 2),
    "after the ledger, before either is renamed": (Path, "replace", 1, 2),
    "between the two renames": (Path, "replace", 2, 2),
}
"""Gone at the n-th call of a function; a shard of two batches makes so many calls of it."""


class SlowPainter(QuickPainter):
    """A quarter of a second a shard."""

    batch_size = 1

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, wait=0.01)


def arguments(painter: str) -> dict[str, Any]:
    """Of `repaint`: for "slow", or for the folder of a pipeline. Shards have 24 jobs."""
    if painter == "slow":
        return {"painter": SlowPainter, "shard_jobs": 24, "seed": 4}
    from tiny_sdxl import tiny_config

    return {"painter": Diffusion(config=tiny_config(Path(painter)).changed(batch_size=2)), "shard_jobs": 24, "seed": 4}


def gone_at(moment: str, shard: int) -> None:
    """Kill this process in the `shard`-th shard that it writes, from 1, at that moment."""
    owner, name, call, calls_a_shard = MOMENTS[moment]
    call += calls_a_shard * (shard - 1)
    original, calls = getattr(owner, name), 0

    def counted(*args: Any, **more: Any) -> Any:
        nonlocal calls
        if owner is not Path or args[0].name.startswith(".shard"):
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **more)

    setattr(owner, name, counted)


if __name__ == "__main__":
    source, out, painter, workers, *moment = sys.argv[1:]
    if moment:
        gone_at(moment[0], int(moment[1]))
    repaint(source, out, workers=int(workers), **arguments(painter))
