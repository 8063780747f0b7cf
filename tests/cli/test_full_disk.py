"""A full disk, whatever verb meets it."""

import errno
import os
from pathlib import Path

import pytest

from vsre import cli


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("file", ["out/part-00000.parquet", None])
def test_a_full_disk_is_told_once_for_all_verbs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, file: str | None
) -> None:
    def full() -> None:
        raise OSError(code, os.strerror(code), *([file] if file else []))

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(f"error {file}: no space left" if file else "error no space left")
    assert os.strerror(code) in told and "Free some space" in told and "run the same command again" in told


def test_what_else_the_system_says_is_no_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "app", lambda: (tmp_path / "none").read_bytes())
    with pytest.raises(FileNotFoundError):
        cli.main()
