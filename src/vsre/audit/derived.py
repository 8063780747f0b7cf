"""What training rows imply about a picture: the test rows that follow from them by the relation algebra.

"The cat is left of the dog." true in training gives "The dog is right of the cat." (true, by the inverse), "The cat is
right of the dog." (false, by the opposite) and "The dog is left of the cat." (false, by both). A rule's grade says how
far it can be trusted:

- sound   strict inverses, symmetric relations, and opposites that exclude each other, from true to false
- frame   inverses that hold only in the viewer's frame: left and right, in front of and behind
- loose   what holds mostly: the other inverses and opposites, opposites of frame inverses, and opposites from false to
          true (what is not inside should be outside)

`vsre.relations.algebra` makes the statements that probes ask, using only sound and frame rules; here every relation
that leads to another counts, whichever of the two the ontology says it of: a leak need not be a proof. What the
ontology says only of the other one is loose, except for strict inverses.

On VSR's own labels, wherever both rows exist, sound rules are right for 829 of 837 ordered pairs, frame for 172 of 178,
loose for 241 of 276.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from vsre.audit.rows import Row, identity
from vsre.relations import algebra
from vsre.relations.ontology import RELATIONS

GRADES = ("sound", "frame", "loose")
RULES = ("symmetric", "inverse", "opposite", "complement", "opposite of the inverse", "complement of the inverse")

_LOOSE = 2
_GRADE = {"strict": 0, "frame": 1, "approx": _LOOSE, "contrary": 0, "complementary": 0, "weak": _LOOSE}


class Step(NamedTuple):
    """One way from a relation to another: the rule, the index of its grade in GRADES, whether subject and object are
    swapped, the relation reached, and the label it has there."""

    rule: str
    grade: int
    swapped: bool
    relation: str
    label: bool


@dataclass(frozen=True, slots=True)
class Derived:
    """A row that follows from another one; `label` is what its label must be."""

    row: Row
    source: Row
    rule: str
    grade: str
    label: bool


@cache
def steps(relation: str, label: bool) -> tuple[Step, ...]:
    """Return the steps from a true or false statement to other relations, surest first; none if the relation is not one
    of VSR's."""
    found = [Step("", 0, False, relation, label), *_inverses(relation, label)]
    for step in tuple(found):
        found += _opposites(step)
    return tuple(sorted(found[1:], key=lambda s: (s.grade, RULES.index(s.rule))))


def _inverses(name: str, label: bool) -> Iterator[Step]:
    for other in RELATIONS.values():
        # Falsehood carries over if the other relation, were it true, would imply this one.
        soundness = algebra.inverse_soundness(*(name, other.name) if label else (other.name, name))
        if soundness is not None:
            rule = "symmetric" if other.name == name else "inverse"
            yield Step(rule, _GRADE[soundness], True, other.name, label)


def _opposites(step: Step) -> Iterator[Step]:
    for other in RELATIONS.values():
        soundness = _antonym_soundness(step.relation, other.name)
        if soundness is not None and (step.label or soundness == "complementary"):
            rule = ("opposite" if step.label else "complement") + (" of the inverse" if step.rule else "")
            sure = step.label and step.grade == _GRADE[soundness] == 0
            yield Step(rule, 0 if sure else _LOOSE, step.swapped, other.name, not step.label)


def _antonym_soundness(name: str, other: str) -> str | None:
    """Return how sound it is to call one the antonym of the other, whichever of the two the table says it of, since
    exclusion is mutual."""
    found = [
        str(RELATIONS[a].antonym_soundness)
        for a, b in ((name, other), (other, name))
        if a in RELATIONS and RELATIONS[a].antonym == b
    ]
    return min(found, key=_GRADE.__getitem__, default=None)


def derive(train: Iterable[Row], test: Iterable[Row]) -> tuple[list[Derived], int]:
    """Return the surest derivation of each test row that follows from a training row about the same picture, and how
    many test rows are left out because their surest derivations contradict each other.

    Rows that are in training themselves are not considered.
    """
    asked: dict[tuple[int, str, str, str], list[int]] = {}
    rows = list(test)
    for i, row in enumerate(rows):
        if row.subject:
            asked.setdefault((row.image, row.subject, row.relation, row.object), []).append(i)
    pictures = {image for image, *_ in asked}
    known: set[tuple[int, str] | str] = set()
    ways: dict[int, list[tuple[int, Derived]]] = {}
    for source in train:
        known.add(identity(source))
        if source.image not in pictures or not source.subject:
            continue
        for step in steps(source.relation, source.label):
            ends = (source.object, source.subject) if step.swapped else (source.subject, source.object)
            for i in asked.get((source.image, ends[0], step.relation, ends[1]), ()):
                way = Derived(rows[i], source, step.rule, GRADES[step.grade], step.label)
                ways.setdefault(i, []).append((step.grade, way))
    found = [_surest(ways[i]) for i in sorted(ways) if identity(rows[i]) not in known]
    return [way for way in found if way is not None], found.count(None)


def _surest(ways: list[tuple[int, Derived]]) -> Derived | None:
    surest = min(grade for grade, _ in ways)
    best = [way for grade, way in ways if grade == surest]
    return min(best, key=lambda way: RULES.index(way.rule)) if len({way.label for way in best}) == 1 else None
