"""Several instances of a class: nobody says which one a caption means."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.relations.photo_measures import PhotoPair
from vsre.relations.photo_rules import RuleBook, shipped_rules
from vsre.relations.things import Judgement, Thing, Verdict
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


def every_pair(book: RuleBook, relation: str, subjects: list[Thing], objects: list[Thing], one_class: bool) -> tuple:
    """(judgement, places, how many pairs), with every pair judged before anything is said."""
    judged = []
    for i, a in enumerate(subjects):
        for j, b in enumerate(objects):
            if a.box != b.box:
                judged.append(((i, j), book.judge_pair(relation, PhotoPair(a, b))))
            elif not one_class:
                judged.append(((i, j), Judgement(U, 0.0, reason=ONE_BOX)))
    if not judged:
        return Judgement(U, 0.0, reason=ONE_BOX), None, 0
    where, judgement = judged[0]
    if len({each.verdict for _, each in judged}) > 1:
        judgement = Judgement(U, 0.0, reason=SEVERAL)
    elif judgement.verdict is not U:
        where, judgement = min(judged, key=lambda each: each[1].margin)
    return judgement, where, len(judged)


places = st.tuples(st.sampled_from([0.0, 0.1, 0.4, 0.7]), st.sampled_from([0.0, 0.3, 0.6]))
boxes = st.lists(places, min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(boxes, boxes, st.sampled_from(["left of", "above", "near", "touching", "facing", "on"]), st.booleans())
def test_stopping_early_says_what_judging_every_pair_says(
    subjects: list, objects: list, relation: str, one_class: bool
) -> None:
    book = shipped_rules()
    a = things(*((x, y, x + 0.2, y + 0.3) for x, y in subjects))
    b = a if one_class else things(*((x, y, x + 0.2, y + 0.3) for x, y in objects))
    found = judge_all(book, relation, a, b, one_class=one_class)
    assert (found.judgement, found.pair, found.pairs) == every_pair(book, relation, a, b, one_class)


def test_the_first_pair_that_differs_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outlines of many things would take minutes."""
    book, asked = shipped_rules(), []
    real = RuleBook.judge_pair
    monkeypatch.setattr(RuleBook, "judge_pair", lambda self, *given: (asked.append(1), real(self, *given))[1])
    found = judge_all(book, "left of", things(*[LEFT, RIGHT] * 4), things(*[MIDDLE] * 5))
    assert found.judgement.reason == SEVERAL and found.pairs == 40 and len(asked) == 6


def test_what_else_a_rule_reads() -> None:
    book = shipped_rules()
    assert would_help(book, "in front of") == {"depth"}
    assert would_help(book, "touching") == {"depth", "masks"}
    assert would_help(book, "left of") == would_help(book, "facing") == frozenset()
