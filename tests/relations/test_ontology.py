"""The table of relations: complete, and consistent with itself."""

from __future__ import annotations

from collections import Counter

import pytest

from vsre.errors import VsreError
from vsre.relations.ontology import META_CATEGORIES, RELATIONS, relation


def test_all_66_relations_in_the_seven_meta_categories() -> None:
    assert len(RELATIONS) == 66
    assert set(Counter(r.meta_category for r in RELATIONS.values())) == set(META_CATEGORIES)
    assert {r.name for r in RELATIONS.values() if r.verb} == {"contains", "consists of", "has as a part"}


@pytest.mark.parametrize("name", RELATIONS)
def test_links_lead_to_relations_and_back(name: str) -> None:
    r = RELATIONS[name]
    assert RELATIONS[r.mirror].mirror == name
    assert r.symmetric == (r.inverse == name)
    assert (r.inverse is None) == (r.inverse_soundness is None)
    assert (r.antonym is None) == (r.antonym_soundness is None)
    assert r.antonym is None or (r.antonym in RELATIONS and r.antonym != name)
    if r.inverse:
        back = RELATIONS[r.inverse].inverse
        assert back is not None
        assert back == name or RELATIONS[back].synonym_class == r.synonym_class is not None


def test_only_left_and_right_change_in_a_mirror() -> None:
    changed = {r.name for r in RELATIONS.values() if r.mirror != r.name}
    assert changed == {"left of", "right of", "at the left side of", "at the right side of"}


def test_base_forms() -> None:
    assert relation("contains").base_form == "contain"
    assert relation("left of").base_form == "be left of"


def test_unknown_relation_names_its_neighbours() -> None:
    with pytest.raises(VsreError, match="left of"):
        relation("leftof")
