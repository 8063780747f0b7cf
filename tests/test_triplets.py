"""Writing Parquet: all files of a prefix or none, and nothing but those."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsre.errors import VsreError
from vsre.rewrite.questions import read_questions
from vsre.triplets import ParquetShards, Triplet, is_split_name, read_triplets, write_triplets

SCHEMA = pa.schema([("n", pa.int64())])


def shards(folder: Path, prefix: str = "part") -> ParquetShards:
    return ParquetShards(folder, SCHEMA, prefix=prefix, rows_per_file=2, batch=1)


def write(folder: Path, count: int, prefix: str = "part") -> None:
    with shards(folder, prefix) as written:
        for n in range(count):
            written.write({"n": n})


def contents(folder: Path) -> dict[str, list[int]]:
    return {file.name: pq.read_table(file)["n"].to_pylist() for file in sorted(folder.iterdir())}


def test_no_file_appears_before_all_are_whole(tmp_path: Path) -> None:
    with shards(tmp_path) as written:
        for n in range(5):
            written.write({"n": n})
            assert not list(tmp_path.glob("*.parquet"))
    assert contents(tmp_path) == {
        "part-00000.parquet": [0, 1], "part-00001.parquet": [2, 3], "part-00002.parquet": [4],
    }  # fmt: skip


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, 3)
    before = contents(tmp_path)
    with pytest.raises(ZeroDivisionError), shards(tmp_path) as written:
        for n in range(9):
            written.write({"n": n // (5 - n)})
    assert contents(tmp_path) == before
    (tmp_path / "part-00007.tmp").write_bytes(b"PAR1 what a kill left")
    write(tmp_path, 1)
    assert contents(tmp_path) == {"part-00000.parquet": [0]}, "the second file was of the earlier ones"


def test_a_longer_prefix_is_another_one(tmp_path: Path) -> None:
    with shards(tmp_path, "train") as short, shards(tmp_path, "train-more") as long:
        short.write({"n": 1})
        long.write({"n": 2})
    assert contents(tmp_path) == {"train-00000.parquet": [1], "train-more-00000.parquet": [2]}


@pytest.mark.parametrize("prefix", ["../part", "/tmp/part", "a/part", "..\\part"])
def test_a_prefix_never_leads_to_another_folder(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(VsreError, match="names another folder"):
        shards(tmp_path / "out", prefix)
    assert not (tmp_path / "out").exists()


def test_which_splits_may_name_files() -> None:
    good = ["train", "test-s", "v1.0_b", "été", "x" * 60]
    bad = ["", "..", ".a", "-a", "a/b", "a\\b", "../a", "a b", "a\n", "a\0", "x" * 61, None, 7]
    assert [split for split in [*good, *bad] if is_split_name(split)] == good


def test_what_is_no_parquet_is_named_with_what_to_do(tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"image": "a.jpg"}\n')
    write(tmp_path / "whole", 2000)
    whole = next((tmp_path / "whole").glob("*.parquet"))
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-20])
    for read in (read_triplets, read_questions):
        with pytest.raises(VsreError, match=r"rows\.jsonl: cannot be read as Parquet .* `vsre vsr` first"):
            list(read(lines))
        with pytest.raises(VsreError, match=r"cut\.parquet: cannot be read as Parquet .* Write or copy it again"):
            list(read(cut))


def test_what_is_damaged_inside_is_named(tmp_path: Path) -> None:
    """The columns stand at the end of a file: it may open and not be read."""
    file = tmp_path / "damaged.parquet"
    write_triplets(
        tmp_path / "t", [Triplet("i", "i.jpg", "cat", "on", "cup", "The cat is on the cup.", True, "s", "o")]
    )
    data = next((tmp_path / "t").glob("*.parquet")).read_bytes()
    file.write_bytes(data[:4] + bytes(300) + data[304:])
    with pytest.raises(VsreError, match=r"damaged\.parquet: cannot be read as Parquet"):
        list(read_triplets(file))
