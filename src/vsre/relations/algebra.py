"""What one statement implies about others: the algebra of relations on labelled triplets.

Each function returns another statement about the same picture (or its mirror image) with the label that follows from
the first one's: True, False, or None if logic leaves it open. Soundness is the ontology's: only "strict" and "frame"
inverses and only "contrary" and "complementary" antonyms are used. An inverse applies to true statements; a false one
carries over only if the way back is sound too. Inverses and mirror images of "frame" relations hold in the viewer's
frame, which is VSR's (Liu et al., TACL 2023); a label given in the object's own frame breaks them.
"""

from __future__ import annotations

from typing import NamedTuple

from vsre.relations.ontology import RELATIONS, Relation, relation

_INVERTS = ("strict", "frame")


class Statement(NamedTuple):
    """The subject is in the relation to the object."""

    subject: str
    relation: str
    object: str


class Derived(NamedTuple):
    """A statement, and its label given the known label of the one it comes from; None if left open."""

    statement: Statement
    label: bool | None


def inverse(said: Statement, label: bool) -> Derived | None:
    """The same fact from the object's side: "the dog is right of the cat" for "the cat is left of the dog".

    A false statement is left open if the way back is not sound: what is not on top of a thing may have it beneath.
    """
    found = relation(said.relation)
    if found.inverse is None or found.inverse_soundness not in _INVERTS:
        return None
    known = label or inverse_soundness(found.inverse, found.name) in _INVERTS
    return Derived(Statement(said.object, found.inverse, said.subject), label if known else None)


def inverse_soundness(name: str, other: str) -> str | None:
    """How soundly OTHER follows from the object's side if NAME holds; None if neither is an inverse of the other.

    If the table says it of OTHER only, it is "approx": "ahead of" gives "behind", but not the other way round. If both
    are strict, it is "strict": "contains" gives "inside", and so its synonym "in".
    """
    here, there = RELATIONS.get(name), RELATIONS.get(other)
    if here is None or there is None:
        return None
    if here.inverse == other:
        return here.inverse_soundness
    if there.inverse == name:
        return "strict" if here.inverse_soundness == there.inverse_soundness == "strict" else "approx"
    return None


def swapped(said: Statement, label: bool) -> Derived | None:
    """Subject and object exchanged under the same relation.

    A symmetric relation keeps its label. A relation whose inverse has another name holds at most one way: what was true
    becomes false, what was false is left open.
    """
    found = relation(said.relation)
    other = Statement(said.object, said.relation, said.subject)
    if found.symmetric and found.inverse_soundness in _INVERTS:
        return Derived(other, label)
    if _one_way(found):
        return Derived(other, False if label else None)
    return None


def _one_way(found: Relation) -> bool:
    return found.inverse not in (None, found.name) and found.inverse_soundness in _INVERTS


def opposite(said: Statement, label: bool) -> Derived | None:
    """The relation that excludes this one: what was true becomes false, what was false is left open.

    Not even "in" and "outside" turn false into true: of VSR's statements for which people judged both, six of 21
    contradict that, because a thing may be neither.
    """
    found = relation(said.relation)
    if found.antonym is None or found.antonym_soundness not in ("contrary", "complementary"):
        return None
    return Derived(said._replace(relation=found.antonym), False if label else None)


def in_mirror(said: Statement, label: bool) -> Derived:
    """The same words said of the mirrored picture.

    Only left and right change: what was true of them becomes false, what was false is left open (one thing may be above
    the other).
    """
    if relation(said.relation).mirror == said.relation:
        return Derived(said, label)
    return Derived(said, False if label else None)


def mirrored(said: Statement, label: bool) -> Derived:
    """The same fact said of the mirrored picture: left and right exchanged in the words."""
    return Derived(said._replace(relation=relation(said.relation).mirror), label)
