"""What blind guessers get: by chance, by one answer to everything, and by one to each kind of question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark_data import load, mme_folder, picture, right, said, whatsup_folder

from vsre.benchmarks import BENCHMARKS, Item
from vsre.benchmarks.pictures import Pictures
from vsre.benchmarks.scoring import floors
from vsre.benchmarks.shares import Shares
from vsre.cli.benchmarks import figure_table

SHOWN = Pictures([]).take(picture(0))
BLINK = BENCHMARKS["blink"]


def questions(category: str, *asked: tuple[str, str, int]) -> list[Item]:
    """A question for each (first option, second option, index of the right one)."""
    return [
        Item(f"{category} {n}", SHOWN, (first, second), answer, "ask", "ask", f"{category} {n}", category)
        for n, (first, second, answer) in enumerate(asked)
    ]


def found(name: str, asked: list[Item]) -> dict[str, Any]:
    return floors(BENCHMARKS[name], asked, Shares(asked))


def apart() -> list[Item]:
    """Depth is always A and relation always B."""
    return questions("Relative_Depth", *[("x", "y", 0)] * 10) + questions("Spatial_Relation", *[("yes", "no", 1)] * 12)


def test_tasks_with_different_answers_have_the_best_constant_of_each() -> None:
    floor = found("blink", apart())
    assert floor["majority"] == {"answer": "B", "mean_over_tasks": 0.5, "Spatial_Relation": 1, "Relative_Depth": 0}
    assert floor["majority_by_category"] == {
        "answer": {"Relative_Depth": "x", "Spatial_Relation": "no"},
        "mean_over_tasks": 1.0,
        "Spatial_Relation": 1.0,
        "Relative_Depth": 1.0,
    }


def test_each_kind_has_the_better_of_place_and_word() -> None:
    """Depth is always "left", wherever that stands; relation is always A, whatever stands there."""
    depth = questions("Relative_Depth", ("left", "right", 0), ("right", "left", 1))
    relation = questions("Spatial_Relation", *[(f"this {n}", f"that {n}", 0) for n in range(4)])
    floor = found("blink", depth + relation)
    assert floor["majority_by_category"]["answer"] == {"Relative_Depth": "left", "Spatial_Relation": "A"}
    figures = {name: values["mean_over_tasks"] for name, values in floor.items()}
    assert figures == {"chance": 0.5, "majority": 0.75, "majority_text": 0.75, "majority_by_category": 1.0}


def test_a_kind_that_follows_from_the_answer_is_not_known(tmp_path: Path) -> None:
    """What's Up's and EmbSpatial's categories have the true relation: a guesser who knew it would need no picture."""
    floor = found("whats-up", load("whats-up", whatsup_folder(tmp_path)))
    assert set(floor["majority_by_category"]["answer"]) == {
        "Controlled A", "Controlled B", "COCO one object", "COCO two objects", "GQA one object", "GQA two objects",
    }  # fmt: skip
    assert floor["majority_by_category"]["Controlled A"] == 1 / 4
    sides = ("the cup is left of the box", "the cup is right of the box")
    asked = questions("left", *[(*sides, 0)] * 3) + questions("right", *[(*sides, 1)] * 2)
    asked += questions("close", ("cup", "box", 1)) + questions("far", ("cup", "box", 0))
    floor = found("embspatial", asked)
    assert floor["majority_by_category"]["answer"] == {"arrangement": sides[0], "close": "box", "far": "cup"}
    assert floor["majority_by_category"]["accuracy"] == 5 / 7


def test_one_kind_has_no_floor_of_its_own(tmp_path: Path) -> None:
    assert set(found("mme", load("mme", mme_folder(tmp_path)))) == {"chance", "majority", "majority_text"}


def test_the_table_shows_the_largest_constant_floor() -> None:
    asked = apart()
    table = figure_table({"title": BLINK.title, **BLINK.score(asked, said(asked, right))})
    constant = next(column for column in table.columns if column.header == "constant")
    assert list(constant.cells) == ["100.0", "100.0", "100.0", ""]
