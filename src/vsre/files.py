"""Writing aside and renaming, so that a kill leaves a whole file or none, and locks that a kill releases."""

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
"""The folder in OUT; its files are empty, and may be deleted where no process works on OUT."""


def write_aside(path: Path, content: str | bytes) -> None:
    """Write the whole of a file, text as UTF-8, or, where that fails, nothing."""
    data = content if isinstance(content, bytes) else content.encode()
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(data)  # what is linked to, or a device such as /dev/stdout, is not to be replaced by a file
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
    """Whether there is such a file. A name that no file can have, such as one too long for the disk, is not an error
    here: rows bring any."""
    try:
        return path.is_file()
    except OSError:
        return False


Lock = Literal["held", "elsewhere", "unknown"]
"""Ours; another process's; or a disk without locks, where nobody can tell."""

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""What the system says of a full disk, or of one's share of it."""

_NO_LOCKS = frozenset((errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP))
"""What the system says where a disk has no locks, or has them no more."""


@contextmanager
def locked(out: Path, name: str, *, wait: bool) -> Iterator[Lock]:
    """Hold OUT's lock of this name against other processes, on this machine and on those that share the disk; where
    another process holds it, wait or tell. The system releases it when its process dies.

    On a disk without locks nobody waits; shards are renamed whole, so that costs time and nothing else.
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
    """Whether the disk has locks. Tried before filelock does, which without them waits: older versions take every
    refusal for somebody else's lock, newer ones wait for a marker file that a killed process left."""
    try:
        import fcntl
    except ImportError:  # Windows, whose locks are of another kind
        return True
    with tempfile.TemporaryFile(dir=folder) as file:  # one of our own: nobody is kept from a lock meanwhile
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True


@contextmanager
def full_disk_told(out: Path) -> Iterator[None]:
    """A full disk as a message for people."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise VsreError(
                f"{out}: no space left on the disk. Shards that are done are kept; free some space and run the same "
                "command again."
            ) from error
        raise
