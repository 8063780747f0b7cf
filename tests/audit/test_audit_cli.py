"""The verb: lists of files, the table, exit codes, what it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from audit_data import lines, said, write
from typer.testing import CliRunner

from vsre.audit import Audit
from vsre.cli import app, main
from vsre.cli.audit import spread
from vsre.errors import VsreError

run = CliRunner()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rows = [said(f"{i}.jpg", "cat", "near", "cup", i % 2) for i in range(6)]
    return [
        write(tmp_path / "a.jsonl", rows[:2]),
        write(tmp_path / "b.jsonl", rows[2:3]),
        write(tmp_path / "test.jsonl", rows[1:]),
        write(tmp_path / "other.jsonl", [said("x.jpg", "dog", "near", "cup", 0), said("y.jpg", "dog", "near", "bed")]),
    ]


def test_lists_of_values() -> None:
    assert spread(["--train", "a", "b", "--json", "c", "--test", "d", "--strict"]) == [
        "--train", "a", "--train", "b", "--json", "c", "--test", "d", "--strict",
    ]  # fmt: skip
    assert spread(["--train", "a", "--train", "b", "c"]) == ["--train", "a", "--train", "b", "--train", "c"]
    assert spread(["--train=a", "--seed", "3"]) == ["--train=a", "--seed", "3"]


def test_a_leak_is_shown_and_written(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "figures" / "audit.json"
    clean = tmp_path / "clean.jsonl"
    arguments = ["audit", "--train", *map(str, files[:2]), "--test", str(files[2]), "--json", str(out)]
    result = run.invoke(app, [*arguments, "--write-clean", str(clean)])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert text.startswith("LEAKS: 2 of 5 test rows (40.0 %) are in the training files")
    assert "3 clean rows in" in text and "the commonest label of training" in text
    assert json.loads(out.read_text())["train"]["files"] == [f"{f.parent.name}/{f.name}" for f in files[:2]]
    assert [row["image"] for row in lines(clean)] == ["3.jpg", "4.jpg", "5.jpg"]
    assert run.invoke(app, [*arguments, "--strict"]).exit_code == 1


def test_where_clean_rows_cannot_go_is_told_before_the_audit(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    for name, said_of_it in (("clean.csv", "a .jsonl file"), ("clean.parquet", "holds no triplets")):
        arguments = ["audit", "--train", str(files[0]), "--test", str(files[2]), "--json", str(out)]
        result = run.invoke(app, [*arguments, "--write-clean", str(tmp_path / name)])
        assert isinstance(result.exception, VsreError) and said_of_it in str(result.exception)
        assert not result.output and not out.exists()


def test_figures_are_written_before_the_clean_rows(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Audit, "write_clean", full)
    out = tmp_path / "audit.json"
    arguments = ["audit", "--train", str(files[0]), "--test", str(files[2]), "--json", str(out)]
    assert run.invoke(app, [*arguments, "--write-clean", str(tmp_path / "c.jsonl")]).exit_code == 1
    assert json.loads(out.read_text())["test"]["rows"] == 5


def test_strict_passes_where_nothing_leaks(files: list[Path]) -> None:
    result = run.invoke(app, ["audit", "--train", str(files[3]), "--test", str(files[2]), "--strict"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("No leak found by these checks in 5 test rows.")


def test_bad_input_is_2(monkeypatch: pytest.MonkeyPatch, files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["vsre", "audit", "--train", "nowhere.jsonl", "--test", str(files[2]), "--strict"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "nowhere.jsonl: no such file or folder" in capsys.readouterr().err


def test_text_from_data_is_no_markup(tmp_path: Path) -> None:
    """A caption may hold rich's markup, line breaks and marks that turn the writing round."""
    caption = "[bold red]The cat[/] is\n near \u202ethe cup."
    row = {"image": "[link=x]a.jpg", "caption": caption, "label": 1, "relation": "near"}
    file = write(tmp_path / "a.jsonl", [row, row | {"label": 0}])
    result = run.invoke(app, ["audit", "--train", str(file), "--test", str(file)])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "“[bold red]The cat[/] is near �the cup.”" in text and "\u202e" not in text
