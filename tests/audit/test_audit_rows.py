"""Reading the two sides: what is taken, what is set aside and counted, and what is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audit_data import data_set, encoded, lines, photo, said, triplet, write

from vsre.audit import audit
from vsre.audit.rows import read_side, state, words
from vsre.errors import VsreError
from vsre.rewrite import rewrite


def test_bad_rows_are_counted_and_the_others_stay(tmp_path: Path) -> None:
    good = said("a.jpg", "cat", "on", "cup")
    bad = ["{not json", "[1]", good | {"label": 2}, {k: v for k, v in good.items() if k != "caption"}]
    side = read_side("test", [write(tmp_path / "t.jsonl", [good, *bad, "", good | {"image": "b.jpg"}])])
    assert [row.number for row in side.rows] == [1, 7] and side.where(side.rows[1]).endswith("t.jsonl:7")
    assert side.set_aside.total == 4
    assert set(side.set_aside.counts) == {"not valid JSON", "not a JSON object", "label is not 0 or 1", "field missing"}
    figures = audit(tmp_path / "t.jsonl", tmp_path / "t.jsonl", resamples=5).figures
    assert figures["test"]["set_aside"]["rows"] == 4
    assert any("4 test rows could not be used" in warning for warning in figures["verdict"]["warnings"])


def test_relations_and_classes_that_vsre_does_not_know(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "caption": "A dragon above a castle", "label": 1, "relation": "hovering"},
        said("a.jpg", "dragon", "above", "castle"),
        {"image": "a.jpg", "caption": "nothing like VSR", "label": 0, "relation": "above"},
    ]
    side = read_side("train", [write(tmp_path / "t.jsonl", rows)])
    assert len(side.rows) == 3 and not side.set_aside.total
    assert [row.subject for row in side.rows] == ["", "dragon", ""]
    found = audit(tmp_path / "t.jsonl", tmp_path / "t.jsonl", resamples=5).figures
    assert found["findings"]["verbatim_rows"]["count"] == 3


def test_text_that_no_file_holds_is_set_aside(tmp_path: Path) -> None:
    """Half a surrogate pair, which JSON can write and UTF-8 cannot; with a relation that vsre does not know, too."""
    good = said("a.jpg", "cat", "on", "cup")
    odd = [
        good | {"caption": "The cat\ud800 is on the cup."},
        good | {"caption": "The cat \udfff cup", "relation": "odd"},
        good | {"image": "a\ud800.jpg"},
        good | {"image": "a\ud800.jpg", "relation": "odd"},
        good | {"image": "../a.jpg", "relation": "odd"},
        good | {"relation": "odd\ud800"},
    ]
    side = read_side("train", [write(tmp_path / "t.jsonl", [good, *odd])])
    assert len(side.rows) == 1
    assert side.set_aside.counts == {
        "text is not Unicode": 3, "image name is not a file below the image folder": 3,
    }  # fmt: skip


def test_captions_are_compared_by_their_words(tmp_path: Path) -> None:
    assert words("  The cat is ON the  mat. ") == words("the cat is on the mat") == "the cat is on the mat"
    first = said("a.jpg", "cat", "on", "cup")
    other = first | {"caption": "the cat is on the cup"}
    files = [write(tmp_path / "a.jsonl", [first]), write(tmp_path / "b.jsonl", [other])]
    assert audit(*files, resamples=5).figures["findings"]["verbatim_rows"]["count"] == 1


def test_votes_in_every_form(tmp_path: Path) -> None:
    forms = [("[1, 2]", "[3]"), ([1, 2], [3]), ("[]", "[]"), (None, "[1]"), ("none", "[1]"), ("[1,", "[1]")]
    rows = [
        said(f"{i}.jpg", "cat", "on", "cup", vote_true_validator_id=yes, vote_false_validator_id=no)
        for i, (yes, no) in enumerate(forms)
    ]
    side = read_side("test", [write(tmp_path / "t.jsonl", rows)])
    assert [row.votes for row in side.rows] == [(2, 1), (2, 1), None, None, None, None]


def test_states_of_fields() -> None:
    assert [state(v) for v in (None, "", 1, 1.5, True, "x", [1, 2], "[1, 2]", "[no", {"a": 1})] == [
        "empty", "empty", "1", "1.5", "True", "x", "list of 2", "list of 2", "[no", "object of 1",
    ]  # fmt: skip
    assert len(state("x" * 1000)) == 120 and len(state("[" * 100_000 + "]")) == 120


def test_folders_pick_the_side(tmp_path: Path) -> None:
    data = encoded(photo(1))
    folder = data_set(tmp_path / "data", "train", [triplet(data, "a.jpg"), triplet(data, "a.jpg", words="cat on cup")])
    data_set(folder, "test", [triplet(encoded(photo(2)), "b.jpg")])
    assert [len(read_side(name, [folder]).rows) for name in ("train", "test")] == [2, 1]
    assert len(read_side("test", [folder / "train"]).rows) == 2
    write(tmp_path / "vsr" / "train.jsonl", [said("a.jpg", "cat", "on", "cup")])
    assert len(read_side("train", [tmp_path / "vsr"]).rows) == 1
    with pytest.raises(VsreError, match=r"no test\.jsonl here\. Name the files of the test side: train\.jsonl"):
        read_side("test", [tmp_path / "vsr"])


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="no such file or folder"):
        read_side("test", [tmp_path / "nothing"])
    with pytest.raises(VsreError, match="neither Parquet files nor a test split"):
        (tmp_path / "empty").mkdir()
        read_side("test", [tmp_path / "empty"])
    with pytest.raises(VsreError, match=r"none of the 1 rows can be used[\s\S]*not valid JSON"):
        read_side("test", [write(tmp_path / "bad.jsonl", ["hello"])])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(VsreError, match="cannot be read as Parquet"):
        read_side("test", [tmp_path / "bad.parquet"])
    pq.write_table(pa.table({"image_id": ["x"], "text": ["y"]}), tmp_path / "other.parquet")
    with pytest.raises(VsreError, match="lacks the columns caption, label"):
        read_side("test", [tmp_path / "other.parquet"])


def test_null_cells_are_set_aside(tmp_path: Path) -> None:
    table = pa.table(
        {"image_id": ["x", None, "z", "w"], "caption": ["a b", "c d", "e f", ""], "label": [True, True, None, True]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    side = read_side("test", [tmp_path / "t.parquet"])
    assert len(side.rows) == 1 and side.set_aside.counts == {"field missing": 2, "caption empty": 1}


def test_questions_are_known_by_their_key(tmp_path: Path) -> None:
    triplets = [triplet(encoded(photo(i)), f"{i}.jpg", i % 2 == 0) for i in range(4)]
    data = data_set(tmp_path / "data", "test", triplets)
    rewrite(data_set(tmp_path / "half", "train", triplets[:2]) / "train", tmp_path / "questions", "pool", 3)
    found = audit(tmp_path / "questions", data, resamples=5).figures
    assert found["train"]["rows"] == 2 and found["train"]["questions_merged"] == 4
    assert found["findings"]["verbatim_rows"]["count"] == found["findings"]["verbatim_rows"]["same_label"] == 2
    assert found["clean"]["rows"] == 2 and found["floors"]["leave_one_out"] is None
    assert any("Questions are known by their key" in limit for limit in found["verdict"]["limits"])
    assert audit(data / "test", tmp_path / "questions", resamples=5).figures["findings"]["verbatim_rows"]["count"] == 2


def test_clean_rows_as_they_stand_and_as_triplets(tmp_path: Path) -> None:
    triplets = [triplet(encoded(photo(i)), f"{i}.jpg", i % 2 == 0) for i in range(5)]
    train = data_set(tmp_path / "a", "train", triplets[:2])
    found = audit(train, data_set(tmp_path / "b", "test", triplets), resamples=5)
    assert found.write_clean(tmp_path / "out" / "clean.parquet") == 3
    kept = pq.read_table(tmp_path / "out" / "clean.parquet")
    assert kept.schema.names == pq.read_schema(tmp_path / "b" / "test" / "part-00000.parquet").names
    assert kept["image"].to_pylist()[0]["bytes"] == triplets[2].image
    assert audit(train, tmp_path / "out" / "clean.parquet", resamples=5).figures["clean"]["rows"] == 3
    assert found.write_clean(tmp_path / "clean.jsonl") == 3
    assert [row["image"] for row in lines(tmp_path / "clean.jsonl")] == ["2.jpg", "3.jpg", "4.jpg"]
    assert len(read_side("test", [tmp_path / "clean.jsonl"]).rows) == 3
    with pytest.raises(VsreError, match=r"\.jsonl file, or triplets to a \.parquet file"):
        found.write_clean(tmp_path / "clean.csv")


def test_clean_rows_of_a_file_keep_their_bytes(tmp_path: Path) -> None:
    odd = json.dumps(said("b.jpg", "cat", "on", "cup"), indent=None).replace(", ", " ,  ")
    test = write(tmp_path / "test.jsonl", [said("a.jpg", "cat", "on", "cup"), "", odd])
    found = audit(write(tmp_path / "train.jsonl", [said("a.jpg", "dog", "near", "cup")]), test, resamples=5)
    found.write_clean(tmp_path / "clean.jsonl")
    assert (tmp_path / "clean.jsonl").read_text("utf-8") == odd + "\n"
    with pytest.raises(VsreError, match="holds no triplets"):
        found.write_clean(tmp_path / "clean.parquet")


def test_clean_rows_behind_lone_carriage_returns(tmp_path: Path) -> None:
    """A line ends with a line feed, for the one who reads and for the one who writes."""
    rows = [json.dumps(said(f"{name}.jpg", "cat", "on", "cup")).encode() for name in "abc"]
    test = tmp_path / "test.jsonl"
    test.write_bytes(b"\xef\xbb\xbf" + b"\r\r\n".join(rows))
    found = audit(write(tmp_path / "train.jsonl", [said("a.jpg", "dog", "near", "cup")]), test, resamples=5)
    assert found.write_clean(tmp_path / "clean.jsonl") == 2
    assert (tmp_path / "clean.jsonl").read_bytes() == b"\n".join(rows[1:]) + b"\n"
