"""What answers to questions with options say: the table of what other tools misread, and uglier ones."""

from __future__ import annotations

import re
import time
import unicodedata
from pathlib import Path

import pytest
from benchmark_data import load, mme_folder, picture
from hypothesis import given
from hypothesis import strategies as st

from vsre.benchmarks import Item, read_option
from vsre.benchmarks.pictures import Pictures

FOUR = ("left of the dog", "right of the dog", "on top of the cat", "below")


def item(*options: str, labels: tuple[str, ...] = ()) -> Item:
    shown = Pictures([]).take(picture(0))
    return Item("k", shown, options, 0, "ask", "ask", "g", "c", labels=labels)


@pytest.fixture(scope="module")
def lettered() -> Item:
    return item(*FOUR)


@pytest.fixture(scope="module")
def yes_no() -> Item:
    return item("Yes", "No", labels=("yes", "no"))


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("**Yes**", "yes"),
        ("**No**, it is not", "no"),
        ("The answer is yes", "yes"),
        ("Yes, there is no dog", "yes"),
        ("Notice the cat. Yes.", "yes"),
        ("Now I see: yes", "yes"),
        ("North of it", None),
        ("True", "yes"),
        ("False", "no"),
        ("It is not.", "no"),
        ("yes\nno", None),
        ("", None),
        ("I cannot tell from the picture.", None),
    ],
)
def test_yes_and_no(yes_no: Item, answer: str, option: str | None) -> None:
    index = read_option(answer, yes_no)
    assert (None if index is None else yes_no.names[index]) == option


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        # what other tools misread
        ("A dog is below", "D"),
        ("Cannot tell", None),
        ("Both A and B", None),
        ("right of the dog", "B"),
        # letters
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("(b).", "B"),
        ("**B**", "B"),
        ("B. right of the dog", "B"),
        ("B) right of the dog", "B"),
        ("The answer is B", "B"),
        ("the answer is b.", "B"),
        ("The correct option is (C).", "C"),
        ("Answer: D", "D"),
        ("I would choose option D", "D"),
        ("\\boxed{B}", "B"),
        ("<answer>B</answer>", "B"),
        ("B\n\nThe cup stands on a table.", "B"),
        ("Let me think. The dog sits in the middle.\nFinal answer: C", "C"),
        # the text of an option
        ("Right of the dog.", "B"),
        ("The answer is left of the dog.", "A"),
        ("The cup is on top of the cat.", "C"),
        # nothing that can be read
        ("A cat", None),
        ("A or B", None),
        ("A. left of the dog B. right of the dog", None),
        ("not B", None),
        ("The cup is not below", None),
        ("It is left of the dog or below.", None),
        ("Is it below?", None),
        ("If it were below, it would be D.", None),
        ("It might be below.", None),
        ("None of the above", None),
        ("E", None),
        ("I'm sorry, I can't help with that. The options are left of the dog and below.", None),
        ("", None),
        (" \n\t ", None),
        ("<think>It must be B", None),
    ],
)
def test_letters_and_texts(lettered: Item, answer: str, letter: str | None) -> None:
    index = read_option(answer, lettered)
    assert (None if index is None else lettered.names[index]) == letter


def test_options_that_are_yes_and_no_are_read_as_such() -> None:
    asked = item("no", "yes")
    told = ["It is not.", "True", "(A)", "yes", "B", "**No**, it is not", "yes and no"]
    assert [read_option(answer, asked) for answer in told] == [0, 1, 0, 1, 1, 0, None]


def test_of_options_within_one_another_the_longest_counts() -> None:
    corners = item("left", "top left", "bottom", "none of these")
    assert read_option("It stands in the top left corner.", corners) == 1
    assert read_option("It stands to the left of it.", corners) == 0
    assert read_option("It stands at the top left, near the bottom.", corners) is None
    things = item("lamp", "table lamp", "table", "rug")
    assert read_option("The table lamp is the closest.", things) == 1
    assert read_option("The lamp is closer than the rug.", things) is None


def test_options_with_brackets_and_letters_in_them() -> None:
    odd = item("point (A)", "point (B)", "3.5 m", "a+b")
    assert read_option("Point (B)", odd) == 1
    assert read_option("3.5 m", odd) == 2
    assert read_option("C", odd) == 2


def test_answers_of_ten_megabytes_take_no_time(lettered: Item, yes_no: Item) -> None:
    began = time.monotonic()
    assert read_option("A cup. " * 1_500_000, lettered) is None
    assert read_option("B " * 5_000_000, lettered) is None
    assert read_option("(" * 10_000_000, lettered) is None
    assert read_option("x" * 10_000_000 + "\nFinal answer: C", lettered) == 2
    assert read_option("yes " * 2_500_000, yes_no) is None
    assert time.monotonic() - began < 60


SCRAPS = (
    *(
        "A",
        "b",
        "(C)",
        "D.",
        "left",
        "of",
        "the dog",
        "right of the dog",
        "below",
        "on top of the cat",
        "the answer is",
    ),
    *("not", "or", "maybe", "if", "I cannot tell", "?", "\n", ",", "**", "ª", "Ⓑ", "\u0301", "</s>", "\\boxed{"),
)


@given(st.lists(st.one_of(st.sampled_from(SCRAPS), st.text(max_size=6)), max_size=12).map(" ".join))
def test_never_raises_and_never_invents(text: str) -> None:
    """What is read stands in the answer: the letter as a word of its own, or the option's words in their order."""
    asked = item(*FOUR)
    index = read_option(text, asked)
    if index is not None:
        words = " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))
        assert re.search(rf"\b({asked.names[index].casefold()}|{asked.options[index]})\b", words)


@pytest.mark.parametrize("option", range(4))
@pytest.mark.parametrize(
    "frame", ["{}", "({})", "{}.", "The answer is {}", "**{}**", "Option {}", "{}: {t}", "({}) {t}"]
)
def test_every_option_is_read_in_every_usual_frame(lettered: Item, frame: str, option: int) -> None:
    said = frame.format(lettered.names[option], t=lettered.options[option])
    assert read_option(said, lettered) == option
    assert read_option(said.lower(), lettered) == option


def test_a_loaded_item_is_read_by_its_own_options(tmp_path: Path) -> None:
    first = load("mme", mme_folder(tmp_path))[0]
    assert (read_option("No.", first), read_option("B", first)) == (1, None)
