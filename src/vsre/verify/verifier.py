"""The verifier that looks: detectors, rules for photographs and, for what they leave open, depth, masks and a judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from vsre.errors import VsreError
from vsre.relations.ontology import RELATIONS
from vsre.relations.photo_rules import RuleBook, shipped_rules
from vsre.relations.rule_forms import SIDES
from vsre.relations.things import Verdict
from vsre.repaint.verify import Verification
from vsre.sources.images import load_image
from vsre.triplets import Triplet
from vsre.verify.case import Case
from vsre.verify.config import VerifierConfig
from vsre.verify.depth_and_masks import DepthEstimator, Segmenter
from vsre.verify.detectors import ClosedSetDetector, KnownBoxes, OpenVocabularyDetector
from vsre.verify.judge import VlmJudge
from vsre.verify.loading import Machine
from vsre.verify.presence import Opinion, presence
from vsre.verify.rules import would_help
from vsre.verify.sight import Detector, Picture, Seen

REVISION = "verify/1"

NO_PICTURE = "there is no picture with the triplet"
BAD_PICTURE = "the picture cannot be opened"
TOO_SMALL = "the picture is too small or too narrow to be looked at"
JUDGED = "a judge was asked"

_LEAST_SIDE, _MOST_NARROW = 8, 16
"""In pixels, and longer side over shorter: beyond these a processor may be left with a side of zero pixels."""


@dataclass(frozen=True)
class _Eye:
    """A detector, and the scores from which its boxes count and make absence doubtful."""

    detector: Detector
    present: float
    absent: float


class PictureVerifier:
    """Verifies pictures by what detectors see in them (a `vsre.repaint.verify.BatchVerifier`).

    Models are loaded when the first picture is looked at, and are left out when the verifier is pickled. `known`
    replaces the closed-set detector. Raises VsreError if the configuration names no detector, or a folder that does not
    exist.
    """

    def __init__(self, config: VerifierConfig, *, known: Detector | None = None, rules: RuleBook | None = None) -> None:
        self.config, self.policy = config, config.policy
        self.rules = rules or shipped_rules()
        machine, closed, spec = Machine.of(config), config.closed, config.open
        self.eyes: list[_Eye] = []
        if known is not None:
            self.eyes.append(_Eye(known, 0.5, 0.5))
        elif closed is not None:
            detector = ClosedSetDetector(closed, machine, duplicates=config.duplicates)
            self.eyes.append(_Eye(detector, closed.present, closed.absent))
        if spec is not None:
            second = OpenVocabularyDetector(spec, machine, duplicates=config.duplicates)
            self.eyes.append(_Eye(second, spec.present, spec.absent))
        if not self.eyes:
            raise VsreError("The verifier has no detector: configure `closed` or `open`.")
        self.depth = None if config.depth is None else DepthEstimator(config.depth, machine)
        self.masks = None if config.masks is None else Segmenter(config.masks, machine)
        self.judge = None if config.judge is None else VlmJudge(config.judge, device=config.device)

    @cached_property
    def name(self) -> str:
        """A name that changes with everything that decides verdicts, and with nothing else."""
        told = {
            "config": self.config.of_verdicts(),
            "parts": {part: looker.identity() for part, looker in self._parts().items()},
            "rules": repr([(relation, self.rules.ways(relation, side)) for relation in RELATIONS for side in SIDES]),
        }
        return f"{REVISION} {hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]}"

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    def about(self) -> dict[str, Any]:
        """Every model with its revision, as JSON; complete once the verifier has looked at a picture."""
        return {part: looker.about() for part, looker in self._parts().items()}

    def release(self) -> None:
        """Drop the models that were loaded; the next picture loads them again."""
        for looker in self._parts().values():
            getattr(looker, "release", lambda: None)()

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        return self.verify_many([replace(triplet, image=image)])[0]

    def verify_many(self, triplets: Sequence[Triplet]) -> list[Verification]:
        """One verification per triplet, in their order. Each picture is opened and looked at once; at most `batch_size`
        pictures are held at a time."""
        by_picture: dict[str, list[int]] = {}
        for index, triplet in enumerate(triplets):
            by_picture.setdefault(triplet.image_id, []).append(index)
        found: dict[int, Verification] = {}
        pictures = iter(by_picture.values())
        while some := list(islice(pictures, self.batch_size)):
            found |= self._some(triplets, some)
        return [found[index] for index in range(len(triplets))]

    def _some(self, triplets: Sequence[Triplet], pictures: Sequence[Sequence[int]]) -> dict[int, Verification]:
        """Index -> verification, for the triplets at these indices, grouped by picture."""
        found: dict[int, Verification] = {}
        rows: list[tuple[int, Picture]] = []
        for places in pictures:
            picture = self._open(triplets[places[0]])
            if isinstance(picture, str):
                found |= {place: Verification(Verdict.UNDECIDED, reason=picture) for place in places}
            else:
                rows += [(place, picture) for place in places]
        cases = self._cases([(triplets[place], picture) for place, picture in rows])
        for case in cases:
            case.judge(self.rules)
        self._look_further([case for case in cases if case.open and case.picture.image is not None])
        seen = self._asked_again([(case, self._with_names(case)) for case in cases])
        return found | {place: verification for (place, _), verification in zip(rows, seen, strict=True)}

    def _parts(self) -> dict[str, Any]:
        further = {"depth": self.depth, "masks": self.masks, "judge": self.judge}
        return {eye.detector.name: eye.detector for eye in self.eyes} | {
            part: looker for part, looker in further.items() if looker is not None
        }

    def _open(self, triplet: Triplet) -> Picture | str:
        """The picture, or why it cannot be looked at."""
        if triplet.image is None:
            blind = all(isinstance(eye.detector, KnownBoxes) for eye in self.eyes)
            return Picture(triplet.image_name, None) if blind else NO_PICTURE
        try:
            image = load_image(triplet.image, name=triplet.image_name)
        except VsreError:
            return BAD_PICTURE
        if min(image.size) < _LEAST_SIDE or max(image.size) > _MOST_NARROW * min(image.size):
            return TOO_SMALL
        return Picture(triplet.image_name, image)

    def _cases(self, rows: Sequence[tuple[Triplet, Picture]]) -> list[Case]:
        """One case per triplet, with what is seen of its two things."""
        pictures = {triplet.image_id: picture for triplet, picture in rows}
        wanted: dict[str, list[str]] = {image_id: [] for image_id in pictures}
        for triplet, _ in rows:
            mine = wanted[triplet.image_id]
            mine += [name for name in dict.fromkeys((triplet.subject, triplet.object)) if name not in mine]
        opinions: dict[str, dict[str, list[Opinion]]] = {i: {n: [] for n in names} for i, names in wanted.items()}
        for eye in self.eyes:
            asked = {i: [n for n in names if self._asks(eye, n, opinions[i][n])] for i, names in wanted.items()}
            asked = {i: names for i, names in asked.items() if names}
            seen: list[Seen] = eye.detector.detect([pictures[i] for i in asked], list(asked.values()))
            for (image_id, names), things in zip(asked.items(), seen, strict=True):
                for name in names:
                    boxes = None if things is None else things[name]
                    opinions[image_id][name].append(Opinion(eye.detector.name, eye.present, eye.absent, boxes))
        there = {
            image_id: {name: presence(name, said, same=self.config.same) for name, said in of_picture.items()}
            for image_id, of_picture in opinions.items()
        }
        return [Case(t, picture, there[t.image_id][t.subject], there[t.image_id][t.object]) for t, picture in rows]

    def _asks(self, eye: _Eye, name: str, before: Sequence[Opinion]) -> bool:
        return eye.detector.knows(name) and not (before and self.config.second_opinion == "fallback")

    def _look_further(self, cases: Sequence[Case]) -> None:
        """Get depth and masks for the relations they are configured for, and judge again with them."""
        deep = [case for case in cases if self._wants(self.depth, "depth", case)]
        outlined = [case for case in cases if self._wants(self.masks, "masks", case)]
        if self.depth is not None and deep:
            once = {case.triplet.image_id: case.picture for case in deep}
            maps = dict(zip(once, self.depth.look(list(once.values())), strict=True))
            for case in deep:
                case.depth = maps[case.triplet.image_id]
        if self.masks is not None and outlined:
            boxes = [[d.box for d in case.instances] for case in outlined]
            for case, masks in zip(outlined, self.masks.look([c.picture for c in outlined], boxes), strict=True):
                case.masks = masks
        for case in cases:
            if case.depth is not None or case.masks is not None:
                case.judge(self.rules)

    def _wants(self, looker: DepthEstimator | Segmenter | None, kind: str, case: Case) -> bool:
        relation = case.triplet.relation
        return looker is not None and relation in looker.spec.relations and kind in would_help(self.rules, relation)

    def _with_names(self, case: Case) -> Verification:
        """The case's verification, with the models that looked in its evidence."""
        found = case.verification()
        lookers = self._parts()
        used = [*(eye.detector.name for eye in self.eyes), *(k for k in ("depth", "masks") if k in found.evidence)]
        return replace(found, evidence={**found.evidence, "by": {name: lookers[name].about() for name in used}})

    def _asked_again(self, seen: Sequence[tuple[Case, Verification]]) -> list[Verification]:
        """The verifications, with the judge's verdict in place of UNDECIDED if it gives one."""
        found = [verification for _, verification in seen]
        left = [
            i for i, (case, v) in enumerate(seen) if v.verdict is Verdict.UNDECIDED and case.picture.image is not None
        ]
        if self.judge is None or not left:
            return found
        for i, ruling in zip(left, self.judge.ask([seen[i][0].triplet for i in left]), strict=True):
            told = {**self.judge.about(), "answers": list(ruling.answers), "before": found[i].reason}
            found[i] = replace(found[i], evidence={**found[i].evidence, "judge": told})
            if ruling.verdict is not Verdict.UNDECIDED:
                # A verdict means that all its answers agree: there is no threshold to be near to.
                found[i] = replace(found[i], verdict=ruling.verdict, margin=1.0, reason=JUDGED)
        return found
