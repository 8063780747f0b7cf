"""A label under a negation or a doubt is never read as that label; what is only near a negation still is."""

from __future__ import annotations

import pytest

from vsre.rewrite import FORMATS, AnswerFormat, read_answer, read_choice

SAID = [  # what comes before a label that is spoken
    "I would not say {}.", "I wouldn't answer {}", "I wouldn’t choose {}.", "I'd never go with {}",
    "It's incorrect to say {}.",
    "It is wrong to say {}.", "It would be a mistake to answer {}", "It isn't right to say {}.", "I refuse to say {}",
    "I hesitate to say {}", "It is too early to say {}", "No one would say {}", "There is no reason to say {}",
    "I don't think the answer is {}.", "I don’t believe that the answer is {}", "I don\u2032t think the answer is {}",
    "I doubt that the answer is {}", "I disagree that the answer is {}", "Nothing suggests that the answer is {}",
    "Mustn't I say {}", "I wouldn't say the answer is not {}", "I do not therefore say {}", "Saying {0} is wrong",
    "The answer {0} is incorrect.",
]  # fmt: skip
JUDGED = [  # what comes before the judgement of a statement
    "I don't think the statement is {}.", "I do not believe that is {}.", "I wouldn't say that is {}.",
    "The image does not confirm that the statement is {}", "There is no evidence that the statement is {}.",
    "I doubt it is {}", "I disagree that it is {}", "I deny that it is {}", "The reverse is {}.", "The contrary is {}.",
    "It is unlikely that the statement is {}", "It is impossible that it is {}", "I don’t think that’s {}.",
    "The image contradicts that the statement is {}", "It fails to show that the statement is {}",
    "I am not convinced that it is {}", "It does not follow that it is {}", "None of this shows that it is {}",
    "The statement that the cat is not left of the dog is {}",
]  # fmt: skip
NEAR = [  # a negation stands near, and the label counts
    "There is no cat so the answer is {}", "I do not see it there, the answer is {}",
    "It is not sharp but I would say {}", "There is no doubt that the answer is {}",
    "Without a doubt the answer is {}", "I don't doubt that the answer is {}",
    "It is not wrong to say {}", "On the contrary the answer is {}",
    "The picture has no dog and the answer is {}", "I do not see a dog. I would say {}.",
]  # fmt: skip


def value(text: str, format: AnswerFormat) -> bool | None:
    return read_answer(
        text, format, statement="The cat is left of the dog.", negated="The cat is not left of the dog."
    ).value


def labels(format: AnswerFormat) -> list[tuple[str, bool]]:
    own = [(format.yes, True), (format.no, False)]
    return [(word, truth) for word, truth in [*own, ("yes", True), ("no", False)] if word != "Not"]


@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda f: f.name)
@pytest.mark.parametrize("text", SAID)
def test_a_label_that_is_not_said_is_none(text: str, format: AnswerFormat) -> None:
    assert [value(text.format(word), format) for word, _ in labels(format)] == [None] * len(labels(format))


@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda f: f.name)
@pytest.mark.parametrize("text", JUDGED)
def test_a_judgement_that_is_denied_is_none(text: str, format: AnswerFormat) -> None:
    words = ["true", "correct", "accurate", "false", "incorrect", "wrong"]
    words += [] if format.lettered else [word for word, _ in labels(format)]
    assert [(word, value(text.format(word), format)) for word in words] == [(word, None) for word in words]


@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda f: f.name)
@pytest.mark.parametrize("text", NEAR)
def test_a_negation_that_does_not_reach_the_label_turns_nothing(text: str, format: AnswerFormat) -> None:
    assert all(value(text.format(word), format) is truth for word, truth in labels(format))


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("No, the cat is not left of the dog.", False),
        ("Yes, it does not touch", True),
        ("The statement is not true.", False),
        ("It is not correct.", False),
        ("It is not the case that the statement is true.", False),
        ("No, I don't think the statement is true.", False),
        ("Yes, I wouldn't say it is false.", True),
        ("No, yes is wrong", False),
        ("No. There is no evidence that the statement is true.", False),
        ("The claim is not supported so it is false", False),
        ("It is correct to say that the cat is left of the dog", True),
        ("It is true that the cat is not left of the dog.", None),
        ("It is false that the cat is not left of the dog.", None),
        ("It is correct to say that the cat is not left of the dog", None),
        ("It is true that the statement is not correct", None),
        ("It is not true that the statement is false", None),
        ("It is not false that the statement is true", True),
        ("yes is the answer", True),
        ("yes is not the answer", None),
        ("No is the wrong answer", None),
        ("No cannot be right", None),
    ],
)
def test_denials_beside_a_label(text: str, truth: bool | None) -> None:
    assert value(text, FORMATS["yes-no"]) is truth


@pytest.mark.parametrize(
    "text",
    [
        "B is wrong",
        "Option B is not correct.",
        "Option A is incorrect",
        "I doubt A is correct",
        "A can't be right",
        "(B) is not correct",
        "(A) is incorrect.",
        "(B) cannot be right",
    ],
)
def test_a_letter_called_wrong_is_none(text: str) -> None:
    assert value(text, FORMATS["letters-yes-first"]) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I would not choose B", None),
        ("I wouldn’t say A", None),
        ("I'd never pick A", None),
        ("I don't think the answer is A", None),
        ("The answer cannot be A", None),
        ("I doubt the answer is B", None),
        ("(A) is not correct", None),
        ("(A) is incorrect", None),
        ("(B) cannot be right", None),
        ("(B) does not apply", None),
        ("(A) left of the dog is not correct", None),
        ('"left of the dog" is wrong', None),
        ("A: wrong", None),
        ("Wrong: (A)", None),
        ("Not (A)", None),
        ("The answer is not (B)", None),
        ("The answer is not: B", None),
        ("I would not choose (B)", None),
        ('I would not choose "left of the dog"', None),
        ("I would not choose A, B", None),
        ("(A) is not correct, (B) is correct", "B"),
        ("A: wrong, B: correct", "B"),
        ("A is wrong, B is right", "B"),
        ("Not A but B", "B"),
        ("B, not A", "B"),
        ("B (not A)", "B"),
        ("(B) is not wrong", "B"),
        ("B, left of the dog is wrong", "B"),
        ("I do not think so, (B)", "B"),
        ("The cat is not above the dog so I choose B", "B"),
        ("There is no doubt that the answer is B", "B"),
        ("(B), which is not right of the cat", "B"),
    ],
)
def test_choices_taken_back(text: str, letter: str | None) -> None:
    options = {"A": "left of the dog", "B": "right of the dog", "C": "above"}
    assert read_choice(text, options).letter == letter


@pytest.mark.parametrize("text", ["no ", "yes no ", "nope ", "A "])
def test_a_label_said_a_thousand_times_over_is_none(text: str) -> None:
    for format in (FORMATS["yes-no"], FORMATS["letters-yes-first"]):
        assert value(text * 3000 + "is what I say", format) is None


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ('I would not say "yes".', None),
        ("I don't think the answer is (yes).", None),
        ("I do not say the final answer is yes.", None),
        ("It is not so that the answer is yes", None),
        ("I did not look twice. So the answer is: yes", True),
        ('I would say "yes".', True),
        ("The cat is not there. The answer is no.", False),
        ("It does not touch the dog, so: no.", False),
    ],
)
def test_denials_across_quotes_and_conclusions(text: str, reads: bool | None) -> None:
    assert value(text, FORMATS["yes-no"]) is reads
