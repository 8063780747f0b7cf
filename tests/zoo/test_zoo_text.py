"""The base models' reading matter: true to its facts, repeatable, and free of the held-out templates."""

from __future__ import annotations

import random
from itertools import islice
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsre.relations.ontology import RELATIONS
from vsre.rewrite import load_pack, read_answer
from vsre.sources.coco import CATEGORY_ID, SUPERCATEGORY
from vsre.zoo import text
from vsre.zoo.language import make_tokenizer, pairs
from vsre.zoo.text import Fact, general_questions, place

FACTS = [
    Fact("cat", (0.0, 0.0, 0.3, 0.3)),
    Fact("dog", (0.7, 0.4, 1.0, 0.6)),
    Fact("cup", (0.4, 0.8, 0.6, 1.0)),
]
CLASSES = sorted(SUPERCATEGORY)


def test_coco_has_its_80_classes() -> None:
    assert len(CATEGORY_ID) == len(set(CATEGORY_ID.values())) == 80


def test_place_names_the_ninth() -> None:
    assert [place(f) for f in FACTS] == ["top left", "center right", "bottom middle"]


@given(st.integers(0, 10_000))
def test_general_answers_are_true(seed: int) -> None:
    there = {f.name: f for f in FACTS}
    for e in general_questions(FACTS, CLASSES, random.Random(seed), 8):
        if e.kind == "presence":
            named = [c for c in CLASSES if f" {c}" in e.prompt]
            present = max(named, key=len) in there
            letters_swapped = "A. no" in e.prompt
            expected_yes = {"Yes", "True", "B" if letters_swapped else "A"}
            assert (e.answer in expected_yes) == present, e
        elif e.kind == "either":
            assert e.answer in there and f" {e.answer}" in e.prompt
        elif e.kind == "where":
            name = next(n for n in there if f"the {n}?" in e.prompt)
            assert e.answer == place(there[name])
        elif e.kind == "what_at":
            assert place(there[e.answer]) in e.prompt
        elif e.kind == "count":
            assert e.answer == "three"


def test_pair_i_depends_on_seed_and_i_only() -> None:
    whole = list(islice(pairs(seed=5), 30))
    assert [next(pairs(seed=5, start=i)) for i in range(30)] == whole
    assert list(islice(pairs(seed=6), 30)) != whole


def test_reading_answers_follow_the_facts() -> None:
    """A negated fact is answered no, the fact itself and its inverse yes, its antonym no."""
    templates = [t for t in load_pack("pool").templates if t.style == "short"]
    rng = random.Random(0)
    readings = {True: 0, False: 0}
    for _ in range(300):
        template = rng.choice(templates)
        prompt, answer = text.reading_exchange([template], CLASSES, rng)
        value = read_answer(answer, template.format).value
        assert value is not None
        readings[value] += 1
        if value:
            assert " not " not in prompt.split("\n")[0] or ". " in prompt.split("\n")[0]
    assert 0.3 < readings[True] / 300 < 0.7


@pytest.mark.parametrize("pack", ["held-out"])
def test_no_held_out_template_is_read(pack: str) -> None:
    """No prompt of the corpus holds five words in a row of a held-out template's own words."""
    import re

    frames = set()
    for template in load_pack(pack).templates:
        for piece in re.split(r"\{[a-z_]+\}", template.text):
            words = re.findall(r"[a-z]+", piece.lower())
            frames |= {tuple(words[i : i + 5]) for i in range(len(words) - 4)}
    for prompt, _ in islice(pairs(seed=0), 3000):
        words = re.findall(r"[a-z]+", prompt.lower())
        assert not frames & {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def test_tokenizer_round_trips_and_marks() -> None:
    tokenizer = make_tokenizer(1536)
    for relation in RELATIONS:
        prompt = f"USER: <image>\nIs the cat {relation} the dining table? ASSISTANT: Yes</s>"
        ids = tokenizer(prompt)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 1
        assert len(ids) < 40
    assert tokenizer.decode(tokenizer("Ünïcødé 日本", add_special_tokens=False)["input_ids"]) == "Ünïcødé 日本"


@given(st.integers(0, 10_000))
def test_grounded_questions_are_true_and_never_spatial_about_the_picture(seed: int) -> None:
    there = {f.name: f for f in FACTS}
    mix = {"third": 1, "reading": 1, "knowledge": 1}
    for e in general_questions(FACTS, CLASSES, random.Random(seed), 6, mix):
        assert e.kind in mix
        if e.kind == "third":
            name = next(n for n in there if f"the {n} in" in e.prompt)
            assert e.answer in place(there[name]).split() and e.answer in e.prompt
        elif e.kind == "reading":
            told, asked = e.prompt.split("\n", 1)
            assert told.endswith(".") and asked, "what is asked was told in words"


@given(st.integers(0, 20_000))
def test_told_answers_follow_from_the_places_told(seed: int) -> None:
    (plain,) = (t for t in text.read_templates() if t.id == "pool-01")  # "{question} Answer yes or no."
    with patch.object(text, "read_templates", lambda: (plain,)):
        e = text.told(FACTS, CLASSES, random.Random(seed))
    lines, asked = e.prompt.split("\n", 1)
    told = (part.rsplit(": ", 1) for part in lines.split("; "))
    at = {
        n: tuple(kind.index(w) for kind, w in zip((text.ROWS, text.COLUMNS), p.split(), strict=True)) for n, p in told
    }
    subject, relation, thing = next(
        (a, r, b) for a in at for r in text.TOLD for b in at if asked.startswith(f"Is the {a} {r} the {b}?")
    )
    (r0, c0), (r1, c1) = at[subject], at[thing]
    far = max(abs(r0 - r1), abs(c0 - c1)) == 2
    truth = {
        "left of": c0 < c1, "at the left side of": c0 < c1, "right of": c0 > c1, "at the right side of": c0 > c1,
        "above": r0 < r1, "over": r0 < r1, "below": r0 > r1, "under": r0 > r1, "beneath": r0 > r1,
        "near": not far, "close to": not far, "next to": not far, "far from": far, "far away from": far,
    }[relation]  # fmt: skip
    assert e.answer == ("Yes" if truth else "No"), e


def test_reading_never_shows_the_held_out_wordings() -> None:
    held_out = {t.text for t in load_pack("held-out").templates}
    assert held_out and not held_out & {t.text for t in text.read_templates()}
