"""The algebra against the geometry of drawn boxes, and against VSR's own labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsre.relations.algebra import Statement, in_mirror, inverse, mirrored, opposite, swapped
from vsre.relations.ontology import RELATIONS

SAID = Statement("cat", "left of", "dog")


def test_left_and_right_by_hand() -> None:
    assert inverse(SAID, True) == (("dog", "right of", "cat"), True)
    assert inverse(SAID, False) == (("dog", "right of", "cat"), False)
    assert swapped(SAID, True) == (("dog", "left of", "cat"), False)
    assert swapped(SAID, False) == (("dog", "left of", "cat"), None)
    assert opposite(SAID, True) == (("cat", "right of", "dog"), False)
    assert opposite(SAID, False) == (("cat", "right of", "dog"), None)
    assert in_mirror(SAID, True) == (SAID, False)
    assert in_mirror(SAID, False) == (SAID, None)
    assert mirrored(SAID, True) == (("cat", "right of", "dog"), True)


def test_other_kinds_by_hand() -> None:
    near, inside, detached = (Statement("cat", r, "dog") for r in ("near", "inside", "attached to"))
    assert swapped(near, False) == (("dog", "near", "cat"), False)
    assert in_mirror(near, False) == (near, False)
    assert swapped(inside, True) == (("dog", "inside", "cat"), False)
    assert inverse(inside, True) == (("dog", "contains", "cat"), True)
    assert opposite(inside, True) == (("cat", "outside", "dog"), False)
    assert opposite(inside, False) == (("cat", "outside", "dog"), None), "people say neither now and then"
    assert swapped(detached, True) is None, "attached to is its own inverse approximately only"
    assert inverse(Statement("cat", "facing", "dog"), True) is None


@pytest.mark.parametrize(("name", "back"), [("on top of", "beneath"), ("ahead of", "behind")])
def test_what_is_false_is_open_where_the_way_back_is_not_sound(name: str, back: str) -> None:
    """Beneath needs no contact, and who is not ahead, in the other's own front, may still stand before it."""
    said = Statement("cat", name, "dog")
    assert inverse(said, True) == (("dog", back, "cat"), True)
    assert inverse(said, False) == (("dog", back, "cat"), None)


def test_what_is_false_carries_over_to_an_inverse_of_synonyms() -> None:
    assert RELATIONS["contains"].inverse == "inside"
    assert inverse(Statement("cat", "in", "dog"), False) == (("dog", "contains", "cat"), False)


names = st.sampled_from(sorted(RELATIONS))


@given(names, st.booleans())
def test_twice_is_where_one_began(name: str, label: bool) -> None:
    said = Statement("cat", name, "dog")
    for function in (swapped, in_mirror, mirrored):
        once = function(said, label)
        if once is not None and once.label is not None and function is mirrored:
            assert function(*once) == (said, label)
    turned = inverse(said, label)
    if turned is not None and turned.label is not None and (back := inverse(*turned)) is not None:
        # "in" and "inside" both have the inverse "contains": names may differ, labels may not.
        assert back.label == label and {back.statement.subject, back.statement.object} == {"cat", "dog"}


@given(names, st.booleans())
def test_nothing_true_excludes_itself(name: str, label: bool) -> None:
    said = Statement("cat", name, "dog")
    excluded = opposite(said, label)
    assert excluded is None or (excluded.label is not label and excluded.statement.relation != name)
    one_way = swapped(said, label)
    assert one_way is None or one_way.label in (label, None, False)


@pytest.mark.parametrize("name", sorted(RELATIONS))
def test_a_mirror_changes_left_and_right_only(name: str) -> None:
    changed = mirrored(Statement("cat", name, "dog"), True).statement.relation != name
    assert changed == ("left" in name or "right" in name)
