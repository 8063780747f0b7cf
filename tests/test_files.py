"""Locks on disks that have none, and a lock that is held."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from vsre.files import LOCKS, locked

NO_LOCKS = ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP")


def refusing(code: str) -> Any:
    def flock(*args: Any) -> None:
        number = getattr(errno, code)
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("code", NO_LOCKS)
def test_on_a_disk_without_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, wait: bool
) -> None:
    """Not for the marker of a process that was killed either, on this machine or another."""
    (tmp_path / LOCKS).mkdir()
    (tmp_path / LOCKS / "one.lock").write_text("4242\nnode17\n")
    monkeypatch.setattr(fcntl, "flock", refusing(code))
    for name in ("one", "two"):
        with locked(tmp_path, name, wait=wait) as lock:
            assert lock == "unknown"
    assert {file.name for file in (tmp_path / LOCKS).iterdir()} <= {"one.lock", "two.lock"}


@pytest.mark.parametrize("code", NO_LOCKS)
def test_locks_that_end_between_the_trial_and_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr("vsre.files._has_locks", lambda folder: True)
    monkeypatch.setattr(FileLock, "acquire", refusing(code))
    with locked(tmp_path, "one", wait=True) as lock:
        assert lock == "unknown"


def test_what_else_goes_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLock, "acquire", refusing("EIO"))
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path, "one", wait=False):
        pass


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with (
        locked(tmp_path, "one", wait=False) as mine,
        locked(tmp_path, "one", wait=False) as other,
        locked(tmp_path, "two", wait=False) as another,
    ):
        assert (mine, other, another) == ("held", "elsewhere", "held")
    with locked(tmp_path, "one", wait=False) as again:
        assert again == "held"
