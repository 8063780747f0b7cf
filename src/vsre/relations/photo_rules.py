"""Whether a relation holds in a photograph or a painted picture: PASS, FAIL or UNDECIDED, with a margin.

`geometry` judges drawn scenes, where contact, depth and facing are known exactly; here there are boxes, plus masks and
a depth map if a model gave them. The rules are data (`photo_rules.yaml`), with thresholds chosen on the labels that
people gave VSR's photos (`vsre geometry` measures them). A verdict is given only if the evidence for it is clear and
none speaks against it: no other alternative, no contrary relation that passes, no inverse that disagrees.

If a class has several candidates ("The cat ...", and there are three), the statement passes if some pair passes and
none fails, and fails if all pairs fail; anything else is UNDECIDED. A crowd region stands for more things of its class
at unknown places: it gives no pair, and with it nothing fails. For a plural, judge `things.together(...)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vsre.errors import VsreError
from vsre.relations.candidates import Seen, candidates
from vsre.relations.ontology import RELATIONS
from vsre.relations.ontology import relation as known
from vsre.relations.photo_measures import MEASURES, DepthMap, PhotoPair
from vsre.relations.rule_forms import (
    FORMS,
    SIDES,
    THRESHOLDS,
    Alternative,
    Choice,
    Forms,
    Rule,
    Side,
    Thresholds,
    View,
    choices,
    load_forms,
    load_thresholds,
)
from vsre.relations.things import NO, Judgement, Verdict

_SOUND = ("strict", "contrary", "complementary")


@dataclass(frozen=True, slots=True)
class Limit:
    """One condition with its threshold; `slack` is the value's distance beyond it, None if the measure is not
    available."""

    measure: str
    sign: int
    threshold: float

    def slack(self, pair: PhotoPair) -> float | None:
        value = MEASURES[self.measure].value(pair)
        return None if value is None else self.sign * (value - self.threshold)


@dataclass(frozen=True, slots=True)
class Way:
    """One alternative of a rule, ready to run; `needs` is what it requires besides boxes, or empty."""

    name: str
    tests: tuple[Limit, ...]
    needs: str

    def evidence(self, pair: PhotoPair) -> float:
        """The smallest slack of its tests: positive if all hold; -inf if a measure is not available."""
        least = math.inf
        for test in self.tests:
            slack = test.slack(pair)
            if slack is None:
                return NO
            least = min(least, slack)
        return least


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far a rule's best alternative for each verdict lies beyond its thresholds (negative: short of them)."""

    true: float
    false: float
    true_way: str
    false_way: str


def view(pair: PhotoPair, how: View) -> PhotoPair:
    """The pair as a rule looks at it: as it is, with the two swapped, or in the mirror."""
    return pair if how == "same" else pair.swapped if how == "swap" else pair.mirrored


