"""Statements, denials and questions of VSR's relations, and captions taken apart again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsre.relations import grammar

RELATIONS = [
    "left of",
    "on",
    "on top of",
    "in",
    "contains",
    "consists of",
    "has as a part",
    "facing",
    "congruent",
]
THINGS = ["cat", "dining table", "scissors", "skis", "tv", "hot dog", "hair drier"]


@pytest.mark.parametrize(
    ("relation", "caption", "negated", "question"),
    [
        (
            "left of",
            "The cat is left of the dog.",
            "The cat is not left of the dog.",
            "Is the cat left of the dog?",
        ),
        (
            "contains",
            "The cat contains the dog.",
            "The cat does not contain the dog.",
            "Does the cat contain the dog?",
        ),
        (
            "consists of",
            "The cat consists of the dog.",
            "The cat does not consist of the dog.",
            "Does the cat consist of the dog?",
        ),
        (
            "has as a part",
            "The cat has as a part the dog.",
            "The cat does not have the dog as a part.",
            "Does the cat have the dog as a part?",
        ),
    ],
)
def test_sentences(relation: str, caption: str, negated: str, question: str) -> None:
    assert grammar.caption("cat", relation, "dog") == caption
    assert grammar.negated("cat", relation, "dog") == negated
    assert grammar.question("cat", relation, "dog") == question


@given(st.sampled_from(THINGS), st.sampled_from(RELATIONS), st.sampled_from(THINGS))
def test_caption_comes_apart_as_it_was_put_together(subject: str, relation: str, object: str) -> None:
    assert grammar.parse_caption(grammar.caption(subject, relation, object), relation) == (subject, object)


@pytest.mark.parametrize(
    ("caption", "relation", "parts"),
    [
        ("the cat IS  left of\tthe dog", "left of", ("cat", "dog")),
        ("  The cat is left of the dog .  ", " Left  Of ", ("cat", "dog")),
        ("A cat is on an oven.", "on", ("cat", "oven")),
        ("Scissors are on the book.", "on", ("Scissors", "book")),
        ("The cat is on top of the dog.", "on", None),
        ("The cat is on the dog.", "on top of", None),
        ("The bowl is contains the cake.", "contains", ("bowl is", "cake")),
        ("The cat left of the dog.", "left of", None),
        ("The is on the dog.", "on", None),
        ("The cat is on the.", "on", None),
        ("", "on", None),
        ("The cat is on (the) dog.", "on (the)", None),
        ("x" * 100_000, "on", None),
    ],
)
def test_parse_caption(caption: str, relation: str, parts: tuple[str, str] | None) -> None:
    assert grammar.parse_caption(caption, relation) == parts


@pytest.mark.skipif(not os.environ.get("VSRE_TEST_DATA"), reason="set VSRE_TEST_DATA to a folder with vsr/annotations")
def test_every_published_caption_comes_apart() -> None:
    files = sorted(Path(os.environ["VSRE_TEST_DATA"], "vsr/annotations").glob("*/*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    assert len(rows) == 16_023
    for row in rows:
        parts = grammar.parse_caption(row["caption"], row["relation"])
        assert parts is not None
        assert grammar.caption(parts[0], row["relation"], parts[1]) == row["caption"]
