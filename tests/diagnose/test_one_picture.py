"""One question about one picture: read, probed, held to its own word."""

from __future__ import annotations

from typing import Any

import pytest
from diagnose_data import Scripted, picture

from vsre.diagnose import Prompt, Reply
from vsre.diagnose.one_picture import ask_picture
from vsre.errors import VsreError

QUESTION = "Is the cat to the left of the dog?"


def words(prompt: Prompt) -> Reply:
    """Holds that the cat is left of the dog, in any words; blind."""
    text = prompt.text
    sides = text.count("left of") > 0
    first = text.find("cat") < text.find("dog")
    truth = (sides == first) is not ("is not" in text and "A." not in text)
    return Reply.yes_no(prompt.options[0 if truth else 1], -0.1 if truth else -3.0, -3.0 if truth else -0.1)


def test_all_wordings_and_the_probes() -> None:
    one = ask_picture(Scripted(words), picture(0), QUESTION)
    assert one.statement == ("cat", "left of", "dog") and one.says is True
    assert len(one.answers) == 50 and one.agreement is not None and one.agreement > 0.9
    told = {p.name: (p.reading, p.expected) for p in one.probes}
    # A blind speaker of English is consistent in words, and found out by the mirror.
    assert told["inverse"] == (True, True) and told["opposite"] == told["swap"] == told["negated"] == (False, False)
    assert told["mirror"] == (True, False) and told["mirror-swap"] == (False, True)
    assert told["blank"] == (True, None)
    assert one.to_json()["probes"][0]["answers"][0]["p_yes"] == pytest.approx(0.9478, abs=1e-3)


def test_a_no_leaves_more_open() -> None:
    one = ask_picture(Scripted(lambda p: Reply(p.options[1])), picture(0), "The cat is left of the dog.")
    assert one.says is False and one.agreement == 1.0 and one.p_yes is None
    told = {p.name: p.expected for p in one.probes}
    assert told == {
        **{"blank": None, "swap": None, "inverse": False, "opposite": None, "negated": True},
        **{"mirror": None, "mirror-swap": False},
    }


def test_nothing_readable_is_expected_of_nobody() -> None:
    one = ask_picture(Scripted(lambda p: Reply("")), picture(0), QUESTION)
    assert one.says is None and one.agreement is None and all(p.expected is None for p in one.probes)


def test_any_other_question_is_asked_as_it_stands() -> None:
    engine = Scripted(lambda p: Reply("A cat."))
    one = ask_picture(engine, picture(0), "What do you see?")
    assert one.statement is None and one.answers[0].text == "A cat." and engine.prompts == ["What do you see?"]


@pytest.mark.parametrize(
    ("engine", "image", "says"),
    [
        (Scripted(words), b"no picture", "not a picture"),
        (Scripted(lambda p: Reply(error="out of memory")), picture(0), "out of memory"),
    ],
)
def test_what_cannot_be_answered(engine: Any, image: bytes, says: str) -> None:
    with pytest.raises(VsreError, match=says):
        ask_picture(engine, image, QUESTION)
