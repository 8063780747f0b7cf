"""MMBench: circular evaluation with missing turns, references, hints, hidden answers, and rule-based matching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmark_data import (
    FOUR,
    hub_image,
    load,
    mmbench_rows,
    mmbench_tsv,
    picture,
    right,
    said,
    values,
    write_parquet,
    write_tsv,
    wrong,
)

from vsre.benchmarks import BENCHMARKS
from vsre.benchmarks.mmbench import read
from vsre.benchmarks.rows import Aside
from vsre.diagnose import Reply
from vsre.errors import VsreError

MMBENCH = BENCHMARKS["mmbench"]


def test_spatial_rows_with_their_turns(tmp_path: Path) -> None:
    items = load("mmbench", mmbench_tsv(tmp_path / "mmbench.tsv"))
    assert len(items) == 3 * 4 + 2 and {i.category for i in items} == {"spatial_relationship", "object_localization"}
    turns = [i for i in items if i.group == "1"]
    assert [i.key for i in turns] == ["1", "1000001", "2000001", "3000001"]
    assert {i.options[i.answer or 0] for i in turns} == {FOUR[1]} and [i.answer for i in turns] == [1, 0, 3, 2]
    assert {i.picture.read() for i in turns} == {picture(1)}
    physical = load("mmbench-physical", tmp_path / "mmbench.tsv")
    assert [(i.key, i.category) for i in physical] == [(k, "physical_relation") for k in ("70", "1000070")]
    two = items[-1]
    assert two.options == ("on the right", "on the left") and two.answer == 0
    assert two.prompt == (
        "Look well.\nWhere is the disc of drawing 50?\nA. on the right\nB. on the left\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert two.bare == "Look well.\nWhere is the disc of drawing 50?"


def test_the_hub_s_copy(tmp_path: Path) -> None:
    """Pictures as images, "nan" for what is missing, and another spelling of the second category."""
    rows: list[dict[str, Any]] = []
    for row in mmbench_rows(7, ("yes", "no"), 1):
        row = {k: v for k, v in row.items() if k != "l2-category"} | {"L2-category": "relation_reasoning"}
        rows.append({k: "nan" if v == "" else v for k, v in row.items()} | {"image": hub_image(7)})
    items = load("mmbench", write_parquet(tmp_path / "data" / "dev-0.parquet", rows).parent)
    assert [(i.key, i.options, i.answer) for i in items] == [("7", ("yes", "no"), 1), ("1000007", ("no", "yes"), 0)]
    assert items[0].prompt.startswith("Where is the disc of drawing 7?\nA. yes")
    assert items[0].picture.read() == picture(7)


def test_only_a_question_with_every_turn_right_counts(tmp_path: Path) -> None:
    items = load("mmbench", mmbench_tsv(tmp_path / "mmbench.tsv"))
    slip = {"2000001", "50"}  # one turn of question 1, the first of question 50
    found = MMBENCH.score(items, said(items, lambda i: wrong(i) if i.key in slip else right(i)))
    assert values(found["official"]) == {
        "circular": pytest.approx(2 / 4),
        "vanilla": pytest.approx(3 / 4),
        "turns": pytest.approx(12 / 14),
    }
    assert {name: f["n"] for name, f in found["official"].items()} == {"circular": 4, "vanilla": 4, "turns": 14}
    by_category = found["readings"]["rule"]["by_category"]
    assert values(by_category["spatial_relationship"])["circular"] == pytest.approx(2 / 3)
    assert values(by_category["object_localization"])["circular"] == 0
    assert found["floor"]["chance"]["circular"] == pytest.approx((3 * (1 / 4) ** 4 + (1 / 2) ** 2) / 4)
    assert found["floor"]["majority"]["circular"] == 0  # no letter is right in every turn
    assert found["warnings"] == []


def test_missing_turns_are_counted_and_kept_apart(tmp_path: Path) -> None:
    held = {q: mmbench_rows(q, FOUR, q)[0]["image"] for q in range(3)}
    rows = [{**row, "image": held[q]} for q in range(3) for row in mmbench_rows(q, FOUR, q)]
    rows = [row for row in rows if row["index"] not in (2_000_000, 1)]  # a turn of question 0, the first of question 1
    rows[-1]["image"] = "https://example.org/picture.png"  # a turn of question 2 that cannot be used
    aside = Aside()
    items = list(MMBENCH.load(write_tsv(tmp_path / "mmbench.tsv", rows), aside=aside))
    assert [r["reason"] for r in aside.rows] == ["the picture is a URL"]
    found = MMBENCH.score(items, said(items, lambda i: wrong(i) if i.group == "0" else right(i)))
    assert "circular" not in found["official"]  # there is no whole question
    assert found["official"]["circular_incomplete"]["n"] == 3
    assert found["official"]["circular_incomplete"]["value"] == pytest.approx(2 / 3)
    assert found["official"]["vanilla"]["n"] == 2
    assert found["warnings"] == [
        "questions without all their turns, which are in circular_incomplete and not in circular: 3"
    ]


def test_an_errored_turn_decides_nothing(tmp_path: Path) -> None:
    items = load("mmbench", mmbench_tsv(tmp_path / "mmbench.tsv"))
    found = MMBENCH.score(items, said(items, lambda i: Reply(error="torn") if i.key == "1000000" else right(i)))
    assert (found["official"]["circular"]["value"], found["official"]["circular"]["n"]) == (1, 3)
    assert found["official"]["turns"]["n"] == 13


def test_hidden_answers_are_asked_and_exported_but_not_scored(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "answer"} for row in mmbench_rows(3, FOUR, 0)]
    items = load("mmbench", write_tsv(tmp_path / "mmbench_test.tsv", rows))
    assert [i.answer for i in items] == [None] * 4
    replies = said(items, lambda i: "B\tor so")
    found = MMBENCH.score(items, replies)
    assert (found["n"], found["unscored"], found["official"], found["readings"]) == (0, 4, None, {})
    assert "kept back" in found["missing"]["readings"]
    lines = MMBENCH.export(items, replies)["predictions.tsv"].splitlines()
    assert lines[0].split("\t") == ["index", "question", "A", "B", "C", "D", "prediction", "category"]
    question = "Where is the disc of drawing 3?"
    assert lines[1] == "\t".join(["3", question, *FOUR, '"B\tor so"', "spatial_relationship"])


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("B. right of the square", "B"), ("The answer is C.", "C"), ("**D**", "D"),
        # several letters tell nothing: the text does
        ("Not A but B: right of the square", "B"), ("A disc, above the square. C", "C"), ("A, B, C or D?", None),
        ("Above the square", "C"), ("it is BELOW THE SQUARE", "D"), ("b", None), ("left", None), ("", None),
        # faults of the rule itself, kept
        ("A disc is below", "A"), ("Both A and B", None), ("Cannot tell", None),
        ("Neither left of the square nor above the square", None), ("above the square " * 9, None),
    ],
)  # fmt: skip
def test_rule_based_matching(tmp_path: Path, answer: str, letter: str | None) -> None:
    item = load("mmbench", mmbench_tsv(tmp_path / "mmbench.tsv"))[0]
    index = read(answer, item)
    assert (None if index is None else item.names[index]) == letter


def test_ugly_rows_are_set_aside_each_with_its_reason(tmp_path: Path) -> None:
    good = mmbench_rows(1, ("on the left", "on the right"), 0)
    ugly = [
        {**good[0], "index": "11", "B": ""},
        {**good[0], "index": "12", "B": "", "C": "below"},
        {**good[0], "index": "13", "answer": "E"},
        {**good[0], "index": "x14"},
        {**good[0], "index": "15", "question": "  "},
        {**good[0], "index": "16", "image": ""},
        good[0],
    ]
    aside = Aside()
    path = write_tsv(tmp_path / "mmbench.tsv", [*good, *ugly])
    with path.open("a", encoding="utf-8") as file:
        file.write("17\ttoo few fields\n")
    items = list(MMBENCH.load(path, aside=aside))
    assert [i.key for i in items] == ["1", "1000001"]
    # The short row is found while the file is read, before any row is made an item.
    assert sorted((r["row"], r["reason"]) for r in aside.rows) == [
        (3, "fewer than two options, or a gap between them"),
        (4, "fewer than two options, or a gap between them"),
        (5, "the answer names no option"),
        (6, "the index is no number"),
        (7, "a field is empty"),
        (8, "no picture"),
        (9, "a key stands twice"),
        (10, "not as many fields as the header"),
    ]


def test_where_no_row_can_be_used_the_reasons_are_told(tmp_path: Path) -> None:
    rows = [{**row, "image": "ftp://host/a.png"} for row in mmbench_rows(1, FOUR, 0)]
    with pytest.raises(
        VsreError, match=r"none of its 4 rows can be used\.\n  4 x the picture is a URL, first in .*row 1"
    ):
        load("mmbench", write_tsv(tmp_path / "mmbench.tsv", rows))
