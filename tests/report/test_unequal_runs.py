"""Runs that did not answer the same questions: errors on the hard ones make no better model, other tests no other."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from report_fakes import make_run, make_triplets

from vsre.diagnose.metrics import summarise
from vsre.diagnose.samples import SCHEMA, read_samples, sample_files, write_part
from vsre.report.compare import answered_by_all, difference, finding, same_test, steps
from vsre.report.inputs import ReportMeta, ReportRun, Run, open_run
from vsre.report.leaderboard import make_leaderboard
from vsre.report.page import write_report

SMALL = {"pool": 4, "test-s": 1}


def made(root: Path, name: str, *, world: str = "one", skill: float = 1.0, seed: int = 0) -> Path:
    triplets = make_triplets(root / world, 160, seed=len(world))
    folder = make_run(root / name, name, triplets, skill=skill, packs=SMALL, seed=seed)
    settings = {"triplets": f"sha256:{world}", "packs": {pack: pack for pack in SMALL}}
    (folder / "run.json").write_text(json.dumps({"model": name, "settings": settings}))
    return folder


def failing(folder: Path) -> Path:
    """The same run, had it failed at everything that it got wrong in half of the pictures."""
    table = read_samples(folder / "samples")
    half = pc.is_in(table["image_id"], pa.array(sorted(set(table["image_id"].to_pylist()))[::2]))
    failed = pc.and_(half, pc.invert(pc.fill_null(table["correct"], False)))
    rows = table.to_pylist()
    for row, fails in zip(rows, failed.to_pylist(), strict=True):
        if fails:
            row |= {"reading": "error", "correct": None, "error": "out of memory", "p_yes": None}
    for file in sample_files(folder / "samples"):
        file.unlink()
    write_part(folder / "samples", rows)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= summarise(pa.Table.from_pylist(rows, schema=SCHEMA), resamples=100)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def opened(folder: Path) -> Run:
    return open_run(ReportRun(name=folder.name, folder=folder))


def test_what_a_run_failed_at_counts_for_neither(tmp_path: Path) -> None:
    whole, gaps = opened(made(tmp_path, "whole")), opened(failing(made(tmp_path, "gaps")))
    own = [run.estimate("test_g", "acc_t").value or 0 for run in (whole, gaps)]
    assert own[1] > own[0] + 0.05, "on what is left the same model seems better"
    change = difference(whole, gaps, "test_g")
    assert change is not None and change.paired and change.verdict == "same" and abs(change.value) < 1e-9


def test_only_questions_answered_by_all_are_left() -> None:
    def answers(*rows: tuple[str, str, bool | None]) -> pa.Table:
        names = ("key", "template", "correct")
        return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])

    a = answers(("k", "s", True), ("k", "t", None), ("l", "s", False))
    b = answers(("k", "s", False), ("k", "t", True), ("l", "s", None))
    left = [table.to_pylist() for table in answered_by_all([a, b])]
    assert [[(r["key"], r["template"]) for r in rows] for rows in left] == [[("k", "s")], [("k", "s")]]
    assert answered_by_all([a.slice(0, 1), b.slice(0, 1)])[0].equals(a.slice(0, 1))


def test_a_run_with_many_errors_is_not_ranked(tmp_path: Path) -> None:
    runs = [made(tmp_path, "whole"), failing(made(tmp_path, "gaps")), made(tmp_path, "blind", skill=0.0, seed=3)]
    (group,) = make_leaderboard(runs).groups
    assert [(row.run.name, row.rank) for row in group.rows] == [("whole", (1, 1)), ("blind", (2, 2)), ("gaps", None)]
    assert group.rows[-1].why.endswith("% of its answers are errors") and group.how == "paired"


def test_runs_on_other_test_data_are_not_compared(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b", world="other"), made(tmp_path, "c", seed=2)]
    a, b, c = map(opened, runs)
    assert not same_test(a, b) and same_test(a, c)
    assert difference(a, b, "test_g") is None and difference(a, c, "test_g") is not None
    assert steps([a, b])[0]["Test-G"] == "not measured" and " than " not in finding(a, b)
    b.info = {}
    assert same_test(a, b), "a run that does not say is taken at its word"

    def first_screen(*folders: Path) -> str:
        specs = [ReportRun(name=folder.name, folder=folder) for folder in folders]
        return write_report(tmp_path / "report.html", specs, ReportMeta(title="t", question="q")).read_text()

    assert "Different tests.</strong> b was measured" in first_screen(*runs)
    assert "Different tests." not in first_screen(runs[0], runs[2])


@pytest.mark.parametrize("packs", [{"pool": "x", "test-s": "test-s"}, {"pool": "x"}])
def test_other_wordings_are_another_test(tmp_path: Path, packs: dict[str, str]) -> None:
    a, b = (opened(made(tmp_path, name)) for name in ("a", "b"))
    b.info["settings"]["packs"] = packs
    assert not same_test(a, b)
    b.info["settings"]["packs"] = {"test-s": "test-s", "mine": "y"}
    assert same_test(a, b)
