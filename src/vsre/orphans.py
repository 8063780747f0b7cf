"""Worker processes that must not outlive the run they work for."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """From now on, end this process when its parent dies.

    A killed parent closes no queue, so its workers would wait for ever, each with a model in memory, and a restarted
    run would find the old workers still running.
    """
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
