"""A set of triplets verified into a folder: resumed after kills, each triplet once, and the figures."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_lookers import LEFT, RIGHT, Fake, png, triplet
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.relations.photo_rules import judge
from vsre.relations.things import Verdict
from vsre.repaint.verify import Verification
from vsre.sources.vsr import SetAside, read_vsr
from vsre.sources.vsr.objects import read_objects
from vsre.triplets import Triplet, write_triplets
from vsre.verify.config import VerifierConfig
from vsre.verify.figures import figures
from vsre.verify.run import verify_set
from vsre.verify.verdicts import SCHEMA, parts, read_verdicts
from vsre.verify.verifier import PictureVerifier

NAMES = [f"p{n}" for n in range(6)]
SEEN = {
    "p0": {"cat": [(LEFT, 0.9)], "dog": [(RIGHT, 0.8)]},
    "p1": {"cat": [(RIGHT, 0.9)], "dog": [(LEFT, 0.8)]},
    "p2": {"dog": [(RIGHT, 0.8)]},
    "p3": {"cat": [(LEFT, 0.9)], "dog": [(RIGHT, 0.8)]},
    "p4": None,
    "p5": {"cat": [(LEFT, 0.9)], "dog": [(RIGHT, 0.8)]},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two statements on each of six pictures: "left of", true but on p1 and p5, and "facing"."""
    rows = [
        t for n in NAMES for t in (triplet(n, label=n not in ("p1", "p5")), triplet(n, relation="facing", label=True))
    ]
    write_triplets(tmp_path / "data", rows)
    return tmp_path / "data"


class Dies(PictureVerifier):
    """Is killed when it is asked for the nth time."""

    def __init__(self, at: int) -> None:
        super().__init__(VerifierConfig(batch_size=1), known=Fake(SEEN))
        self.left = at
        self.looked_at: list[str] = []

    def verify_many(self, triplets: Sequence[Triplet]) -> list[Verification]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.looked_at += [t.image_name for t in triplets]
        return super().verify_many(triplets)


def test_one_row_a_triplet_with_all_the_evidence(data: Path, tmp_path: Path) -> None:
    summary = verify_set(data, tmp_path / "out", Dies(99))
    table = pq.read_table(tmp_path / "out" / "verdicts.parquet")
    assert table.schema.equals(SCHEMA) and len(table) == 12 and len(set(table["key"].to_pylist())) == 12
    rows = {(r["image_name"], r["relation"]): r for r in table.to_pylist()}
    first = rows["p0.png", "left of"]
    assert (first["verdict"], first["rule"], first["missing"]) == ("pass", "left: pass 1", False)
    assert (first["subject_box"], first["subject_score"], first["object_state"]) == (list(LEFT), 0.9, "present")
    assert json.loads(first["evidence"])["seen"]["cat"]["boxes"][0]["score"] == 0.9
    assert rows["p2.png", "left of"]["missing"] and rows["p2.png", "left of"]["subject_box"] is None
    assert rows["p4.png", "left of"]["reason"].startswith("a detector cannot tell")
    record = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert record == summary and record["finished"] and record["by"]["closed"]["revision"] == "abc"
    assert not parts(tmp_path / "out").exists()


def test_the_figures(data: Path, tmp_path: Path) -> None:
    found = verify_set(data, tmp_path / "out", Dies(99))["figures"]
    assert (found["triplets"], found["pictures"]) == (12, 6)
    assert found["verdicts"] == {"pass": 3, "fail": 1, "missing": 2, "undecided": 6}
    left = found["against_labels"]["by_relation"]["left of"]
    assert left["true"] == {"pass": 2, "fail": 0, "missing": 1, "undecided": 1}
    assert left["false"] == {"pass": 1, "fail": 1, "missing": 0, "undecided": 0}
    assert left["pass_is_true"] == {"value": 0.6667, "low": 0.2077, "high": 0.9385, "n": 3}
    assert left["fail_is_false"]["value"] == 1 and left["missing_is_false"]["value"] == 0
    assert left["true_found"]["value"] == 0.5
    assert left["false_found"]["value"] == 0.5 and left["decided"]["value"] == 0.8333
    assert found["against_labels"]["by_relation"]["facing"]["pass_is_true"] is None
    assert found["classes"]["cat"] == {
        "pictures": 6, "present": 4, "absent": 1, "unclear": 1,
        "found": {"value": 0.6667, "low": 0.3, "high": 0.9032, "n": 6},
    }  # fmt: skip
    assert sum(found["undecided_because"].values()) == 6 and "asked_for" not in found


