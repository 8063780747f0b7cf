"""Atomic file writes (write aside, then rename), and locks that the system releases when a process is killed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from vsre.errors import VsreError

LOCKS = "locks"
"""The lock folder in OUT. Its files are empty and may be deleted while no process works on OUT."""


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a whole file or, if that fails, nothing; text is encoded as UTF-8."""
    data = content if isinstance(content, bytes) else content.encode()
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(data)  # a symlink, or a device such as /dev/stdout, must not be replaced by a regular file
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def is_file(path: Path) -> bool:
    """Whether the file exists. A name that no file can have, such as one too long for the disk, gives False, not an
    error: names read from rows may be anything."""
    try:
        return path.is_file()
    except OSError:
        return False


Lock = Literal["held", "elsewhere", "unknown"]
"""Held by us; held by another process; or unknown, on a disk without locks."""

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""Error numbers of a full disk or an exhausted quota."""

_NO_LOCKS = frozenset((errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP))
"""Error numbers of a disk that has no locks, or no longer has them."""


@contextmanager
def locked(out: Path, name: str, *, wait: bool) -> Iterator[Lock]:
    """Hold OUT's lock of this name against other processes, on this machine and on others that share the disk. If
    another process holds it, wait, or yield "elsewhere". The system releases it when its process dies.

    On a disk without locks nobody waits; shards are renamed whole, so the only cost is time.
    """
    folder = out / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    if not _has_locks(folder):
        yield "unknown"
        return
    lock = FileLock(folder / f"{name}.lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield "elsewhere"
        return
    except OSError as error:  # a network disk that had locks a moment ago
        if error.errno not in _NO_LOCKS:
            raise
        yield "unknown"
        return
    try:
        yield "held"
    finally:
        lock.release()


def _has_locks(folder: Path) -> bool:
    """Whether the disk has locks. Checked before filelock is used, which would wait without them: older versions take
    every refusal for somebody else's lock, newer ones wait for a marker file that a killed process left."""
    try:
        import fcntl
    except ImportError:  # Windows, which has another kind of lock
        return True
    with tempfile.TemporaryFile(dir=folder) as file:  # a file of our own, so that nobody is locked out meanwhile
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True


@contextmanager
def full_disk_told(out: Path) -> Iterator[None]:
    """Turn a full-disk error into a VsreError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise VsreError(
                f"{out}: no space left on the disk. Finished shards are kept; free some space and run the same "
                "command again."
            ) from error
        raise
