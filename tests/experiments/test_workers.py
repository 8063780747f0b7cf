"""The processes of a run: their share of the machine, and their end with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from vsre.experiments import workers as workers_module
from vsre.experiments.workers import _begin, _cores
from vsre.experiments.workers import workers as open_workers
from vsre.orphans import end_with_parent


def test_cores_are_known_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cores() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores() > 0
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert _cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _cores() == 1


def test_each_worker_has_a_gpu_its_threads_and_an_eye_on_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    threads: list[int] = []
    watches = threading.Event()
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(workers_module, "end_with_parent", watches.set)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    numbers: queue.Queue[int] = queue.Queue()
    taken = []
    for number in (2, 0, 1):
        numbers.put(number)
        _begin(numbers, ["3", "5"], 4)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["3", "3", "5"] and threads == [4, 4, 4] and watches.wait(10)
    numbers.put(0)
    _begin(numbers, [], 4)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5", "without GPUs it is left alone"


def test_workers_take_the_gpus_they_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for visible, taken in (("3,5", ["3", "5"]), (None, ["0", "1"])):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with open_workers(2) as pool:
            numbers, gpus, _ = pool._initargs  # type: ignore[attr-defined]
            assert gpus == taken and [numbers.get(timeout=10) for _ in range(2)] == [0, 1]


def _orphan() -> None:
    end_with_parent()
    signal.pause()


def test_a_worker_ends_with_the_run_that_started_it() -> None:
    """A run, killed, leaves its worker; the end of a pipe that only the worker holds tells when it is gone."""
    context = multiprocessing.get_context("fork")
    from_worker, held = os.pipe()

    def run() -> None:
        context.Process(target=_orphan).start()
        os.close(held)
        signal.pause()

    parent = context.Process(target=run)
    parent.start()
    os.close(held)
    try:
        assert not select.select([from_worker], [], [], 1.5)[0], "it works as long as the run is there"
    finally:
        parent.kill()
        parent.join()
    ready, _, _ = select.select([from_worker], [], [], 30)
    assert ready and os.read(from_worker, 1) == b""
    os.close(from_worker)


def _work(folder: str, number: int) -> None:
    Path(folder, f"began-{number}").touch()
    time.sleep(60)


def _run(folder: str) -> None:
    os.setsid()  # a process group of its own, as a shell gives to a command
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), open_workers(1) as pool:
        futures = [pool.submit(_work, folder, number) for number in range(3)]
        for future in futures:
            future.exception()


@pytest.mark.parametrize("whole_group", [True, False], ids=["Ctrl-C", "the run alone"])
def test_an_interrupted_run_takes_up_nothing_more(tmp_path: Path, whole_group: bool) -> None:
    run = multiprocessing.get_context("spawn").Process(target=_run, args=(str(tmp_path),))
    run.start()
    try:
        until = time.monotonic() + 60
        while not [*tmp_path.iterdir()] and time.monotonic() < until:
            time.sleep(0.05)
        assert run.pid is not None
        (os.killpg if whole_group else os.kill)(run.pid, signal.SIGINT)
        run.join(30)
        assert run.exitcode is not None, "it does not wait for what is at work"
    finally:
        run.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["began-0"]
