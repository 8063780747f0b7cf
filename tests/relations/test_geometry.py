"""The predicates keep the laws of the ontology on anything at all, and say what people say on plain cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.relations.geometry import PREDICATES, Contact, Pair, Thing, Verdict, judge, judge_pair
from vsre.relations.ontology import META_CATEGORIES, RELATIONS

PASS, FAIL, UNDECIDED = Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED


@st.composite
def things(draw: st.DrawFn) -> Thing:
    w, h = draw(st.floats(0.05, 0.6)), draw(st.floats(0.05, 0.6))
    x, y = draw(st.floats(0, 1 - w)), draw(st.sampled_from([0.0, 0.3, 0.9 - h, 0.7 - h]))
    return Thing(
        box=(x, max(y, 0.0), x + w, max(y, 0.0) + h),
        depth=draw(st.sampled_from([None, 1.0, 1.05, 1.4, 2.0])),
        facing=draw(st.sampled_from([None, -1, 0, 1])),
        axis=draw(st.sampled_from([None, 0.0, 45.0, 90.0, 135.0])),
    )


PAIRS = st.builds(Pair, things(), things(), st.sampled_from([None, *Contact]))


def mirrored(thing: Thing) -> Thing:
    x0, y0, x1, y1 = thing.box
    return Thing(
        box=(1 - x1, y0, 1 - x0, y1),
        depth=thing.depth,
        facing=None if thing.facing is None else -thing.facing,
        axis=None if thing.axis is None else (180 - thing.axis) % 180,
    )


def verdicts(pair: Pair) -> dict[str, Verdict]:
    return {name: judge_pair(name, pair).verdict for name in PREDICATES}


def test_every_meta_category_is_covered() -> None:
    assert len(PREDICATES) >= 30
    assert {RELATIONS[name].meta_category for name in PREDICATES} == set(META_CATEGORIES)


@settings(max_examples=200, deadline=None)
@given(PAIRS)
def test_laws(pair: Pair) -> None:
    here, there = verdicts(pair), verdicts(pair.swapped)
    for name, verdict in here.items():
        r = RELATIONS[name]
        if r.inverse_soundness == "strict" and r.inverse in PREDICATES:
            assert UNDECIDED in (verdict, there[r.inverse]) or verdict == there[r.inverse], name
        if r.symmetric:
            assert {verdict, there[name]} != {PASS, FAIL}, name
        if r.antonym in PREDICATES:
            assert not (verdict is PASS and here[r.antonym] is PASS), (name, r.antonym)


@settings(max_examples=200, deadline=None)
@given(PAIRS)
def test_a_mirror_swaps_left_and_right_only(pair: Pair) -> None:
    image = Pair(mirrored(pair.subject), mirrored(pair.object), pair.contact)
    for name in PREDICATES:
        before, after = judge_pair(name, pair), judge_pair(RELATIONS[name].mirror, image)
        # Rounding may tip a value that lies on a threshold, never a clear one.
        if max(before.margin, after.margin) > 1e-6:
            assert before.verdict == after.verdict, name


CAT = Thing(box=(0.1, 0.5, 0.3, 0.8), depth=1.2, facing=1)
DOG = Thing(box=(0.36, 0.45, 0.6, 0.8), depth=1.2, facing=1)
KITE = Thing(box=(0.1, 0.1, 0.3, 0.3), depth=1.2, facing=0)
FAR_TREE = Thing(box=(0.2, 0.3, 0.5, 0.65), depth=1.9, facing=0)
TABLE = Thing(box=(0.0, 0.5, 0.6, 0.8), depth=1.2, facing=0)
CUP_MIDDLE = Thing(box=(0.25, 0.4, 0.35, 0.5), depth=1.2, facing=0)
CUP_END = Thing(box=(0.02, 0.4, 0.12, 0.5), depth=1.2, facing=0)


@pytest.mark.parametrize(
    ("subject", "relation", "object", "contact", "expected"),
    [
        (CAT, "left of", DOG, Contact.NONE, PASS),
        (CAT, "right of", DOG, Contact.NONE, FAIL),
        (CAT, "next to", DOG, Contact.NONE, PASS),
        (CAT, "far from", DOG, Contact.NONE, FAIL),
        (CAT, "above", DOG, Contact.NONE, FAIL),
        (CAT, "facing", DOG, Contact.NONE, PASS),
        (DOG, "facing", CAT, Contact.NONE, FAIL),
        (DOG, "ahead of", CAT, Contact.NONE, PASS),
        (CAT, "behind", DOG, Contact.NONE, UNDECIDED),  # behind a dog in the queue, or beside it?
        (KITE, "above", CAT, Contact.NONE, PASS),
        (CAT, "under", KITE, Contact.NONE, PASS),
        (CAT, "on", KITE, Contact.NONE, FAIL),
        (CAT, "in front of", FAR_TREE, Contact.NONE, PASS),
        (FAR_TREE, "beyond", CAT, Contact.NONE, PASS),
        (CAT, "inside", FAR_TREE, Contact.NONE, FAIL),
        (CUP_MIDDLE, "on top of", TABLE, Contact.ON, PASS),
        (CUP_MIDDLE, "in the middle of", TABLE, Contact.ON, PASS),
        (CUP_END, "at the edge of", TABLE, Contact.ON, PASS),
        (CUP_END, "in the middle of", TABLE, Contact.ON, FAIL),
        (TABLE, "contains", CUP_MIDDLE, Contact.CARRIES, FAIL),
        (CUP_MIDDLE, "in", TABLE, None, UNDECIDED),  # boxes alone do not tell
        (CAT, "through", DOG, Contact.NONE, UNDECIDED),  # no geometry for it
    ],
)
def test_plain_cases(subject: Thing, relation: str, object: Thing, contact: Contact, expected: Verdict) -> None:
    judgement = judge(relation, subject, object, contact)
    assert judgement.verdict is expected
    assert (judgement.margin > 0) == (expected is not UNDECIDED)


def test_depth_relations_are_undecided_without_depth() -> None:
    near, far = Thing(box=CAT.box), Thing(box=FAR_TREE.box)
    assert judge("in front of", near, far).verdict is UNDECIDED
    assert judge("left of", Thing(box=CAT.box), Thing(box=DOG.box)).verdict is PASS


def test_contact_is_read_from_masks_and_depth() -> None:
    table, cup = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    table[50:80, 0:60] = True
    cup[40:50, 25:35] = True
    subject = Thing(box=CUP_MIDDLE.box, mask=cup, depth=1.2)
    assert judge("on", subject, Thing(box=TABLE.box, mask=table, depth=1.2)).verdict is PASS
    assert judge("under", Thing(box=TABLE.box, mask=table, depth=1.2), subject).verdict is PASS
    assert judge("touching", subject, Thing(box=TABLE.box, mask=table)).verdict is UNDECIDED


def test_unknown_relation_is_an_error() -> None:
    with pytest.raises(VsreError, match="none of VSR's"):
        judge("besides", CAT, DOG)