class RuleBook:
    """The rules with their thresholds. Raises VsreError if thresholds and forms do not belong together."""

    def __init__(self, forms: Forms, thresholds: Thresholds) -> None:
        if thresholds.provenance.forms != forms.digest:
            raise VsreError(
                "the thresholds belong to other forms of the rules "
                f"({thresholds.provenance.forms}, these are {forms.digest}). "
                "Choose them anew with `vsre geometry --write-thresholds FILE`."
            )
        self.forms, self.provenance = forms, thresholds.provenance
        self._reasons = {r: reason for reason, relations in forms.undecided.items() for r in relations}
        self._rules: dict[str, tuple[View, dict[Side, tuple[Way, ...]]]] = {}
        for name, rule in forms.rules.items():
            ways = {side: _ways(name, rule, side, thresholds) for side in SIDES}
            self._rules |= {relation: (how, ways) for relation, how in rule.relations.items()}
        self._contrary, self._inverse = _partners("antonym", forms), _partners("inverse", forms)

    def ways(self, relation: str, side: Side) -> tuple[Way, ...]:
        """The alternatives in use for a relation's verdict; empty if no rule covers it."""
        return self._rules[relation][1][side] if relation in self._rules else ()

    def lacks(self, relation: str, side: Side) -> str:
        """What boxes alone lack for this verdict: empty if they can give it, else what is needed."""
        ways = self.ways(relation, side)
        if not ways:
            return self._reasons.get(relation, "no rule of boxes is right often enough")
        return "" if any(not way.needs for way in ways) else f"needs {ways[0].needs}"

    def evidence(self, relation: str, pair: PhotoPair) -> Evidence:
        """The evidence of a relation's rule; raises VsreError if the relation is not one of VSR's."""
        if relation not in self._rules:
            known(relation)
            return Evidence(NO, NO, "", "")
        how, ways = self._rules[relation]
        seen = view(pair, how)
        (true, true_way), (false, false_way) = _best(ways["pass"], seen), _best(ways["fail"], seen)
        return Evidence(true, false, true_way, false_way)

    def judge_pair(self, relation: str, pair: PhotoPair) -> Judgement:
        """`judge` for one subject and one object."""
        found = self.evidence(relation, pair)
        if found.true > 0 and found.false > 0:
            return _undecided("speaks for it and against it")
        if found.true > 0:
            denied = any(self.evidence(other, pair.swapped).false > 0 for other in self._inverse.get(relation, ()))
            if denied or any(self.evidence(other, pair).true > 0 for other in self._contrary.get(relation, ())):
                return _undecided("its contrary passes too, or its inverse fails")
            return Judgement(Verdict.PASS, found.true, found.true_way)
        if found.false > 0:
            if any(self.evidence(other, pair.swapped).true > 0 for other in self._inverse.get(relation, ())):
                return _undecided("its inverse passes")
            return Judgement(Verdict.FAIL, found.false, found.false_way)
        if max(found.true, found.false) == NO:
            missing = [lack for side in SIDES if (lack := self.lacks(relation, side))]
            return _undecided(missing[0] if missing else "a measure is not at hand")
        lacks = [f"{side.upper()} {lack}" for side in SIDES if (lack := self.lacks(relation, side)).startswith("needs")]
        return _undecided("; ".join(["not clear enough", *lacks]))

    def judge(
        self,
        relation: str,
        subject: Seen,
        object: Seen,
        *,
        image_size: tuple[int, int] | None = None,
        depth: DepthMap | None = None,
    ) -> Judgement:
        """See `judge`."""
        known(relation)
        things = {}
        for name, seen in (("subject", subject), ("object", object)):
            things[name], why = candidates(seen, image_size)
            if why:
                return _undecided(f"{why} of the {name}")
        single = {name: [t for t in found if not t.crowd] for name, found in things.items()}
        crowded = any(len(single[name]) < len(things[name]) for name in things)
        pairs = [(a, b) for a in single["subject"] for b in single["object"]]
        if len(pairs) > 1:  # with one class, every thing is a candidate for both
            pairs = [(a, b) for a, b in pairs if a.box != b.box]
        if not pairs:
            return _undecided("only a crowd region" if crowded else "subject and object are the same box")
        return _together([self.judge_pair(relation, PhotoPair(a, b, depth)) for a, b in pairs], crowded)


@cache
def shipped_rules() -> RuleBook:
    """The rules and thresholds that come with vsre."""
    return RuleBook(load_forms(FORMS), load_thresholds(THRESHOLDS))


def rules_from(thresholds: Path | None = None) -> RuleBook:
    """The shipped rules, with the thresholds of your own file if given."""
    return shipped_rules() if thresholds is None else RuleBook(load_forms(), load_thresholds(thresholds))


