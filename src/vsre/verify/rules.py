"""From what is seen of two things to a verdict on a statement: the rules for photographs applied to every pair.

A caption says "the cat" and means one. If a detector is sure of one cat and one dog, that pair is judged. If it is sure
of several, nobody says which one is meant, so the statement PASSes only if it passes for every pair and FAILs only if
it fails for every pair; anything else is UNDECIDED. (`vsre.relations.photo_rules.judge` asks whether some pair passes:
right for the annotated boxes of a photo, too lenient for a picture that was painted to show the relation.) Boxes that
are too faint to count are not candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vsre.relations.photo_measures import DepthMap, PhotoPair
from vsre.relations.photo_rules import RuleBook
from vsre.relations.rule_forms import SIDES
from vsre.relations.things import Judgement, Thing, Verdict

SEVERAL = "there are several, and it is not the same for all of them"
ONE_BOX = "one box was taken for both things"


@dataclass(frozen=True)
class Judged:
    """A judgement and the pair it is reported for: the indices of subject and object among their instances, None if
    there is no pair. `pairs` counts the pairs that the statement may mean."""

    judgement: Judgement
    pair: tuple[int, int] | None
    pairs: int
    measured: PhotoPair | None = None


def judge_all(
    book: RuleBook,
    relation: str,
    subjects: Sequence[Thing],
    objects: Sequence[Thing],
    depth: DepthMap | None = None,
    *,
    one_class: bool = False,
) -> Judged:
    """Judge a statement over all pairs (see the module). Things come surest first; the margin is the smallest of all
    pairs.

    With `one_class`, subject and object are of one class: both lists hold the same things, and nothing is its own
    object. With two classes, a box given to both is one thing that a detector cannot name.
    """
    places = [(i, j) for i, a in enumerate(subjects) for j, b in enumerate(objects) if a.box != b.box or not one_class]
    first = hardest = None
    for place in places:
        pair = PhotoPair(subjects[place[0]], objects[place[1]], depth)
        said = Judgement(Verdict.UNDECIDED, 0.0, reason=ONE_BOX)
        if pair.subject.box != pair.object.box:
            said = book.judge_pair(relation, pair)
        found = Judged(said, place, len(places), pair)
        first, hardest = first or found, hardest or found
        if said.verdict is not first.judgement.verdict:
            # The rest cannot change the verdict, and the masks of a crowd take seconds to compare.
            return replace(first, judgement=Judgement(Verdict.UNDECIDED, 0.0, reason=SEVERAL))
        if said.verdict is not Verdict.UNDECIDED and said.margin < hardest.judgement.margin:
            hardest = found
    return hardest or Judged(Judgement(Verdict.UNDECIDED, 0.0, reason=ONE_BOX), None, 0)


def would_help(book: RuleBook, relation: str) -> frozenset[str]:
    """Which of "depth" and "masks" the relation's rule reads."""
    needs = " ".join(way.needs for side in SIDES for way in book.ways(relation, side))
    return frozenset(kind for kind in ("depth", "masks") if kind in needs)
