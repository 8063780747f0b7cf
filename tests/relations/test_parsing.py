"""Questions as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsre.relations import grammar
from vsre.relations.ontology import RELATIONS
from vsre.relations.parsing import parse_statement

THINGS = st.sampled_from(["cat", "dining table", "hot dog", "tv", "hair drier"])


@given(st.sampled_from(sorted(RELATIONS)), THINGS, THINGS)
def test_what_the_grammar_says_is_understood(relation: str, subject: str, object: str) -> None:
    for said in (grammar.question, grammar.caption):
        assert parse_statement(said(subject, relation, object)) == (subject, relation, object)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Is the cup to the left of the laptop?", ("cup", "left of", "laptop")),
        ("is the Cup  left of a laptop", ("cup", "left of", "laptop")),
        ("Are the scissors on the book?", ("scissors", "on", "book")),
        ("Is the cat on the right side of the dog?", ("cat", "at the right side of", "dog")),
        ("The bowl contains the cake.", ("bowl", "contains", "cake")),
        ("The cat is underneath the chair", ("cat", "beneath", "chair")),
        ("Is the cat on top of the car?", ("cat", "on top of", "car")),
        ("Is the cat near the dog? Answer yes or no.", ("cat", "near", "dog")),
        ("Is the cup on the right-hand side of the laptop?", ("cup", "at the right side of", "laptop")),
        ("The cup is on the left-hand side of the laptop.", ("cup", "at the left side of", "laptop")),
        ("Is the cat in the front of the dog?", ("cat", "in front of", "dog")),
        ("Is the cat in between the dog and the bed?", ("cat", "between", "dog and the bed")),
        ("The cake is inside of the bowl.", ("cake", "inside", "bowl")),
        ("Is the cat not on the bed?", None),
        ("Does the bowl not contain the cake?", None),
        ("The cat is not on the bed.", None),
        ("Is the cat up on the bed?", None),
        ("Is the cat on the left-hand edge of the bed?", None),
        ("Is the cat at the very back of a bus?", None),
        ("Is there a cat?", None),
        ("What is on the table?", None),
        ("Is the cat happy?", None),
        ("", None),
        ("left of", None),
    ],
)
def test_as_people_type_them(text: str, found: tuple[str, str, str] | None) -> None:
    assert parse_statement(text) == found
