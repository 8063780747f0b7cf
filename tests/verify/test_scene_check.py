"""The confusion of a verifier with the truth of scenes: what is counted where, by verifiers whose faults are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from vsre.relations.things import Verdict
from vsre.repaint.verify import SceneTruth, Verification
from vsre.triplets import Triplet
from vsre.verify.scene_check import ABSENT, ALL, Compared, TrueBoxes, compare, confusion, lines, scene_statements

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED


@pytest.fixture(scope="module")
def rows() -> list[Triplet]:
    return list(scene_statements(4, 5, size=96, statements=4))


class Fixed:
    """Says of every picture what a function says of its triplet."""

    name = "fixed"

    def __init__(self, say: Callable[[Triplet], Verdict], batch: bool = False) -> None:
        self.say = say
        self.seen: list[Triplet] = []
        if batch:
            self.batch_size, self.verify_many = 3, self._many

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        self.seen.append(triplet)
        boxes = dict.fromkeys((triplet.subject, triplet.object), (0.0, 0.0, 1.0, 1.0))
        return Verification(self.say(triplet), boxes=boxes)

    def _many(self, triplets: Sequence[Triplet]) -> list[Verification]:
        return [self.verify(t.image or b"", t) for t in triplets]


def test_statements_are_true_and_false_of_their_scenes(rows: list[Triplet]) -> None:
    true = [r for r in rows if r.label]
    assert 8 <= len(true) <= 16 and len(rows) == 2 * len(true) + len({r.image_id for r in rows})
    known = [SceneTruth().verify(b"", r) for r in rows]
    assert [k.verdict is PASS for k in known] == [r.label for r in rows]
    assert all(k.verdict is not OPEN for k in known)
    absent = [r for r in rows if r.subject not in {o["name"] for o in r.provenance["scene"]["objects"]}]
    assert len(absent) == len({r.image_id for r in rows}) and not any(r.label for r in absent)
    assert [r.key for r in scene_statements(4, 5, size=96, statements=4)] == [r.key for r in rows]
    assert {r.key for r in scene_statements(4, 6, size=96)}.isdisjoint(r.key for r in rows)


def test_a_perfect_verifier(rows: list[Triplet]) -> None:
    tables = confusion(compare(Fixed(lambda t: PASS if t.label else FAIL), rows))
    assert list(tables)[:2] == [ALL, ABSENT]
    everything = tables[ALL]
    for side in ("pass", "fail"):
        assert everything[side]["precision"]["value"] == everything[side]["recall"]["value"] == 1
        assert everything[side]["precision"]["low"] < 1
    assert everything["coverage"]["n"] == everything["n"] == sum(1 for r in rows if r.label) * 2
    assert tables[ABSENT]["false"] == {"pass": 0, "fail": 8, "missing": 0, "undecided": 0}
    assert tables[ABSENT]["pass"]["precision"] is None, "nothing passed, and nothing is true"
    assert sum(t["n"] for name, t in tables.items() if name not in (ALL, ABSENT)) == everything["n"]


@pytest.mark.parametrize("batch", [False, True])
def test_faults_are_counted_where_they_are(rows: list[Triplet], batch: bool) -> None:
    """One that passes whatever it is shown, and one that never says anything."""
    credulous = Fixed(lambda t: PASS, batch)
    tables = confusion(compare(credulous, rows))
    assert [t.key for t in credulous.seen] == [r.key for r in rows]
    assert tables[ALL]["pass"]["precision"]["value"] == 0.5 and tables[ALL]["pass"]["recall"]["value"] == 1
    assert tables[ALL]["fail"]["precision"] is None and tables[ALL]["fail"]["recall"]["value"] == 0
    assert tables[ABSENT]["pass"]["precision"]["value"] == 0
    silent = confusion(compare(Fixed(lambda t: OPEN, batch), rows))[ALL]
    assert silent["coverage"]["value"] == 0 and silent["true"]["undecided"] == silent["false"]["undecided"]


def test_counts_and_intervals() -> None:
    rows = [Compared("on", PASS, PASS)] * 9 + [Compared("on", FAIL, PASS)]
    rows += [Compared("on", OPEN, PASS), Compared("on", FAIL, OPEN, missing=True)]
    table = confusion(rows)["on"]
    assert table["open"] == {"pass": 1, "fail": 0, "missing": 0, "undecided": 0} and table["n"] == 11
    assert table["pass"]["precision"] == {"value": 0.9, "low": 0.5958, "high": 0.9821, "n": 10}
    assert table["coverage"]["value"] == pytest.approx(10 / 11, abs=1e-4)
    text = lines(confusion(rows))
    assert "9/0/0/0" in text[1] and "1/0/0/1" in text[1] and "90 % [60, 98]" in text[1]
    both = [
        Compared("on", FAIL, FAIL),
        Compared("on", PASS, FAIL, missing=True),
        Compared("on", FAIL, FAIL, True, True),
    ]
    tables = confusion(both)
    assert tables["on"]["fail"]["precision"]["value"] == 1 and tables["on"]["missing"]["precision"]["value"] == 0
    assert tables["on"]["fail"]["recall"]["value"] == tables["on"]["coverage"]["value"] == 1
    assert tables[ABSENT]["false"]["missing"] == 1 and tables[ABSENT]["missing"]["recall"]["value"] == 1
    assert confusion([]) == {}


def test_another_reference(rows: list[Triplet]) -> None:
    """A verifier measured against itself is never wrong, whatever it says."""
    boxes = TrueBoxes()
    tables = confusion(compare(boxes, rows, boxes))
    assert all(t["pass"]["precision"] is None or t["pass"]["precision"]["value"] == 1 for t in tables.values())


def test_true_boxes_are_judged_by_the_rules_for_photographs() -> None:
    rows = list(scene_statements(12, 7, size=96, statements=6))
    tables = confusion(compare(TrueBoxes(), rows))
    assert tables[ABSENT]["missing"]["recall"]["value"] == 1 and tables[ALL]["missing"]["precision"] is None
    assert tables[ALL]["pass"]["precision"]["value"] > 0.9 and tables[ALL]["fail"]["precision"]["value"] > 0.9
    assert 0.2 < tables[ALL]["coverage"]["value"] < 0.8
    facing = [t for name, t in tables.items() if name in ("facing", "toward", "parallel to", "facing away from")]
    assert facing and all(t["coverage"]["value"] == 0 for t in facing), "boxes do not tell"
