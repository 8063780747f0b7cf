"""CV-Bench, BLINK and EmbSpatial-Bench: formats, their own readings, and their means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_data import (
    base64_of,
    blink_folder,
    blink_rows,
    cvbench_folder,
    cvbench_rows,
    drawing,
    embspatial_json,
    embspatial_rows,
    encoded,
    hub_image,
    load,
    picture,
    ranked,
    right,
    said,
    save,
    values,
    write_json,
    write_parquet,
    wrong,
)

from vsre.benchmarks import BENCHMARKS, blink, cvbench
from vsre.benchmarks.rows import Aside
from vsre.diagnose import Score
from vsre.errors import VsreError

CV, BLINK, EMB = BENCHMARKS["cv-bench"], BENCHMARKS["blink"], BENCHMARKS["embspatial"]


def test_cv_bench_without_its_counts(tmp_path: Path) -> None:
    items = load("cv-bench", cvbench_folder(tmp_path))
    assert [(i.key, i.category) for i in items] == [
        ("2D/0", "Relation"), ("2D/1", "Relation"), ("2D/2", "Relation"), ("3D/4", "Depth"), ("3D/5", "Distance"),
    ]  # fmt: skip
    assert items[0].prompt == (
        "Drawing 0: which is it? Select from the following choices.\n(A) left\n(B) right\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert items[4].options == ("the disc", "the square", "the line") and items[4].answer == 2
    assert items[3].picture.read() == picture(4)


def test_cv_bench_s_lines_with_pictures_beside_them(tmp_path: Path) -> None:
    for row in cvbench_rows():
        save(tmp_path / "img" / row["filename"], row.pop("image")["bytes"])
        with (tmp_path / f"test_{row['type'].lower()}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    items = load("cv-bench", tmp_path)
    assert len(items) == 5 and items[0].picture.read() == picture(0)
    assert len(load("cv-bench", tmp_path / "test_3d.jsonl")) == 2


def test_cv_bench_s_formula(tmp_path: Path) -> None:
    """ADE20K 1 of 2, COCO 0 of 1, Omni3D 2 of 2."""
    items = load("cv-bench", cvbench_folder(tmp_path))
    found = CV.score(items, said(items, lambda i: wrong(i) if i.key in ("2D/0", "2D/2") else f"({right(i)})"))
    assert values(found["official"]) == {"2D": 0.25, "3D": 1.0, "combined": 0.625, "accuracy": pytest.approx(3 / 5)}
    assert values(found["readings"]["rule"]["by_category"]["Relation"])["2D"] == 0.25
    assert found["floor"]["chance"]["combined"] == pytest.approx((0.5 + (1 / 2 + 1 / 3) / 2) / 2)
    plane = [i for i in items if i.category == "Relation"]
    found = CV.score(plane, said(plane, right))
    assert values(found["official"]) == {"2D": 1.0, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(B)", "B"), ("b", "B"), ("B.", "B"), ("The answer is (C).", "C"), ("Answer: A", "A"), ("A dog", "A"),
        ("Wait. The answer is A. No, the answer is B", "B"), ("", None), ("answer is:", None), ("zebra", None),
        ("Answer: (B)", "B"), ("Answer: A. The answer is B", "B"), ("The answer is A. Answer: B", "B"),
        # faults of the rule itself, kept
        ("Cannot tell", "C"), ("The disc", None), ("The answer is: B", None), ("the answer is: (b)", None),
        ("Answer: A. That answer is sure", None),
    ],
)  # fmt: skip
def test_cv_bench_s_reading(tmp_path: Path, answer: str, letter: str | None) -> None:
    item = load("cv-bench", cvbench_folder(tmp_path))[4]
    index = cvbench.read(answer, item)
    assert (None if index is None else item.names[index]) == letter


def test_cv_bench_rows_that_cannot_be_used(tmp_path: Path) -> None:
    rows = cvbench_rows()[:3]
    rows[0]["choices"] = ["left"]
    rows[1]["answer"] = "(D)"
    rows[2]["source"] = "elsewhere"
    aside = Aside()
    items = list(CV.load(write_parquet(tmp_path / "test_2d.parquet", rows), aside=aside))
    assert [r["reason"] for r in aside.rows] == ["no list of options", "the answer names no option"]
    found = CV.score(items, said(items, right))
    assert set(found["official"]) == {"accuracy"}
    assert found["warnings"] == [
        "questions from another source than ADE20K, COCO and Omni3D, which are in accuracy only: 1"
    ]
    no_prompt = [{k: v for k, v in row.items() if k != "prompt"} for row in cvbench_rows()]
    with pytest.raises(VsreError, match="lacks the column prompt"):
        load("cv-bench", write_parquet(tmp_path / "b" / "test_2d.parquet", no_prompt))


def test_blink_s_two_tasks_from_the_validation_split(tmp_path: Path) -> None:
    items = load("blink", blink_folder(tmp_path))
    assert [i.key for i in items] == [f"val_{task}_{n}" for task in blink.TASKS for n in (1, 2)]
    assert items[0].prompt == "Drawing 0: is it so?\nSelect from the following choices.\n(A) yes\n(B) no"
    assert [i.answer for i in items] == [1, 0, 1, 0]
    assert BLINK.prompt(items[0], "generate").options == ("A", "B")
    assert len(load("blink", tmp_path / "Spatial_Relation" / "val-00000-of-00001.parquet")) == 2
    assert len(load("blink", tmp_path / "Relative_Depth")) == 2
    # A file of the hidden split that is named is asked, and not scored.
    hidden = load("blink", tmp_path / "Relative_Depth" / "test-00000-of-00001.parquet")
    assert [i.answer for i in hidden] == [None, None]
    assert BLINK.score(hidden, said(hidden, lambda i: "(A)"))["unscored"] == 2


def test_blink_s_mean_over_tasks(tmp_path: Path) -> None:
    items = load("blink", blink_folder(tmp_path))
    told = dict(
        zip((i.key for i in items), ["(B)", "Looking at it,\n\nI say (A) here", "B is closer", "no"], strict=True)
    )
    found = BLINK.score(items, said(items, lambda i: told[i.key]))
    assert values(found["official"]) == {"mean_over_tasks": 0.5, "Spatial_Relation": 1.0, "Relative_Depth": 0.0}
    # Ours reads the option's text, too.
    assert values(found["readings"]["reading"]["figures"]) == {
        "mean_over_tasks": 0.75, "Spatial_Relation": 1.0, "Relative_Depth": 0.5,
    }  # fmt: skip
    assert found["readings"]["rule"]["answered"]["value"] == 0.5
    assert json.loads(BLINK.export(items, said(items, lambda i: told[i.key]))["predictions.json"]) == {
        "val_Spatial_Relation_1": "(B)",
        "val_Spatial_Relation_2": "(A)",
        "val_Relative_Depth_1": "(Z)",
        "val_Relative_Depth_2": "(Z)",
    }


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"), ("(B)", "B"), ("It is (B) no", "B"), ("(A) or (B)", None), ("(A) and (B)\n\n(B)", "B"),
        ("(A) at first\n\nbut who knows", "A"), ("b", None), ("B.", None), ("yes", None), ("(B).", None), ("", None),
        # blanks and line breaks around it are the server's or the tokenizer's
        (" A", "A"), ("A\n", "A"), (" (B) ", "B"), ("\n\nB\n\n", "B"), ("(A) and (B)\n\n(B)\n\n", "B"), (" \n", None),
    ],
)  # fmt: skip
def test_blink_s_reading(tmp_path: Path, answer: str, letter: str | None) -> None:
    item = load("blink", blink_folder(tmp_path))[0]
    index = blink.read(answer, item)
    assert (None if index is None else item.names[index]) == letter


def test_blink_questions_with_several_pictures_are_set_aside(tmp_path: Path) -> None:
    rows = blink_rows("Spatial_Relation", 2)
    rows[0]["image_2"] = hub_image(5)
    aside = Aside()
    items = list(BLINK.load(write_parquet(tmp_path / "val.parquet", rows), aside=aside))
    assert [i.key for i in items] == ["val_Spatial_Relation_2"]
    assert [(r["reason"], r["detail"]) for r in aside.rows] == [("not one picture", "image_2 too")]


def test_embspatial_in_both_of_its_ways(tmp_path: Path) -> None:
    items = load("embspatial", embspatial_json(tmp_path / "embspatial_bench.json"))
    assert [(i.key, i.category, i.answer) for i in items] == [
        ("ours_0", "close", 0), ("ours_1", "far", 1), ("ours_2", "under", 2), ("ours_3", "left", 3),
    ]  # fmt: skip
    assert items[2].bare == "Which thing of drawing 2 is at the shortest distance?"  # without its stray quotation mark
    assert items[0].picture.id == items[1].picture.id and items[0].picture.read() == encoded(drawing(0), "JPEG")
    assert EMB.ways() == ("generate", "likelihood")
    answers = said(items, lambda i: ["A", "The lamp is the closest.", "table lamp", "I cannot tell"][i.answer or 0])
    scores = ranked(items, lambda i: [Score(-1.0 if k == 0 else -2.0, 1, -0.1) for k in range(4)])
    found = EMB.score(items, answers | scores)
    assert found["official_by"] == "reading" and values(found["official"]) == {"accuracy": 0.75}
    assert [n for n, r in found["readings"].items() if r["official"]] == ["reading", "likelihood_sum"]
    assert values(found["readings"]["likelihood_sum"]["figures"]) == {"accuracy": 0.25}
    assert {k: v["accuracy"]["value"] for k, v in found["readings"]["reading"]["by_category"].items()} == {
        "close": 1, "far": 1, "under": 1, "left": 0,
    }  # fmt: skip


def test_embspatial_rows_that_cannot_be_used(tmp_path: Path) -> None:
    rows = embspatial_rows(5)
    rows[0]["relation"] = "on top of"
    rows[1]["answer"] = 4
    rows[2]["image"] = "/9j/" + "A" * 200  # base64 of no picture
    rows[3]["image"] = "not base64 at all, and no file either: " + "?" * 80
    del rows[4]["answer_options"]
    aside = Aside()
    path = write_json(tmp_path / "embspatial_bench.json", [*rows, [1], {**embspatial_rows(1)[0], "answer": "B"}])
    items = list(EMB.load(path, aside=aside))
    assert [(i.key, i.answer) for i in items] == [("ours_0", 1)]
    assert [(r["row"], r["reason"]) for r in aside.rows] == [
        (1, "not one of the six relations"),
        (2, "the answer names no option"),
        (3, "the picture cannot be opened"),
        (4, "not base64"),
        (5, "lacks a field"),
        (6, "not a JSON object"),
    ]
    lacking = [{k: v for k, v in row.items() if k not in ("relation", "answer")} for row in embspatial_rows()]
    with pytest.raises(VsreError, match=r"lacks the columns relation, answer\. It has data_source"):
        load("embspatial", write_json(tmp_path / "b.json", lacking))
    for broken in (b"{not json", b"", b"[1, 2"):
        with pytest.raises(VsreError, match=r"c\.json"):
            load("embspatial", save(tmp_path / "c.json", broken))


def test_data_uris_and_files_do_for_base64(tmp_path: Path) -> None:
    rows = embspatial_rows(2)
    rows[0]["image"] = "data:image/png;base64," + base64_of(picture(3))
    rows[1]["image"] = "rooms/b.png"
    save(tmp_path / "rooms" / "b.png", picture(4))
    items = load("embspatial", write_json(tmp_path / "embspatial_bench.json", rows))
    assert [i.picture.read() for i in items] == [picture(3), picture(4)]
