"""Rows of TSV, CSV, JSON, JSONL and Parquet files: extra and lacking columns, damaged rows, data sets by their id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_data import hub_image, picture, save, write_parquet, write_tsv

from vsre.benchmarks.rows import Aside, Columns, Row, option_index, read_rows
from vsre.benchmarks.source import HubId, Source, hub_rows
from vsre.errors import VsreError

ROWS = [{"id": "1", "text": "one\ttab", "more": "x"}, {"id": "2", "text": 'two "quoted"\nlines', "more": "y"}]


def write(path: Path) -> Path:
    match path.suffix:
        case ".tsv":
            return write_tsv(path, ROWS)
        case ".csv":
            lines = ["id,text,more", '1,"one\ttab",x', '2,"two ""quoted""\nlines",y', ""]
            return save(path, "\n".join(lines).encode())
        case ".json":
            return save(path, json.dumps(ROWS).encode())
        case ".jsonl":
            return save(path, "".join(json.dumps(row) + "\n\n" for row in ROWS).encode())
    return write_parquet(path, ROWS)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".json", ".jsonl", ".parquet"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    aside = Aside()
    found = list(read_rows(write(tmp_path / f"a{suffix}"), ("id|key", "text"), aside))
    assert [(r.text("id"), r.text("text")) for r in found] == [("1", "one\ttab"), ("2", 'two "quoted"\nlines')]
    assert not aside.rows and [r.number for r in found] == ([1, 3] if suffix == ".jsonl" else [1, 2])


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".json", ".jsonl", ".parquet"])
def test_lacking_columns_are_named_in_every_kind(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(VsreError, match=rf"a\{suffix}: lacks the columns key or name, answer\. It has id, text, more"):
        list(read_rows(write(tmp_path / f"a{suffix}"), ("key|name", "text", "answer"), Aside()))


def test_fields_beyond_csv_s_default_limit(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", [{"id": "1", "text": "x" * 3_000_000}])
    assert len(next(read_rows(path, ("id", "text"), Aside())).text("text")) == 3_000_000


def test_damaged_files_and_unknown_kinds(tmp_path: Path) -> None:
    for name, content in (("a.parquet", b"PAR1 not really"), ("b.json", b"\xff\xfe\x00")):
        with pytest.raises(VsreError, match=name):
            list(read_rows(save(tmp_path / name, content), ("id",), Aside()))
    with pytest.raises(VsreError, match="what kind of file"):
        list(read_rows(save(tmp_path / "a.xlsx", b"x"), ("id",), Aside()))
    with pytest.raises(VsreError, match=r"empty\.tsv: lacks the column id\. It has none"):
        list(read_rows(save(tmp_path / "empty.tsv", b""), ("id",), Aside()))
    aside = Aside()
    lines = save(tmp_path / "a.jsonl", b'{"id": 1}\n{"id": \n[3]\n{"key": 4}\n{"id": 5}\n')
    assert [r.text("id") for r in read_rows(lines, ("id",), aside)] == ["1", "5"]
    assert [(r["row"], r["reason"]) for r in aside.rows] == [
        (2, "the row cannot be parsed"), (3, "not a JSON object"), (4, "lacks a field"),
    ]  # fmt: skip


def test_what_counts_as_nothing() -> None:
    row = Row("f", 1, {"a": None, "b": "nan", "c": float("nan"), "d": "  ", "e": 3.0, "f": 0, "g": 2.5})
    assert [row.text(name) for name in "abcdefgz"] == ["", "", "", "", "3", "0", "2.5", ""]
    assert row.text("a", "b", "e") == "3"
    assert Row("f", 1, {"a": "x\ud800"}).text("a") == "x?"


@pytest.mark.parametrize(("answer", "index"), [("A", 0), ("(B)", 1), ("c", 2), (" (c) ", 2)])
def test_letters_of_answers(answer: str, index: int) -> None:
    assert option_index(answer, 3) == index


def test_a_hub_id_is_told_from_a_path(tmp_path: Path) -> None:
    assert Source("nyu-visionx/CV-Bench", hub_parts=(("2D", "test"), ("3D", "test"))).hub == HubId(
        "nyu-visionx/CV-Bench", (("2D", "test"), ("3D", "test"))
    )
    assert Source("a/b@en:dev", hub_parts=(("x", "test"), ("y", "test"))).hub == HubId("a/b", (("en", "dev"),))
    assert Source(tmp_path).hub is None
    for name in ("nothing.tsv", "a/b/c", "/a/b", "a/b c"):
        with pytest.raises(VsreError, match="no such file or folder"):
            Source(name)


def test_data_sets_keep_their_pictures_encoded(tmp_path: Path) -> None:
    """`datasets` loads a local folder as it loads a hub id."""
    rows = [{"id": str(i), "image": hub_image(i), "extra": "x"} for i in range(3)]
    write_parquet(tmp_path / "set" / "data" / "dev-00000.parquet", rows)
    found = list(hub_rows(HubId(str(tmp_path / "set"), ((None, "validation"),)), Columns(("id", "image"))))
    assert [(r.text("id"), r.values["image"]["bytes"]) for r in found] == [(str(i), picture(i)) for i in range(3)]
    assert "extra" not in found[0].values
    with pytest.raises(VsreError, match=r"set:validation: lacks the column answer"):
        list(hub_rows(HubId(str(tmp_path / "set"), ((None, "validation"),)), Columns(("id", "answer"))))
    with pytest.raises(VsreError, match="nor a data set that can be loaded"):
        list(hub_rows(HubId(str(tmp_path / "set"), ((None, "gone"),)), Columns(("id",))))
