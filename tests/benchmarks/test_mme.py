"""MME: its three layouts, its own reading, acc, acc+, score, odd rows, and the result file."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_data import (
    base64_of,
    hub_image,
    load,
    mme_folder,
    picture,
    right,
    said,
    save,
    values,
    write_parquet,
    write_tsv,
)

from vsre.benchmarks import BENCHMARKS
from vsre.benchmarks.mme import read
from vsre.benchmarks.rows import Aside
from vsre.diagnose import Reply
from vsre.errors import VsreError

MME = BENCHMARKS["mme"]


def tsv_rows(pictures: int = 2) -> list[dict[str, str]]:
    """As VLMEvalKit has them: the second row of a picture refers to the first."""
    rows = []
    for i in range(pictures):
        for k, answer in enumerate(("Yes", "No")):
            rows.append(
                {
                    "index": str(2 * i + k),
                    "image": base64_of(picture(i)) if not k else str(2 * i),
                    "image_path": f"images/position/{i}.png",
                    "question": f"Question {k} about drawing {i}? Please answer yes or no.",
                    "answer": answer,
                    "category": "position",
                    "l2-category": "Perception",
                }
            )
    return rows


def test_the_release_s_folder(tmp_path: Path) -> None:
    items = load("mme", mme_folder(tmp_path / "MME_Benchmark_release_version" / "MME_Benchmark").parent)
    assert len(items) == 6 and len({i.group for i in items}) == len({i.picture.id for i in items}) == 3
    assert [i.answer for i in items] == [0, 1] * 3
    assert items[0].prompt == "Is the square right of the disc? Please answer yes or no."
    assert items[0].picture.read() == picture(0)
    assert [len(load("mme", tmp_path / p)) for p in ("MME_Benchmark_release_version/MME_Benchmark",)] == [6]
    assert len(load("mme", tmp_path / "MME_Benchmark_release_version" / "MME_Benchmark" / "position")) == 6


def test_the_layout_with_two_folders(tmp_path: Path) -> None:
    save(tmp_path / "position" / "images" / "a.jpg", picture(1))
    save(tmp_path / "position" / "questions_answers_YN" / "a.txt", b"Is it?\tYes\n\nIs it not?\tNo\nno tab here\n")
    save(tmp_path / "position" / "questions_answers_YN" / "b.txt", b"Is it?\tMaybe\n")
    aside = Aside()
    items = list(MME.load(tmp_path, aside=aside))
    assert [(i.key, i.answer) for i in items] == [("a.jpg:1", 0), ("a.jpg:3", 1)]
    assert [(r["row"], r["reason"]) for r in aside.rows] == [
        (4, "no tab between question and answer"),
        (1, "no such picture file"),
    ]


def test_table_and_hub_copies(tmp_path: Path) -> None:
    other = {**tsv_rows(1)[0], "index": "77", "category": "color"}
    items = load("mme", write_tsv(tmp_path / "MME.tsv", [other, *tsv_rows()]))
    assert [i.key for i in items] == ["0", "1", "2", "3"]
    assert [i.picture.read() for i in items] == [picture(0)] * 2 + [picture(1)] * 2
    assert items[0].group == items[1].group != items[2].group
    hub = [
        {
            "question_id": f"position/{i}.png",
            "image": hub_image(i),
            "question": f"{k}?",
            "answer": a,
            "category": "position",
        }
        for i in range(2)
        for k, a in enumerate(("Yes", "No"))
    ]
    found = load("mme", write_parquet(tmp_path / "hub" / "data" / "test-00000.parquet", hub).parent.parent)
    assert [i.group for i in found] == ["position/0.png"] * 2 + ["position/1.png"] * 2
    assert len({i.key for i in found}) == 4 and found[3].picture.read() == picture(1)


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    rows = tsv_rows(2)
    rows[1]["image"], rows[2]["image"] = "99", "0"  # no such row; a row of another picture; rows[3] refers to rows[2]
    aside = Aside()
    items = list(MME.load(write_tsv(tmp_path / "MME.tsv", rows), aside=aside))
    assert [i.key for i in items] == ["0", "2"]
    assert [(r["row"], r["reason"], r["detail"]) for r in aside.rows] == [
        (2, "refers to a row without a picture", "index 99"),
        (4, "refers to a row without a picture", "index 2"),
    ]


def test_a_lacking_column_is_named(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("answer", "image", "image_path")} for row in tsv_rows()]
    with pytest.raises(VsreError, match=r"MME\.tsv: lacks the columns answer, image or image_path\. It has index"):
        load("mme", write_tsv(tmp_path / "MME.tsv", rows))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("Yes", 0), ("no", 1), ("NO.", 1), ("Yes, it is.", 0), (" yes", 0), ("\nNo", 1), ("y", None),
        # faults of the rule itself, kept: it is the benchmark's
        ("**Yes**", None), ("**No**", 1), ("The answer is yes", None), ("Notice the cat. Yes.", 1),
        ("Now I see: yes", 1), ("North of it", 1), ("yes\nno", 0), ("True", None), ("", None), ("No, yes", 1),
    ],
)  # fmt: skip
def test_the_official_reading(tmp_path: Path, answer: str, value: int | None) -> None:
    assert read(answer, load("mme", mme_folder(tmp_path))[0]) == value


def test_acc_acc_plus_and_score(tmp_path: Path) -> None:
    """Three pictures: both right; one right; the right word where only our reading finds it."""
    items = load("mme", mme_folder(tmp_path))
    answers = ["Yes", "No.", "Yes", "yes, it is", "The answer is yes", "It is not."]
    told = dict(zip((i.key for i in items), answers, strict=True))
    found = MME.score(items, said(items, lambda i: told[i.key]))
    assert found["official_by"] == "rule"
    assert values(found["official"]) == {
        "acc": pytest.approx(3 / 6),
        "acc_plus": pytest.approx(1 / 3),
        "score": pytest.approx(50 + 100 / 3),
    }
    ours = found["readings"]["reading"]
    assert values(ours["figures"]) == {
        "acc": pytest.approx(5 / 6),
        "acc_plus": pytest.approx(2 / 3),
        "score": pytest.approx(500 / 6 + 200 / 3),
    }
    assert found["readings"]["rule"]["answered"]["value"] == pytest.approx(4 / 6)
    assert (ours["answered"]["value"], ours["answered"]["n"]) == (1.0, 6)
    assert found["official"]["acc"]["n"] == 6 and found["official"]["acc_plus"]["n"] == 3
    low, high = (found["official"]["score"][edge] for edge in ("low", "high"))
    assert 0 <= low < 50 + 100 / 3 < high <= 200
    assert found["floor"]["chance"] == {"acc": 0.5, "acc_plus": 0.25, "score": 75.0}
    assert found["floor"]["majority"] == {"answer": "yes", "acc": 0.5, "acc_plus": 0.0, "score": 50.0}
    assert (found["n"], found["n_groups"], found["n_images"], found["errors"]) == (6, 3, 3, 0)


def test_an_odd_row_counts_in_acc_only(tmp_path: Path) -> None:
    root = mme_folder(tmp_path)
    save(root / "position" / "0001.txt", b"Is the square left of the disc? Please answer yes or no.\tYes\n")
    items = load("mme", root)
    found = MME.score(items, said(items, right))
    assert (found["official"]["acc"]["n"], found["official"]["acc_plus"]["n"]) == (5, 2)
    assert values(found["official"]) == {"acc": 1.0, "acc_plus": 1.0, "score": 200.0}
    assert found["warnings"] == ["pictures with an odd number of questions, which count in acc but not in acc+: 1"]


def test_an_error_is_no_wrong_answer(tmp_path: Path) -> None:
    items = load("mme", mme_folder(tmp_path))
    found = MME.score(items, said(items, lambda i: Reply(error="torn") if i is items[0] else right(i)))
    assert values(found["official"]) == {"acc": 1.0, "acc_plus": 1.0, "score": 200.0}
    assert (found["official"]["acc"]["n"], found["official"]["acc_plus"]["n"]) == (5, 2)
    assert (found["errors"], found["error_reasons"]) == (1, {"torn": 1})
    assert "1 of 6 questions (16.7 %) ended in an error" in found["warnings"][0]


def test_the_result_file_has_one_line_a_question(tmp_path: Path) -> None:
    items = load("mme", mme_folder(tmp_path, pictures=1))
    exported = MME.export(items, said(items, lambda i: "Yes,\tI\n\nthink so" if i.answer == 0 else ""))
    question = "Is the square {} of the disc? Please answer yes or no."
    assert exported == {
        "position.txt": f"0000.png\t{question.format('right')}\tYes\tYes, I think so\n"
        f"0000.png\t{question.format('left')}\tNo\t\n"
    }


def test_a_folder_without_the_category(tmp_path: Path) -> None:
    save(tmp_path / "color" / "1.txt", b"Is it red?\tYes\n")
    with pytest.raises(VsreError, match=r"none of MME\*\.tsv.* here. MME \(position\) wants the release's folder"):
        load("mme", tmp_path)
    with pytest.raises(VsreError, match="no such file or folder"):
        load("mme", tmp_path / "nothing" / "at" / "all")
    color = [{**row, "category": "color"} for row in tsv_rows()]
    with pytest.raises(VsreError, match=r"none of its rows are MME \(position\)'s spatial questions"):
        load("mme", write_tsv(tmp_path / "MME.tsv", color))


def test_three_and_four_questions_about_one_picture(tmp_path: Path) -> None:
    """Four are two pairs, in the file's order; of three there is none."""
    root = mme_folder(tmp_path)
    lines = [f"Is number {k} there? Please answer yes or no.\t{('Yes', 'No')[k % 2]}" for k in range(4)]
    save(root / "position" / "0001.txt", "\n".join(lines).encode())
    save(root / "position" / "0002.txt", "\n".join(lines[:3]).encode())
    items = load("mme", root)
    slip = {"0001.png:1", "0002.png:1"}
    found = MME.score(items, said(items, lambda i: "maybe" if i.key in slip else right(i)))
    assert found["official"]["acc"]["n"] == 9 and found["official"]["acc"]["value"] == pytest.approx(7 / 9)
    assert found["official"]["acc_plus"]["n"] == 3 and found["official"]["acc_plus"]["value"] == pytest.approx(2 / 3)
