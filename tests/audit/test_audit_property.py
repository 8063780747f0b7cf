"""On small data the figures are those of definitions spelled out by nested loops."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from audit_data import said, write
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.audit import audit
from vsre.audit.derived import GRADES, steps


class Fact(NamedTuple):
    image: str
    subject: str
    relation: str
    object: str
    label: int

    @property
    def row(self) -> tuple[str, str, str, str]:
        return self[:4]

    @property
    def caption(self) -> tuple[str, str, str]:
        return self[1:4]


facts = st.lists(
    st.builds(
        Fact,
        st.sampled_from(["a.jpg", "b.jpg", "c.jpg"]),
        st.sampled_from(["cat", "dog"]),
        st.sampled_from(["above", "below", "near", "far from", "left of", "right of", "facing"]),
        st.sampled_from(["dog", "cup"]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=14,
)


def figures_of(train: Iterable[Fact], test: Iterable[Fact]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = [write(Path(folder) / f"{n}.jsonl", [said(*f) for f in s]) for n, s in (("a", train), ("b", test))]
        return audit(*files, resamples=5).figures


def follows(fact: Fact) -> set[Fact]:
    """What one fact tells by sound rules and by those of the viewer's frame, written out by hand."""
    image, s, relation, o, label = fact
    back = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
    strict = {"above": "below", "below": "above"}
    out = set()
    if relation in back:
        out.add(Fact(image, o, back[relation], s, label))
        if label and relation in strict:
            out |= {Fact(image, o, relation, s, 0)}
        if label:
            out |= {Fact(image, s, back[relation], o, 0)}
    if relation in ("near", "far from"):
        other = "far from" if relation == "near" else "near"
        out.add(Fact(image, o, relation, s, label))
        if label:
            out |= {Fact(image, s, other, o, 0), Fact(image, o, other, s, 0)}
    return out


@settings(max_examples=60, deadline=None)
@given(facts, facts)
def test_counts_are_those_of_the_definitions(train: list[Fact], test: list[Fact]) -> None:
    figures = figures_of(train, test)
    found = {name: entry["count"] for name, entry in figures["findings"].items()}
    rows, images = {f.row for f in train}, {f.image for f in train}
    assert found["verbatim_rows"] == sum(f.row in rows for f in test)
    assert figures["findings"]["verbatim_rows"]["same_label"] == sum(f in set(train) for f in test)
    assert found["conflicts_between"] == sum(f._replace(label=1 - f.label) in set(train) for f in test)
    assert found["same_images"] == len({f.image for f in test} & images)
    assert figures["findings"]["same_images"]["rows"] == sum(f.image in images for f in test)
    assert figures["clean"]["rows"] == sum(f.image not in images for f in test)
    assert found["same_captions"] == sum(any(f.caption == g.caption for g in train) for f in test)
    for side, those in (("train", train), ("test", test)):
        both = [f for f in those if f._replace(label=1 - f.label) in set(those)]
        assert found[f"conflicts_in_{side}"] == len(both)
        assert found[f"repeated_in_{side}"] == len(those) - len({f.row for f in those})
    one = 0
    for f in test:
        labels = {g.label for g in train if g.caption == f.caption and g.image != f.image}
        one += len(labels) == 1
    assert found["one_label_captions"] == one
    assert figures["balance"]["by_relation"] == {
        relation: {
            f"{side}_{what}": sum(f.label if what == "true" else 1 for f in those if f.relation == relation)
            for side, those in (("train", train), ("test", test))
            for what in ("rows", "true")
        }
        for relation in {f.relation for f in [*train, *test]}
    }


@settings(max_examples=60, deadline=None)
@given(facts, facts)
def test_derived_rows_are_those_that_follow(train: list[Fact], test: list[Fact]) -> None:
    entry = figures_of(train, test)["findings"]["derived_rows"]
    told = set().union(*map(follows, train))
    rows = {f.row for f in train}
    mine, contradictory = 0, 0
    for f in test:
        if f.row not in rows:
            labels = {g.label for g in told if g.row == f.row}
            mine += len(labels) == 1
            contradictory += len(labels) == 2
    sure = entry["by_grade"]["sound"] + entry["by_grade"]["frame"]
    # A sound rule outweighs one of the viewer's frame, so fewer rows stay contradictory than are so by hand.
    assert mine <= sure <= mine + contradictory
    assert entry["count"] - entry["by_grade"]["loose"] == sure


def test_what_one_relation_says_the_other_need_not() -> None:
    """On top of gives beneath, which needs no contact: beneath does not give on top of back, but false denies it."""
    grades = {
        (name, label): next(GRADES[s.grade] for s in steps(name, label) if s.rule == "inverse" and s.relation == other)
        for name, other in (("on top of", "beneath"), ("beneath", "on top of"))
        for label in (True, False)
    }
    assert grades == {
        ("on top of", True): "sound", ("on top of", False): "loose",
        ("beneath", True): "loose", ("beneath", False): "sound",
    }  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(facts, facts, st.data())
def test_moving_test_rows_to_training(train: list[Fact], test: list[Fact], data: st.DataObject) -> None:
    """Whatever was found, a test row that is added to training is found in addition, and is looked up rightly."""
    before = figures_of(train, test)
    known = {f.row for f in train}
    new = [f for f in test if f.row not in known]
    moved = data.draw(st.lists(st.sampled_from(new), unique_by=lambda f: f.row)) if new else []
    after = figures_of([*train, *moved], test)
    more = sum(f.row in {m.row for m in moved} for f in test)
    count = [f["findings"]["verbatim_rows"]["count"] for f in (before, after)]
    assert count[1] == count[0] + more
    fresh = {f.image for f in train} | {f.image for f in moved}
    assert after["clean"]["rows"] == sum(f.image not in fresh for f in test)
    if moved == test:
        assert after["floors"]["lookup"]["value"] == 1
