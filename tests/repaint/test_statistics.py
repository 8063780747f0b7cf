"""Counting a repainted set, its page, and the page on which a person checks the verifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vsre.errors import VsreError
from vsre.relations.things import Verdict
from vsre.repaint import repaint
from vsre.repaint.spot_check import score_marks, write_spot_check
from vsre.repaint.statistics import count, statistics
from vsre.repaint.statistics_page import write_statistics
from vsre.repaint.verify import MISSING, SceneTruth, Verification
from vsre.triplets import Triplet


class Doubting(SceneTruth):
    """The scene's truth, but nothing right of anything is believed, and what touches stays open."""

    name = "doubting/1"

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        true = super().verify(image, triplet)
        if triplet.relation == "right of":
            return Verification(Verdict.FAIL, 1.0, true.boxes, reason="<b>never</b> right")
        if triplet.relation == "touching":
            return Verification(Verdict.UNDECIDED, 0.0, {}, reason="too close")
        return true


@pytest.fixture(scope="module")
def painted(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "set"
    scenes = small_world / "scenes.jsonl"
    repaint(small_world / "triplets" / "train", out, scenes=scenes, limit=24, verifier=Doubting())
    return out


def verdict(kind: str, said: str, found: str, agrees: bool | None) -> dict[str, Any]:
    things = {"subject": "cat", "relation": "left of", "object": "dog"}
    boxes = {name: [0.0, 0.0, 0.5, 0.5] for name in found.split()}
    return {**things, "caption": "c", "kind": kind, "verdict": said, "agrees": agrees, "boxes": boxes, "reason": "r"}


def row(status: str, *verdicts: dict[str, Any], setting: str = "t2i", picture: str | None = "p") -> dict[str, Any]:
    numbers = {"steps": 30, "guidance": 5.0, "strength": None}
    rest = {"reason": None if status == "painted" else "why", "truth": "verified", "bytes": 1000, "seconds": 0.5}
    return {"setting": setting, "status": status, "verdicts": list(verdicts), "picture": picture, **numbers, **rest}


def test_every_rate_counts_what_it_says() -> None:
    found = count(
        [
            row("painted", verdict("positive", "pass", "cat dog", True)),
            row("rejected", verdict("positive", "fail", "cat dog", False), picture="q"),
            row("rejected", verdict("positive", "fail", "cat", False), picture="r"),
            row("rejected", verdict("positive", "undecided", "cat dog", None), picture="s", setting="i2i"),
            row("painted", verdict("object-absent", "fail", "dog", True), setting="inpaint"),
            row("refused", picture=None) | {"verdicts": None, "bytes": None, "seconds": None},
        ]
    )
    values = {
        name: rate and (rate["value"], rate["n"]) for name, rate in found["all"].items() if isinstance(rate, dict)
    }
    assert values == {
        "kept": (0.4, 5),
        "things_found": (0.875, 8),
        "relation_holds": (0.3333, 3),
        "relation_open": (0.3333, 3),
        "old_subject_gone": (1.0, 1),
    }
    assert (found["all"]["jobs"], found["all"]["pictures"]) == (6, 5)
    assert {name: group["jobs"] for name, group in found["setting"].items()} == {"t2i": 4, "i2i": 1, "inpaint": 1}
    assert list(found["numbers"]) == [f"{s}: steps 30, guidance 5" for s in ("i2i", "inpaint", "t2i")]
    assert found["class"]["dog"]["value"] == 0.75
    assert found["reasons"] == {"refused": {"why": 1}, "rejected": {"why": 3}}
    assert found["undecided"] == {"r": 1}
    assert found["same_picture_twice"] == 1
    low, high = found["all"]["kept"]["low"], found["all"]["kept"]["high"]
    assert (low, high) == (0.1176, 0.7693)  # Wilson's interval of 2 of 5, from a table


def test_a_thing_that_two_statements_name_is_counted_once() -> None:
    """A picture of t2i that is painted false says what was painted, and that the caption is not so."""
    said = verdict("positive", "pass", "cat dog", True) | {"relation": "right of"}
    denied = verdict("relation-false", "fail", "cat dog", True)
    half = verdict("positive", "fail", "dog", False)
    found = count([*(row("painted", said, denied, picture=str(n)) for n in range(20)), row("rejected", half)])
    assert (found["all"]["things_found"]["value"], found["all"]["things_found"]["n"]) == (0.9762, 42)
    assert {name: rate["n"] for name, rate in found["class"].items()} == {"cat": 21, "dog": 21}
    assert found["setting"]["t2i"]["things_found"]["n"] == 42
    assert {n: of["things_found"]["n"] for n, of in found["relation"].items()} == {"left of": 42, "right of": 40}
    assert found["all"]["relation_holds"]["n"] == 20


class Overlooks(Doubting):
    """Nothing above anything is found at all."""

    name = "overlooks/1"

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        true = super().verify(image, triplet)
        if triplet.relation in ("above", "below"):
            return Verification(Verdict.FAIL, 1.0, dict(list(true.boxes.items())[:1]), reason=MISSING)
        return true


def test_what_is_missing_is_checked_apart_from_what_lies_elsewhere(small_world: Path, tmp_path: Path) -> None:
    out, scenes = tmp_path / "out", small_world / "scenes.jsonl"
    repaint(small_world / "triplets" / "train", out, scenes=scenes, limit=24, settings=["t2i"], verifier=Overlooks())
    write_spot_check(out, statements=16)
    asked = json.loads((out / "spot-check" / "items.json").read_text())
    of = {v: [i["id"] for i in asked["items"] if i["verdict"] == v] for v in ("pass", "fail", "missing", "undecided")}
    assert of["missing"] and of["fail"] and asked["population"]["missing"] >= len(of["missing"])
    assert all(i["relation"] in ("above", "below") for i in asked["items"] if i["id"] in of["missing"])
    marks = dict.fromkeys(of["missing"], "true") | dict.fromkeys(of["fail"], "false")
    found = score_marks(out, marks_file(tmp_path, asked["check"], marks))
    assert found["missing_is_false"]["value"] == 0 and found["fail_is_false"]["value"] == 1
    assert found["fail_is_false"]["n"] == len(of["fail"]) and found["matrix"]["missing"]["true"] == len(of["missing"])
    assert "MISSING (FAIL because" in (out / "spot-check" / "index.html").read_text()


def test_a_real_ledger_adds_up(painted: Path) -> None:
    found = statistics(painted)
    whole = found["all"]
    assert whole["jobs"] == 72
    assert sum(found["reasons"]["refused"].values()) == whole["jobs"] - whole["pictures"]
    assert sum(group["jobs"] for group in found["setting"].values()) == 72
    assert found["relation"]["right of"]["relation_holds"]["value"] == 0
    assert found["relation"]["above"]["relation_holds"]["value"] == 1


def test_the_page_shows_pictures_and_escapes_what_it_is_told(painted: Path) -> None:
    write_statistics(painted, examples=2)
    page = (painted / "statistics.html").read_text()
    assert "<b>never</b>" not in page
    assert "&lt;b&gt;never&lt;/b&gt; right" in page
    assert page.count('src="data:image/jpeg;base64,') >= 6
    assert "<script" not in page
    assert json.loads((painted / "statistics.json").read_text())["all"]["jobs"] == 72


@pytest.fixture(scope="module")
def checked(painted: Path) -> dict[str, Any]:
    write_spot_check(painted, statements=18)
    return json.loads((painted / "spot-check" / "items.json").read_text())


def test_rare_verdicts_are_asked_too(checked: dict[str, Any]) -> None:
    asked = [item["verdict"] for item in checked["items"]]
    assert len(asked) == 18
    there = {verdict: n for verdict, n in checked["population"].items() if n}
    assert len(there) == 3
    for verdict, n in there.items():
        assert asked.count(verdict) >= min(n, 6)
    assert len({item["id"] for item in checked["items"]}) == 18


def test_the_page_keeps_the_verdict_for_later(painted: Path, checked: dict[str, Any]) -> None:
    page = (painted / "spot-check" / "index.html").read_text()
    assert page.count('<article class="item"') == 18
    assert page.count("data-plain=") == page.count('src="data:image/jpeg;base64,') == 18
    assert "&lt;b&gt;never" in page
    assert "<b>never" not in page
    assert checked["check"] in page


def marks_file(folder: Path, check: str, marks: dict[str, str]) -> Path:
    path = folder / "marks.json"
    path.write_text(json.dumps({"check": check, "marks": marks}))
    return path


def test_marks_become_a_confusion_matrix(painted: Path, checked: dict[str, Any], tmp_path: Path) -> None:
    marks = {}
    of = {v: [i["id"] for i in checked["items"] if i["verdict"] == v] for v in ("pass", "fail", "undecided")}
    for verdict, ids in of.items():
        for place, name in enumerate(ids):
            marks[name] = "true" if verdict == "pass" and place else "false"
    marks[of["fail"][0]] = "unclear"
    found = score_marks(painted, marks_file(tmp_path, checked["check"], marks))
    passed, failed = len(of["pass"]), len(of["fail"])
    assert found["matrix"]["pass"] == {"true": passed - 1, "false": 1, "unclear": 0}
    assert found["matrix"]["fail"] == {"true": 0, "false": failed - 1, "unclear": 1}
    assert found["fail_is_false"]["n"] == failed - 1
    whole = checked["population"]
    assert found["set_is_true"] == pytest.approx(whole["pass"] / sum(whole.values()) * (passed - 1) / passed, abs=1e-4)


def test_a_share_of_the_set_needs_marks_of_every_verdict(
    painted: Path, checked: dict[str, Any], tmp_path: Path
) -> None:
    name = next(i["id"] for i in checked["items"] if i["verdict"] == "pass")
    found = score_marks(painted, marks_file(tmp_path, checked["check"], {name: "true"}))
    assert found["set_is_true"] is None
    assert found["fail_is_false"] is None
    assert found["pass_is_true"]["n"] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"check": "another", "marks": {}}', "another page"),
        ("[]", "not a file of marks"),
        ("not json", "not a file of marks"),
        ('{"check": "CHECK", "marks": {"nobody": "true"}}', "none that the page makes"),
        ('{"check": "CHECK", "marks": {"ITEM": "perhaps"}}', "none that the page makes"),
    ],
)
def test_marks_that_are_none_are_told(
    painted: Path, checked: dict[str, Any], tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "marks.json"
    path.write_text(content.replace("CHECK", checked["check"]).replace("ITEM", checked["items"][0]["id"]))
    with pytest.raises(VsreError, match=told):
        score_marks(painted, path)


def test_nothing_to_check_is_told(small_world: Path, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="no ledger"):
        write_statistics(tmp_path)
    out = tmp_path / "unseen"
    repaint(small_world / "triplets" / "train", out, limit=2, settings=["t2i"])
    with pytest.raises(VsreError, match="no verifier has looked"):
        write_spot_check(out)
    assert statistics(out)["all"]["kept"] is None
