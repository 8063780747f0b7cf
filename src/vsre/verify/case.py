"""One statement on its way to a verdict: what is seen of its two things, what the rules say, and the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.relations.ontology import RELATIONS
from vsre.relations.photo_measures import DepthMap
from vsre.relations.photo_rules import RuleBook
from vsre.relations.things import Judgement, Thing, Verdict
from vsre.repaint.verify import MISSING, Verification
from vsre.triplets import Triplet
from vsre.verify.presence import Presence, State
from vsre.verify.rules import Judged, judge_all
from vsre.verify.sight import Detection, Picture

NO_RULE = "the relation is none of VSR's, so there is no rule for it"
WHY_OPEN = {
    State.UNKNOWN: "no detector knows a class that the caption names",
    State.UNCLEAR: "a detector cannot tell: it gave no numbers, or has no annotation of the picture",
    State.DISPUTED: "the detectors do not agree on what is there",
    State.FAINT: "something is seen too faintly to tell whether it is there",
}
"""State of a thing -> why the statement stays undecided; the first that applies is given."""


@dataclass
class Case:
    """A triplet, its picture and its two things. `depth` and `masks` (one per instance, the subject's first) are set
    once they have been looked for."""

    triplet: Triplet
    picture: Picture
    subject: Presence
    object: Presence
    judged: Judged | None = None
    depth: DepthMap | None = None
    masks: Sequence[NDArray[np.bool_]] | None = None

    @property
    def open(self) -> bool:
        """Whether both things are there but what was seen so far does not decide how they lie."""
        return self.judged is not None and self.judged.judgement.verdict is Verdict.UNDECIDED

    @property
    def instances(self) -> list[Detection]:
        """All instances that count, the subject's first."""
        return [*self.subject.instances, *self.object.instances]

    def judge(self, book: RuleBook) -> None:
        """Judge from all that is known so far, if both things are there and the relation is one of VSR's."""
        if not (self.subject.state is self.object.state is State.PRESENT and self.triplet.relation in RELATIONS):
            return
        masks: Sequence[NDArray[np.bool_] | None] = self.masks or [None] * len(self.instances)
        things = [Thing(d.box, mask) for d, mask in zip(self.instances, masks, strict=True)]
        split = len(self.subject.instances)
        said = self.triplet
        self.judged = judge_all(
            book, said.relation, things[:split], things[split:], self.depth, one_class=said.subject == said.object
        )

    def judgement(self) -> Judgement:
        """FAIL if a thing is missing, UNDECIDED with the reason if presence or rules leave it open, else the rules'
        judgement."""
        both = (self.subject, self.object)
        gone = [thing.clear_by for thing in both if thing.state is State.ABSENT]
        if gone:
            return Judgement(Verdict.FAIL, max(gone), reason=MISSING)
        for state, why in WHY_OPEN.items():
            if any(thing.state is state for thing in both):
                return Judgement(Verdict.UNDECIDED, 0.0, reason=why)
        return self.judged.judgement if self.judged else Judgement(Verdict.UNDECIDED, 0.0, reason=NO_RULE)

    def verification(self) -> Verification:
        """The judgement with its boxes and evidence.

        The boxes are those of the pair it is about, or of the surest instances. The evidence is every box and score,
        the rule that decided, how many pairs the statement may mean, and the pair's depths and masks.
        """
        both = (self.subject, self.object)
        pair = (self.judged and self.judged.pair) or (0, 0)
        evidence: dict[str, Any] = {"seen": {thing.name: thing.row() for thing in both}}
        if self.judged is not None:
            evidence |= {"rule": self.judged.judgement.rule, "pairs": self.judged.pairs, **self._measured()}
        return Verification.of(
            self.judgement(),
            {t.name: t.instances[place].box for t, place in zip(both, pair, strict=True) if t.instances},
            instances={thing.name: tuple(d.box for d in thing.instances) for thing in both},
            evidence=evidence,
        )

    def _measured(self) -> dict[str, Any]:
        """Median depths in the map's own unit, how much more often the subject is nearer than farther, and each mask's
        share of the picture."""
        pair = self.judged.measured if self.judged else None
        found: dict[str, Any] = {}
        if pair is None:
            return found
        if pair.depth is not None:
            values = {which: pair.depths(which) for which in ("subject", "object")}
            sign = -1 if pair.depth.inverse else 1  # `depths` negates disparities
            medians = {
                which: None if v is None else round(sign * float(np.median(v)), 4) for which, v in values.items()
            }
            found["depth"] = {
                **medians,
                "grows": "towards" if pair.depth.inverse else "away",
                "nearer": None if pair.lead is None else round(pair.lead, 4),
            }
        if pair.masks is not None:
            shares = [round(float(mask.mean()), 4) for mask in pair.masks]
            found["masks"] = dict(zip(("subject", "object"), shares, strict=True))
        return found