def judge(
    relation: str,
    subject: Seen,
    object: Seen,
    *,
    image_size: tuple[int, int] | None = None,
    depth: DepthMap | None = None,
) -> Judgement:
    """Whether `relation` holds between subject and object in a photograph or painted picture.

    `subject` and `object` are one thing or several candidates (see the module): Things, with masks where known, or bare
    boxes, in fractions of the image, or in pixels if `image_size` gives (width, height). Boxes are clipped to the
    image. `depth` is the image's depth map; `Thing.depth`, which drawn scenes know, is not read. The margin is in the
    units of the nearest threshold, all of them fractions.

    Raises VsreError if the relation is not one of VSR's, if boxes are not fractions of the image and `image_size` is
    missing, and if masks and depth map differ in shape. What cannot be judged is UNDECIDED and says why.
    """
    return shipped_rules().judge(relation, subject, object, image_size=image_size, depth=depth)


def _undecided(reason: str) -> Judgement:
    return Judgement(Verdict.UNDECIDED, 0.0, reason=reason)


def _best(ways: tuple[Way, ...], pair: PhotoPair) -> tuple[float, str]:
    best, name = NO, ""
    for way in ways:
        evidence = way.evidence(pair)
        if evidence > best:
            best, name = evidence, way.name
    return best, name


def _together(judgements: list[Judgement], crowded: bool) -> Judgement:
    if len(judgements) == 1 and not crowded:
        return judgements[0]
    passed = [j for j in judgements if j.verdict is Verdict.PASS]
    failed = [j for j in judgements if j.verdict is Verdict.FAIL]
    if passed and not failed:
        return max(passed, key=lambda j: j.margin)
    if len(failed) == len(judgements):
        return _undecided("a crowd region may hold others") if crowded else min(failed, key=lambda j: j.margin)
    if passed:
        return _undecided("candidates disagree")
    if failed:
        return _undecided("not all candidates fail")
    return judgements[0]


def _partners(link: str, forms: Forms) -> dict[str, tuple[str, ...]]:
    """Relation -> relations of other rules that the ontology soundly calls its antonym or inverse, either way round."""
    rule_of = {relation: name for name, rule in forms.rules.items() for relation in rule.relations}
    found: dict[str, set[str]] = {}
    for name, relation in RELATIONS.items():
        other = getattr(relation, link)
        sound = getattr(relation, f"{link}_soundness") in _SOUND
        if sound and name in rule_of and other in rule_of and rule_of[name] != rule_of[other]:
            found.setdefault(name, set()).add(other)
            found.setdefault(other, set()).add(name)
    return {name: tuple(sorted(others)) for name, others in found.items()}


def _ways(name: str, rule: Rule, side: Side, thresholds: Thresholds) -> tuple[Way, ...]:
    alternatives = rule.alternatives(side)
    values = thresholds.thresholds.get(name, {}).get(side, ())
    to_choose = [a for a in alternatives if choices(a)]
    if len(values) != len(to_choose):
        raise VsreError(
            f"rule {name!r}, {side}: {len(values)} alternatives have thresholds, {len(to_choose)} need them."
        )
    numbers = iter(values)
    ways = []
    for number, alternative in enumerate(alternatives, 1):
        picked: tuple[float, ...] | None = next(numbers) if choices(alternative) else ()
        if picked is None:
            continue
        if len(picked) != len(choices(alternative)):
            raise VsreError(f"rule {name!r}, {side} {number}: expected {len(choices(alternative))} thresholds.")
        ways.append(compiled(f"{name}: {side} {number}", alternative, picked))
    return tuple(ways)


def compiled(name: str, alternative: Alternative, picked: tuple[float, ...]) -> Way:
    """An alternative with `picked` in place of the thresholds to choose."""
    numbers = iter(picked)
    tests = tuple(
        Limit(c.measure, c.sign, next(numbers) if isinstance(c.threshold, Choice) else c.threshold) for c in alternative
    )
    evidence = " ".join(MEASURES[t.measure].needs for t in tests)
    needs = " and ".join(kind for kind in ("masks", "depth") if kind in evidence)
    return Way(name, tests, needs)
