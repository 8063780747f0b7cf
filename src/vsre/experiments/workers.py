"""The processes that an experiment's models are trained in: one a GPU, or one a core."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from vsre.orphans import end_with_parent


def default_jobs() -> int:
    """A job a GPU, or a job a core where there is none."""
    import torch

    return torch.cuda.device_count() or _cores()


def _cores() -> int:
    """Cores that this process may use; all of the machine's where the system tells no more (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each with its share of the cores or a GPU of its own.

    Where the caller is interrupted they are ended at once: what they were at goes on from its last checkpoint.
    """
    import torch

    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(jobs):
        numbers.put(number)
    gpus: list[str] = []
    if count := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",")[:count] if visible else [str(number) for number in range(count)]
    threads = max(1, _cores() // jobs)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(numbers, gpus, threads))
    others = set(multiprocessing.active_children())
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(numbers: Any, gpus: Sequence[str], threads: int) -> None:
    end_with_parent()
    # Python's KeyboardInterrupt would be one call's result, and the process would take up the next call.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    number = numbers.get()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    import torch

    torch.set_num_threads(threads)
