"""How often a verifier is right: its verdicts against the known truth of drawn scenes.

Scenes of the embedded world carry their truth, so a verifier that sees only their pixels can be measured without
people: PASS, FAIL and UNDECIDED against true and false, per relation, with Wilson intervals. FAIL is split in two:
because of where things are, and because one of them is missing. The intervals ignore that statements about one scene
are not independent.

`TrueBoxes` judges the scene's own visible boxes by the same rules as a detector's boxes: what it gets wrong is the
rules' fault, the rest the detector's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from vsre.rates import share, share_text
from vsre.relations.grammar import caption
from vsre.relations.photo_rules import judge
from vsre.relations.things import Verdict
from vsre.repaint.edits import alike, visible_boxes
from vsre.repaint.verify import SceneTruth, Verification, Verifier, verify_all
from vsre.sources.scenes import CLASSES, Scene, World, draw_unit, encode
from vsre.triplets import Triplet, image_content_id

ALL, ABSENT = "all", "subject absent"
"""Names of table rows that are not relations: all statements whose two things are there, and all others."""

OUTCOMES = ("pass", "fail", "missing", "undecided")

_BATCH = 256


def scene_statements(
    units: int,
    seed: int,
    *,
    split: str = "test",
    statements: int = 6,
    size: int = 192,
    protocol: str = "caption-disjoint",
) -> Iterator[Triplet]:
    """Held-out scenes with true and false statements; the scene is in the provenance.

    A unit is two scenes: up to `statements` statements are true of one and false of the other, and one more about each
    scene names a class that is not in it.
    """
    world = World(protocol, split)
    for index in range(units):
        unit = draw_unit(world, seed, index, size=size)
        if unit is None:
            continue
        rng = Random(f"absent/{seed}/{index}")
        for which, scene in enumerate(unit.scenes):
            said = [(s, truth == (which == 0)) for s, truth in unit.statements[:statements]]
            missing = [c for c in CLASSES if c not in scene.names and not any(alike(c, n) for n in scene.names)]
            (_, relation, object), _ = said[0]
            yield from _rows(scene, [*said, ((rng.choice(missing), relation, object), False)], f"{index}-{which}")


def _rows(scene: Scene, said: Sequence[tuple[tuple[str, str, str], bool]], name: str) -> Iterator[Triplet]:
    image = encode(scene)
    for (subject, relation, object), truth in said:
        yield Triplet(
            image_id=image_content_id(image),
            image_name=f"{name}.jpg",
            subject=subject,
            relation=relation,
            object=object,
            caption=caption(subject, relation, object),
            label=truth,
            split="test",
            origin="scenes:check",
            image=image,
            width=scene.size,
            height=scene.size,
            provenance={"scene": scene.to_json()},
        )


class TrueBoxes:
    """The rules for photographs on the scene's own visible boxes: what a perfect detector would achieve."""

    name = "true-boxes/1"

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        """Raises VsreError if the triplet's provenance holds no scene."""
        known = SceneTruth().verify(image, triplet)
        scene = Scene.from_json(triplet.provenance["scene"])
        seen = visible_boxes(scene) or {}
        boxes = {name: seen[name] for name in (triplet.subject, triplet.object) if name in seen}
        if len(boxes) < 2:
            return known
        return Verification.of(judge(triplet.relation, *(boxes[n] for n in (triplet.subject, triplet.object))), boxes)


@dataclass(frozen=True)
class Compared:
    """One statement: its relation, the reference's verdict and the verifier's, and whether one of its two things is
    missing: `absent` according to the reference, `missing` according to the verifier."""

    relation: str
    truth: Verdict
    verdict: Verdict
    absent: bool = False
    missing: bool = False

    @property
    def outcome(self) -> str:
        """One of OUTCOMES."""
        return "missing" if self.missing and self.verdict is Verdict.FAIL else str(self.verdict)


def compare(verifier: Verifier, triplets: Iterable[Triplet], reference: Verifier | None = None) -> Iterator[Compared]:
    """A verifier's verdicts alongside those of a trusted reference (default: the scene's own truth)."""
    judge_of_truth = reference or SceneTruth()
    rows = iter(triplets)
    while some := list(islice(rows, _BATCH)):
        pairs = zip(some, verify_all(judge_of_truth, some), verify_all(verifier, some), strict=True)
        for triplet, true, said in pairs:
            absent, missing = (not {triplet.subject, triplet.object} <= v.boxes.keys() for v in (true, said))
            yield Compared(triplet.relation, true.verdict, said.verdict, absent, missing)


def confusion(compared: Iterable[Compared]) -> dict[str, dict[str, Any]]:
    """Relation -> counts and figures, as JSON; ALL and ABSENT come before the relations.

    `true` and `false` count the verdicts on statements that the reference calls so, `open` those that it leaves open,
    which no figure counts. `precision` is the share of PASS that is true (of FAIL and of missing: that is false),
    `recall` the share of true statements that PASS (of false ones: that get that verdict), `coverage` the share that is
    decided; each with Wilson's 95 % interval, None if there is nothing to divide by.
    """
    tables: dict[str, dict[str, dict[str, int]]] = {}
    for one in compared:
        truth = {Verdict.PASS: "true", Verdict.FAIL: "false", Verdict.UNDECIDED: "open"}[one.truth]
        for name in (ABSENT,) if one.absent else (ALL, one.relation):
            table = tables.setdefault(name, {t: dict.fromkeys(OUTCOMES, 0) for t in ("true", "false", "open")})
            table[truth][one.outcome] += 1
    first = [name for name in (ALL, ABSENT) if name in tables]
    return {name: _figures(tables[name]) for name in (*first, *sorted(tables.keys() - set(first)))}


def _figures(table: dict[str, dict[str, int]]) -> dict[str, Any]:
    n = {truth: sum(table[truth].values()) for truth in ("true", "false")}
    figures: dict[str, Any] = {**table, "n": sum(n.values())}
    said = {outcome: table["true"][outcome] + table["false"][outcome] for outcome in OUTCOMES}
    for outcome, right in (("pass", "true"), ("fail", "false"), ("missing", "false")):
        hits = table[right][outcome]
        figures[outcome] = {"precision": share(hits, said[outcome]), "recall": share(hits, n[right])}
    return figures | {"coverage": share(sum(said.values()) - said["undecided"], sum(n.values()))}


def lines(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tables as text for a terminal or a page: one line per relation."""
    outcomes = "pass/fail/missing/undecided"
    head = ("relation", "n", f"true: {outcomes}", "false", "PASS is true", "FAIL is false", "missing is", "decided")
    rows: list[tuple[str, ...]] = [head]
    for name, entry in tables.items():
        counts = ("/".join(str(entry[t][o]) for o in OUTCOMES) for t in ("true", "false"))
        figures = (*(entry[o]["precision"] for o in OUTCOMES[:-1]), entry["coverage"])
        rows.append((name, str(entry["n"]), *counts, *map(share_text, figures)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
