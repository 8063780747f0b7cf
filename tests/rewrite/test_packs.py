"""The shipped template packs, and how a bad pack is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vsre.errors import VsreError
from vsre.relations import grammar
from vsre.rewrite import Template, ask, load_pack, shipped_packs
from vsre.triplets import Triplet

PACKS = ["phase1", "phase2", "phase3", "phase4", "pool", "stage1", "test-s", "held-out"]


def triplet(relation: str = "left of", *, boxes: bool = True, label: bool = True) -> Triplet:
    return Triplet(
        image_id="name:x.jpg",
        image_name="x.jpg",
        subject="teddy bear",
        relation=relation,
        object="couch",
        caption=grammar.caption("teddy bear", relation, "couch"),
        label=label,
        split="test",
        origin="test",
        subject_box=(0.123, 0.3, 0.55, 0.8) if boxes else None,
        object_box=(0, 0.25, 1, 1) if boxes else None,
    )


def templates(*packs: str) -> list[Template]:
    return [t for pack in packs for t in load_pack(pack).templates]


def test_sizes() -> None:
    sizes = {name: len(load_pack(name).templates) for name in PACKS}
    assert sizes["phase2"] + sizes.pop("phase3") == 33
    assert sizes == {
        "phase1": 15,
        "phase2": 16,
        "phase4": 21,
        "pool": 50,
        "stage1": 10,
        "test-s": 1,
        "held-out": 12,
    }
    assert len(load_pack("diagnosis").templates) == 69
    assert set(shipped_packs()) == {*PACKS, "diagnosis"}
    assert all(load_pack(name).purpose for name in shipped_packs())


def test_pool_is_30_plain_and_20_paraphrases_of_every_training_format_and_style() -> None:
    pool = templates("pool")
    assert [t.tags for t in pool].count(("plain",)) == 30
    assert [t.tags for t in pool].count(("paraphrase",)) == 20
    assert {t.style for t in pool} == {"short", "full"}
    assert {t.format.name for t in pool} == {
        "yes-no",
        "true-not",
        "true-false",
        "letters-yes-first",
        "letters-no-first",
    }
    assert not any(t.needs_boxes for t in pool)
    for letters in ("letters-yes-first", "letters-no-first"):  # short ones come in both orders alike
        assert sum(t.format.name == letters and t.style == "short" for t in pool) == 5


def test_only_phase_4_gives_boxes() -> None:
    assert all(t.needs_boxes for t in templates("phase4"))
    assert not any(t.needs_boxes for t in templates(*(p for p in PACKS if p != "phase4")))


def test_ids_are_unique_over_all_packs() -> None:
    ids = [t.id for t in templates(*PACKS)]
    assert len(ids) == len(set(ids))


def grams(template: Template, n: int) -> set[tuple[str, ...]]:
    pieces = re.split(r"\{\w+\}", template.text.lower())
    words = [re.findall(r"\w+", piece) for piece in pieces]
    return {tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)}


def test_held_out_shares_no_frame_and_no_format() -> None:
    """No two words in a row. Single words cannot be told apart ("the", "is"); three in a row would let "in
    the image" and "look at the" pass as long as a slot breaks them, and two is the strictest that English
    allows."""
    seen = templates(*(p for p in PACKS if p != "held-out"))
    held_out = templates("held-out")
    shared = set().union(*(grams(t, 2) for t in seen)) & set().union(*(grams(t, 2) for t in held_out))
    assert not shared
    assert not {t.format.name for t in seen} & {t.format.name for t in held_out}
    labels = {w.lower() for t in seen for w in (t.format.yes, t.format.no, *t.format.yes_words, *t.format.no_words)}
    assert not labels & {w.lower() for t in held_out for w in (t.format.yes, t.format.no)}
    assert len({t.format.name for t in held_out}) == 12


@pytest.mark.parametrize("relation", ["left of", "contains", "has as a part"])
@pytest.mark.parametrize("label", [True, False])
def test_every_template_asks(relation: str, label: bool) -> None:
    for template in templates(*PACKS):
        question = ask(template, triplet(relation, label=label))
        assert "{" not in question.prompt and "is contains" not in question.prompt
        assert "couch" in question.prompt and ".." not in question.prompt and "  " not in question.prompt
        assert question.answer and question.truth is label
        assert ("couch" in question.answer) == (template.style == "full")


def test_question_and_answers() -> None:
    by_id = {t.id: t for t in templates(*PACKS)}
    true, false = triplet(), triplet("contains", label=False)
    question = ask(by_id["test-s"], true)
    assert question.prompt == "Is the teddy bear left of the couch? Please answer yes or no."
    assert (question.answer, question.truth, question.pack, question.format) == (
        "Yes",
        True,
        "test-s",
        "yes-no",
    )
    assert question.id == f"{true.key}/test-s"
    assert ask(by_id["pool-22"], true).answer == "Yes, the teddy bear is left of the couch."
    assert ask(by_id["pool-22"], false).answer == "No, the teddy bear does not contain the couch."
    assert ask(by_id["pool-28"], false).answer == "Not true, the teddy bear does not contain the couch."
    assert ask(by_id["pool-30"], true).answer == "B. Yes, the teddy bear is left of the couch."
    assert ask(by_id["p1-whether-letters-swapped"], false).answer == "A"
    boxed = ask(by_id["p4-full-yes-no"], true)
    assert "The teddy bear is at [0.12, 0.30, 0.55, 0.80]" in boxed.prompt
    assert boxed.answer == (
        "Yes, the teddy bear [0.12, 0.30, 0.55, 0.80] is left of the couch [0.00, 0.25, 1.00, 1.00]."
    )


def test_boxes_asked_for_and_absent() -> None:
    with pytest.raises(VsreError, match=r"p4-plain-yes-no gives the boxes .* has none"):
        ask(templates("phase4")[0], triplet(boxes=False))


GOOD = '  - {id: ok, text: "{question} Answer yes or no.", format: yes-no}\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{id: a, text: "Yes or no?", format: yes-no}', "never says the relation"),
        (
            '{id: a, text: "Look at the {subject} and the {object}.", format: yes-no}',
            "never says the relation",
        ),
        ('{id: a, text: "Is it {relation}?", format: yes-no}', "does not say what it relates"),
        ('{id: a, text: "{question} {colour}", format: yes-no}', "unknown slot {colour}"),
        ('{id: a, text: "{caption.__class__}", format: yes-no}', "unknown slot {caption.__class__}"),
        ('{id: a, text: "{caption!r}", format: yes-no}', "unknown slot {caption!r}"),
        ('{id: a, text: "{caption:>9}", format: yes-no}', "unknown slot {caption:>9}"),
        ('{id: a, text: "{}{caption}", format: yes-no}', "unknown slot {}"),
        ('{id: a, text: "{question", format: yes-no}', "unbalanced brace"),
        ('{id: a, text: "question}", format: yes-no}', "unbalanced brace"),
        ('{id: ok, text: "{question}", format: yes-no}', "the id 'ok' is taken by line 4"),
        ('{id: a, text: "{question}", format: maybe}', "unknown format 'maybe'; formats are yes-no"),
        (
            '{id: a, text: "{question} Answer A or B.", format: letters-yes-first}',
            "answers with A, but the text",
        ),
        ('{id: a, text: "{question} A. no B. yes", format: letters-yes-first}', "'A. yes'"),
        ('{id: a, text: "{question} A. yes B. nobody", format: letters-yes-first}', "answers with B"),
        ('{id: a, text: "{question} {subject_box}", format: yes-no}', "one box"),
        ('{id: a, text: "{question}", format: yes-no, style: long}', "style"),
        ('{id: a, text: "{question}", format: yes-no, colour: red}', "colour"),
        ('{id: a, text: "{question}"}', "format: field required"),
        ('{id: yes, text: "{question}", format: yes-no}', "id: input should be a valid string"),
        ('{id: "a/b", text: "{question}", format: yes-no}', "id: string should match"),
        ('{id: a, text: "", format: yes-no}', "text: string should have at least 1"),
        ('{id: a, id: b, text: "{question}", format: yes-no}', "'id' is given twice"),
        ("just words", "valid dictionary"),
    ],
)
def test_a_bad_template_is_refused_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\npurpose: test\ntemplates:\n{GOOD}  - {line}\n{GOOD.replace('ok', 'ok2')}")
    with pytest.raises(VsreError) as error:
        load_pack(path)
    assert "mine.yaml" in str(error.value) and "line 5" in str(error.value) and said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "input should be a valid dictionary"),
        ("- a\n- b\n", "input should be a valid dictionary"),
        ("name: mine\n", "no templates in this pack"),
        ("name: mine\ntemplates: []\n", "no templates in this pack"),
        ("name: mine\ntemplates: {a: 1}\n", "line 2: templates: input should be a valid list"),
        ("name: mine\ncolour: red\n", "line 2: colour"),
        ("name: [\n", "not valid YAML"),
        ("name: mine\ninclude: [nowhere]\n", "names 'nowhere'"),
        ("name: mine\ninclude: [mine.yaml]\n", "includes itself"),
        ("name: mine\ninclude: [pool, pool]\n", "pool-01"),
    ],
)
def test_a_bad_pack_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(VsreError) as error:
        load_pack(path)
    assert "mine.yaml" in str(error.value) and said in str(error.value)


def test_a_pack_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"No template pack 'pol'.*held-out.*pool"):
        load_pack("pol")
    with pytest.raises(VsreError, match="cannot read"):
        load_pack(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VsreError, match="cannot read"):
        load_pack(tmp_path / "bytes.yaml")


def test_a_pack_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ninclude: [test-s]\ntemplates:\n{GOOD}")
    pack = load_pack(path)
    assert [(t.id, t.pack) for t in pack.templates] == [("test-s", "test-s"), ("ok", "mine")]
    path.write_text('name: mine\ntemplates:\n  - {id: j, text: "{question} {{\\"answer\\": ...}}", format: yes-no}\n')
    assert ask(load_pack(path).templates[0], triplet()).prompt.endswith('{"answer": ...}')