def test_what_was_only_asked_for_is_no_label() -> None:
    base = {
        "image_id": "i", "subject": "cat", "relation": "on", "object": "dog", "label": True, "reason": "",
        "subject_state": "present", "object_state": "present", "missing": False,
    }  # fmt: skip
    painted = [
        {**base, "kind": "positive", "truth": "intended", "verdict": "pass"},
        {**base, "kind": "positive", "truth": "intended", "verdict": "fail"},
        {**base, "kind": "relation-false", "truth": "verified", "label": False, "verdict": "fail"},
        {**base, "kind": "relation-false", "truth": "intended", "label": False, "verdict": "fail", "missing": True},
        {**base, "kind": "object-absent", "truth": "intended", "label": False, "verdict": "fail", "missing": True,
         "subject_state": "absent", "subject": "cow"},
        {**base, "kind": "object-absent", "truth": "intended", "label": False, "verdict": "fail", "missing": True,
         "object_state": "absent"},
    ]  # fmt: skip
    drawn = [{**base, "kind": "positive", "truth": "drawn", "verdict": "pass"}]
    found = figures([*painted, *drawn])
    assert found["against_labels"]["all"]["n"] == 1
    asked_for = {kind: of["borne_out"]["value"] for kind, of in found["asked_for"]["by_kind"].items()}
    assert asked_for == {"positive": 0.5, "relation-false": 0.5, "object-absent": 0.5}
    assert "cow" not in found["classes"], "a caption that is false by absence names what is not there"


def test_a_kill_costs_no_more_than_a_flush_and_nothing_is_looked_at_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsre.verify.run._PICTURES", 1)
    undisturbed = verify_set(data, tmp_path / "whole", Dies(99))["figures"]
    looked_at: list[str] = []
    for at in (0, 2, 3, 99):
        killed = Dies(at)
        try:
            verify_set(data, tmp_path / "out", killed, flush_seconds=0)
        except KeyboardInterrupt:
            assert not (tmp_path / "out" / "verdicts.parquet").exists()
            assert json.loads((tmp_path / "out" / "verify.json").read_text())["finished"] is False
        looked_at += killed.looked_at
    assert sorted(set(looked_at)) == [f"{n}.png" for n in NAMES] and len(looked_at) == 12
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["figures"] == undisturbed
    again = Dies(0)
    assert verify_set(data, tmp_path / "out", again)["figures"] == undisturbed, "there is nothing left to look at"


