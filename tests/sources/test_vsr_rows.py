"""The traps of the published files, and bad input, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vsr_files import row, write_rows

from vsre.errors import VsreError
from vsre.sources.vsr import ReadCounts, SetAside, read_vsr
from vsre.triplets import Triplet


def read(path: Path, *rows: Any, **options: Any) -> tuple[list[Triplet], SetAside]:
    set_aside = SetAside()
    write_rows(path / "train.jsonl", rows)
    found = list(read_vsr([path / "train.jsonl"], split="train", set_aside=set_aside, **options))
    return found, set_aside


def test_a_row_as_published(tmp_path: Path) -> None:
    (triplet,), _ = read(tmp_path, row())
    assert triplet.image is None
    assert triplet.image_id == "name:a.jpg"
    assert (triplet.subject, triplet.relation, triplet.object) == ("cat", "left of", "dog")
    assert (triplet.caption, triplet.label) == ("The cat is left of the dog.", True)
    assert (triplet.split, triplet.origin) == ("train", "vsr")
    assert triplet.provenance["image_link"].endswith("train2017/a.jpg")


def test_a_long_path_of_short_folders_is_an_image_name(tmp_path: Path) -> None:
    (triplet,), _ = read(tmp_path, row(f"{'ü' * 100}/{'b' * 200}.jpg"))
    assert len(triplet.image_name) > 300


def test_votes_are_strings_today_and_lists_in_older_files(tmp_path: Path) -> None:
    older = row("b.jpg", vote_true_validator_id=[2, 9], vote_false_validator_id=[3])
    found, _ = read(tmp_path, row(), older, row("c.jpg", vote_true_validator_id="2, 9"))
    votes = [t.provenance["audit"]["vote_true_validator_id"] for t in found]
    assert votes == [[2, 9], [2, 9], None]


def test_reference_frame_stays_out_of_everything_but_the_audit(tmp_path: Path) -> None:
    (triplet,), _ = read(tmp_path, row(reference_frame=1.0))
    assert triplet.provenance["audit"]["reference_frame"] == 1.0
    assert triplet.provenance.keys() == {"image_link", "rows", "audit"}


def test_subject_with_lost_letters_is_read_from_the_caption(tmp_path: Path) -> None:
    cut = row(caption="The hot dog is left of the horse.", subj="ot dog", obj="orse")
    (triplet,), _ = read(tmp_path, cut)
    assert (triplet.subject, triplet.object) == ("hot dog", "horse")
    assert "subj" not in triplet.provenance


def test_verb_relations_take_no_is(tmp_path: Path) -> None:
    found, _ = read(
        tmp_path,
        row(caption="The bowl contains the cake.", relation="contains"),
        row(caption="The pizza consists of the carrot.", relation="consists of"),
        row(caption="The person has as a part the tie.", relation="has as a part"),
    )
    assert [(t.subject, t.object) for t in found] == [
        ("bowl", "cake"),
        ("pizza", "carrot"),
        ("person", "tie"),
    ]


def test_a_row_of_two_files_comes_once_with_both_places(tmp_path: Path) -> None:
    files = [
        write_rows(tmp_path / "random/train.jsonl", [row("b.jpg"), row()]),
        write_rows(tmp_path / "zeroshot/train.jsonl", [row(), row(caption="The cat is left of the bed.")]),
    ]
    counts = ReadCounts()
    found = list(read_vsr(files, split="train", counts=counts))
    assert [t.image_name for t in found] == ["b.jpg", "a.jpg", "a.jpg"]
    assert found[1].provenance["rows"] == ["random/train.jsonl:2", "zeroshot/train.jsonl:1"]
    assert (counts.rows, counts.duplicates) == (4, 1)


def test_the_rows_of_an_image_come_together(tmp_path: Path) -> None:
    captions = [f"The cat is left of the {name}." for name in ("dog", "bed", "car")]
    found, _ = read(tmp_path, *(row(f"{i % 2}.jpg", caption) for caption in captions for i in range(2)))
    assert [t.image_name for t in found] == ["0.jpg"] * 3 + ["1.jpg"] * 3


def test_a_contradicting_row_is_set_aside(tmp_path: Path) -> None:
    found, set_aside = read(tmp_path, row(), row(label=0))
    assert [t.label for t in found] == [True]
    assert set_aside.counts == {"label contradicts an earlier row": 1}


LONG = "The " + "very " * 2000 + "cat is left of the dog."


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"image": "a.jpg", "caption": ', "not valid JSON"),
        ("not json at all", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('"a string"', "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ('{"x": "' + "y" * (1 << 21) + '"}', "line too long"),
        ({"caption": "The cat is left of the dog.", "label": 1}, "field missing"),
        (row(image=""), "field missing"),
        (row(caption=None), "field missing"),
        (row(relation=7), "field missing"),
        ({k: v for k, v in row().items() if k != "label"}, "field missing"),
        (row(label=2), "label is not 0 or 1"),
        (row(label="yes"), "label is not 0 or 1"),
        (row(label=None), "label is not 0 or 1"),
        (row(label=[1]), "label is not 0 or 1"),
        (row(relation="left off"), "unknown relation"),
        (row(caption="A nice photo."), "caption does not parse"),
        (row(caption="The cat is above the dog."), "caption does not parse"),
        (row(caption=LONG), "caption too long"),
        (row(caption="The orse is left of the dog."), "class not found"),
        (row(caption="The <script>alert(1)</script> is left of the dog."), "class not found"),
        (row(image="../../etc/passwd"), "image name is not a file below the image folder"),
        (row(image="/etc/passwd"), "image name is not a file below the image folder"),
        (row(image="a\u0000.jpg"), "image name is not a file below the image folder"),
        (row(image="a\ud800.jpg"), "image name is not a file below the image folder"),
        (row(image="x" * 300), "image name is not a file below the image folder"),
        (row(image="ü" * 130 + ".jpg"), "image name is not a file below the image folder"),
        (row(image="a/" * 700 + "a.jpg"), "image name is not a file below the image folder"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "row",
)
def test_an_unusable_row_is_set_aside_and_the_rest_goes_on(bad: Any, reason: str, tmp_path: Path) -> None:
    set_aside = SetAside(tmp_path / "set_aside.jsonl")
    file = write_rows(tmp_path / "train.jsonl", [row(), bad, row("b.jpg")])
    with set_aside:
        found = list(read_vsr([file], split="train", set_aside=set_aside))
    assert [t.image_name for t in found] == ["a.jpg", "b.jpg"]
    (line,) = map(json.loads, (tmp_path / "set_aside.jsonl").read_text().splitlines())
    assert (line["file"], line["row"], line["reason"]) == (str(file), 2, reason)
    assert len(line["content"]) < 310


def test_a_label_may_be_true_or_false(tmp_path: Path) -> None:
    found, _ = read(tmp_path, row(label=True), row("b.jpg", label=False))
    assert [t.label for t in found] == [True, False]


def test_byte_order_mark_windows_line_ends_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    text = "\r\n".join(["", json.dumps(row()), "  ", json.dumps(row("b.jpg")), "{"])
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    set_aside = SetAside()
    assert len(list(read_vsr([file], split="train", set_aside=set_aside))) == 2
    assert "row 5" in set_aside.first["not valid JSON"]
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(row()).encode())
    assert len(list(read_vsr([file], split="train"))) == 1


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(json.dumps(row()).encode() + b'\n{"image": "\xff\xfe"}\n')
    set_aside = SetAside()
    assert len(list(read_vsr([file], split="train", set_aside=set_aside))) == 1
    assert set_aside.counts == {"not valid JSON": 1}


def test_unknown_fields_go_to_the_provenance(tmp_path: Path) -> None:
    (triplet,), _ = read(tmp_path, row(scene={"seed": 7}))
    assert triplet.provenance["scene"] == {"seed": 7}


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(
        VsreError, match=r"(?s)none of the 4 rows.*2 x unknown relation, first in .*train\.jsonl, row 1"
    ):
        read(tmp_path, row(relation="x"), row(relation="y"), "{", row(label=3))
    with pytest.raises(VsreError, match="no rows here"):
        read(tmp_path)
    with pytest.raises(VsreError, match="no such annotation file"):
        next(read_vsr([tmp_path / "none.jsonl"], split="train"))
