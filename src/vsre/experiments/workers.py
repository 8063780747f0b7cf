"""The processes that train an experiment's models: one per GPU, or one per core."""

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
    """Return the number of GPUs, or of cores if there is no GPU."""
    import torch

    return torch.cuda.device_count() or _cores()


def _cores() -> int:
    """Return how many cores this process may use; all of the machine's if the system does not say (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of processes, each with its share of the cores or a GPU of its own.

    If the caller is interrupted they are terminated at once; a later run resumes from the last checkpoints.
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
    # A KeyboardInterrupt would become one call's result, and the process would continue with the next call.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    number = numbers.get()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    import torch

    torch.set_num_threads(threads)
