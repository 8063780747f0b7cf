"""Several instances of a class: nobody says which one a caption means."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.relations.photo_rules import shipped_rules
from vsre.relations.things import Thing, Verdict
from vsre.verify.rules import ONE_BOX, SEVERAL, judge_all, would_help

LEFT, FAR_LEFT, RIGHT, MIDDLE = (
    (0.1, 0.4, 0.3, 0.6),
    (0.0, 0.4, 0.1, 0.6),
    (0.7, 0.4, 0.9, 0.6),
    (0.4, 0.4, 0.6, 0.6),
)
P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED


def things(*boxes: tuple[float, float, float, float]) -> list[Thing]:
    return [Thing(box) for box in boxes]


@pytest.mark.parametrize(
    ("subjects", "objects", "verdict", "reason"),
    [
        ([LEFT], [RIGHT], P, ""),
        ([RIGHT], [LEFT], F, ""),
        ([LEFT, FAR_LEFT], [RIGHT], P, ""),
        ([RIGHT], [LEFT, FAR_LEFT], F, ""),
        ([LEFT, RIGHT], [MIDDLE], U, SEVERAL),
        ([LEFT], [FAR_LEFT, RIGHT], U, SEVERAL),
        ([LEFT], [LEFT], U, ONE_BOX),
    ],
)
def test_all_pairs_must_agree(subjects: list, objects: list, verdict: Verdict, reason: str) -> None:
    found = judge_all(shipped_rules(), "left of", things(*subjects), things(*objects))
    assert (found.judgement.verdict, found.judgement.reason) == (verdict, reason)
    assert found.pairs == len(subjects) * len(objects)


def test_the_margin_and_the_boxes_are_those_of_the_hardest_pair() -> None:
    book = shipped_rules()
    near = judge_all(book, "left of", things(LEFT), things(RIGHT)).judgement
    both = judge_all(book, "left of", things(FAR_LEFT, LEFT), things(RIGHT))
    assert both.judgement == near and both.pair == (1, 0)


def test_things_of_one_class_are_judged_both_ways() -> None:
    """Two cats: "the cat is left of the cat" holds of one pair and not of the other."""
    found = judge_all(shipped_rules(), "left of", things(LEFT, RIGHT), things(LEFT, RIGHT), one_class=True)
    assert found.judgement.reason == SEVERAL and found.pairs == 2
    apart = judge_all(shipped_rules(), "touching", things(LEFT, RIGHT), things(LEFT, RIGHT), one_class=True)
    assert apart.judgement.verdict is F
    alone = judge_all(shipped_rules(), "near", things(LEFT), things(LEFT), one_class=True)
    assert (alone.judgement.reason, alone.pair) == (ONE_BOX, None)


sides = st.floats(0, 0.8)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(sides, sides, st.floats(0.05, 0.2), st.floats(0.05, 0.2)), min_size=1, max_size=3),
    st.lists(st.tuples(sides, sides, st.floats(0.05, 0.2), st.floats(0.05, 0.2)), min_size=1, max_size=3),
    st.sampled_from(["left of", "above", "near", "touching", "facing", "on"]),
)
def test_more_instances_never_turn_a_verdict_round(subjects: list, objects: list, relation: str) -> None:
    book = shipped_rules()
    a, b = ([Thing((x, y, x + w, y + h)) for x, y, w, h in some] for some in (subjects, objects))
    whole = judge_all(book, relation, a, b).judgement.verdict
    one = judge_all(book, relation, a[:1], b[:1]).judgement.verdict
    assert whole in (one, U)


def test_what_else_a_rule_reads() -> None:
    book = shipped_rules()
    assert would_help(book, "in front of") == {"depth"}
    assert would_help(book, "touching") == {"depth", "masks"}
    assert would_help(book, "left of") == would_help(book, "facing") == frozenset()