def test_a_kill_between_joining_and_clearing_up(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """verdicts.parquet is there and so are its parts: each key counts once."""
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        verify_set(data, tmp_path / "out", Dies(99))
    monkeypatch.undo()
    assert (tmp_path / "out" / "verdicts.parquet").exists() and parts(tmp_path / "out").exists()
    assert len(list(read_verdicts(tmp_path / "out", ["key"]))) == 12
    assert verify_set(data, tmp_path / "out", Dies(0))["figures"]["triplets"] == 12
    assert not parts(tmp_path / "out").exists()


def test_more_triplets_later_and_less_at_first(data: Path, tmp_path: Path) -> None:
    few = verify_set(data, tmp_path / "out", Dies(99), limit=3)["figures"]
    all_ = verify_set(data, tmp_path / "out", more := Dies(99))["figures"]
    assert few["triplets"] == 3 and all_["triplets"] == 12 and len(more.looked_at) == 9
    assert verify_set(data, tmp_path / "out", Dies(0), limit=3)["figures"] == few


def test_verdicts_do_not_go_among_the_triplets(data: Path) -> None:
    for path, out in ((data, data), (data, data / "verdicts"), (data / "part-00000.parquet", data)):
        with pytest.raises(VsreError, match="lies in the triplets' folder"):
            verify_set(path, out, Dies(99))


def test_another_verifier_is_refused(data: Path, tmp_path: Path) -> None:
    verify_set(data, tmp_path / "out", Dies(99))
    other = PictureVerifier(VerifierConfig(duplicates=0.5), known=Fake(SEEN))
    with pytest.raises(VsreError, match="holds verdicts of"):
        verify_set(data, tmp_path / "out", other)
    (tmp_path / "out" / "verify.json").write_text("[]")
    with pytest.raises(VsreError, match="not the record of a verification"):
        verify_set(data, tmp_path / "out", Dies(99))


def test_a_broken_verifier_keeps_what_was_seen(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.verify.run._PICTURES", 2)

    class Breaks(Dies):
        def verify_many(self, triplets: Sequence[Triplet]) -> list[Verification]:
            if self.looked_at:
                raise VsreError("the judge's server is gone")
            return super().verify_many(triplets)

    with pytest.raises(VsreError, match="server is gone"):
        verify_set(data, tmp_path / "out", Breaks(99))
    assert len(list(read_verdicts(tmp_path / "out", ["key"]))) == 4


def run(*args: Any) -> Any:
    return CliRunner().invoke(app, ["verify", *map(str, args)], env={"COLUMNS": "120"}, catch_exceptions=False)


def test_the_command_by_known_boxes(data: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.jsonl"
    lines = [
        {"image": f"{name}.png", "boxes": [[c, *b] for c, found in (seen or {}).items() for b, _ in found]}
        for name, seen in SEEN.items()
    ]
    boxes.write_text("\n".join(map(json.dumps, lines)))
    shown = run(data, "--boxes", boxes, "--out", tmp_path / "out", "--json", tmp_path / "out.json")
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "left of 6 2/1 0/1 2/0 0/0 67 [21, 94]" in text and "nothing decided on facing (6)" not in text
    assert json.loads((tmp_path / "out.json").read_text())["figures"]["verdicts"]["pass"] == 3


def test_the_command_with_a_real_class(data: Path, tmp_path: Path, lookers: dict[str, Path]) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"closed: {{model: {lookers['rt']}, present: 0.99, absent: 0.98}}\noffline: true\n")
    shown = run(
        data, "--verifier", config, "--out", tmp_path / "out", "--device", "cpu", "--batch-size", 2, "--limit", 4
    )
    assert shown.exit_code == 0, shown.output
    record = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert record["by"]["closed"]["files"].startswith("sha256:") and record["figures"]["triplets"] == 4
    assert record["figures"]["verdicts"]["missing"] == 4, "no cat at such a threshold, and it knows no dog"
    assert record["figures"]["classes"]["dog"]["unknown"] == 2


def test_presets_are_listed_and_shown(tmp_path: Path) -> None:
    assert "scenes" in run("presets").output
    shown = run("presets", "coco", "--json", tmp_path / "coco.json")
    assert "sources.closed.absent" in shown.output
    assert json.loads((tmp_path / "coco.json").read_text())["closed"]["model"] == "PekingU/rtdetr_v2_r50vd"
    with pytest.raises(VsreError, match="--judge-server needs --judge"):
        run("data", "--out", tmp_path / "out", "--judge-server", "http://localhost:1")


@pytest.mark.skipif(
    not os.environ.get("VSRE_TEST_DATA"), reason="set VSRE_TEST_DATA to a folder with vsr/boxes.jsonl.gz"
)
def test_true_boxes_of_vsr_are_judged_as_the_rules_judge_them(tmp_path: Path) -> None:
    """The chain from triplets to verdicts adds and loses nothing: a perfect detector gives what `judge` gives."""
    from vsre.verify.detectors import KnownBoxes

    vsr = Path(os.environ["VSRE_TEST_DATA"], "vsr")
    rows = list(read_vsr([vsr / "annotations" / "zeroshot" / "dev.jsonl"], split="dev", set_aside=SetAside()))
    objects = read_objects([vsr / "boxes.jsonl.gz"], {t.image_name for t in rows})
    write_triplets(tmp_path / "data", rows)
    verify_set(tmp_path / "data", tmp_path / "out", PictureVerifier(VerifierConfig(), known=KnownBoxes(objects)))
    found = {r["key"]: r["verdict"] for r in read_verdicts(tmp_path / "out")}
    assert len(found) == len({t.key for t in rows}) > 300
    for t in rows:
        subject, object = (objects[t.image_name].only_box(name)[0] for name in (t.subject, t.object))
        assert subject is not None and object is not None
        assert found[t.key] == str(judge(t.relation, subject, object).verdict)
    assert set(found.values()) == {str(v) for v in Verdict}


def test_nothing_to_verify_and_the_same_said_twice(tmp_path: Path) -> None:
    write_triplets(tmp_path / "data", [triplet("p0")])
    with pytest.raises(VsreError, match="no triplets to verify"):
        verify_set(tmp_path / "data", tmp_path / "out", Dies(99), limit=0)
    write_triplets(tmp_path / "twice", [triplet("p0"), triplet("p0", image=png("p0"))])
    once = Dies(99)
    assert verify_set(tmp_path / "twice", tmp_path / "out", once)["figures"]["triplets"] == len(once.looked_at) == 1
