"""Workers and drivers killed with SIGKILL, in the middle of writing too: no job lost, none twice, pictures the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psutil
import pytest
from killed import MOMENTS, arguments
from quick_painter import write_source
from test_work import same
from tiny_sdxl import photo

from vsre.repaint import repaint
from vsre.repaint.ledger import LEDGER
from vsre.triplets import Triplet, image_content_id, write_triplets

HERE = Path(__file__).parent


@contextmanager
def running(source: Path, out: Path, *more: object, painter: str = "slow") -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(HERE / "killed.py"), str(source), str(out), painter, *map(str, more)]
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def killed_at(source: Path, out: Path, moment: str, shard: int, painter: str = "slow") -> None:
    with running(source, out, 1, moment, shard, painter=painter) as process:
        assert process.wait(timeout=300) == -signal.SIGKILL


def done(out: Path) -> int:
    return len(list((out / LEDGER).glob("shard-*.parquet")))


def after(out: Path, shards: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many shards are done."""
    end = time.monotonic() + 300
    while done(out) < shards:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Worker processes that run; the one that cleans up after them is no worker."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


def kill_driver(process: subprocess.Popen[bytes]) -> None:
    orphans = workers(process)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive, "workers end with their driver"


@pytest.mark.parametrize("moment", ["between the two renames"])
def test_a_kill_inside_a_shards_writing(tmp_path: Path, moment: str) -> None:
    source = write_source(tmp_path / "train", 30)
    killed_at(source, tmp_path / "out", moment, 2)
    assert done(tmp_path / "out") == 1
    repaint(source, tmp_path / "out", **arguments("slow"))
    repaint(source, tmp_path / "whole", **arguments("slow"))
    assert same(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_spread_over_a_run(tmp_path: Path) -> None:
    """Five inside a shard's writing, eight of the driver and seven of a worker."""
    source, out, rng = write_source(tmp_path / "train", 600), tmp_path / "out", Random(0)
    kills = 0
    for moment in MOMENTS:
        killed_at(source, out, moment, 1 + kills % 2)
        kills += 1
    while kills < 20:
        with running(source, out, 2) as process:
            for victim in ("worker", "driver"):
                if kills == 20:
                    break
                after(out, done(out) + 1, process)
                time.sleep(rng.uniform(0, 0.3))
                assert process.poll() is None, "there is work left to be killed in"
                if victim == "driver":
                    kill_driver(process)
                elif found := workers(process):
                    rng.choice(found).kill()
                else:
                    continue
                kills += 1
    assert kills == 20
    left = done(out)
    repaint(source, out, **arguments("slow"))
    repaint(source, tmp_path / "whole", **arguments("slow"))
    assert left < done(out) and same(out, tmp_path / "whole")


@pytest.mark.slow
def test_a_diffusion_painter_goes_on_with_the_same_pictures(tmp_path: Path, tiny_sdxl_folder: Path) -> None:
    """Batch by batch as in an undisturbed run; a picture hangs on its batch."""
    pytest.importorskip("diffusers")
    photos = [photo(n) for n in range(20)]
    write_triplets(
        tmp_path / "train",
        (
            Triplet(
                image_content_id(data), f"{n}.png", "cat", "left of", "dog", "The cat is left of the dog.", True,
                "train", "vsr", data, 80, 60, (0.1, 0.2, 0.45, 0.8), (0.5, 0.25, 0.95, 0.9),
            )
            for n, data in enumerate(photos)
        ),
    )  # fmt: skip
    source, out, painter = tmp_path / "train", tmp_path / "out", str(tiny_sdxl_folder)
    killed_at(source, out, "before the first picture is written", 1, painter)
    killed_at(source, out, "between the two renames", 1, painter)
    repaint(source, out, **arguments(painter))
    repaint(source, tmp_path / "whole", **arguments(painter))
    assert same(out, tmp_path / "whole")
