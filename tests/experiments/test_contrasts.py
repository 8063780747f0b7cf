"""What is compared with what, on which statements, and how it is tested: on runs that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_fakes import PACKS, fake_plan, fake_runs
from report_fakes import make_run, make_triplets

from vsre.experiments.contrasts import contrasts
from vsre.experiments.part import every, part_of
from vsre.experiments.report import write_report
from vsre.experiments.summary import arms_of
from vsre.experiments.table import open_runs
from vsre.report import ReportRun
from vsre.report.compare import paired_draws
from vsre.report.inputs import open_run
from vsre.report.seeds import TESTED, holm
from vsre.triplets import Triplet, write_triplets


def test_variants_with_other_test_pictures_are_not_paired(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    fake_runs(plan, tmp_path / "out", pictures=lambda variant, seed: seed + 2 * (variant == "paper"))
    found = write_report(plan, tmp_path / "out")
    assert {(r["before"], r["after"]) for r in found["contrasts"]} == {("clean: plain", "clean: tuned")}
    assert len(found["not_compared"]) == 2 * len(TESTED)
    text = (tmp_path / "out" / "report.md").read_text()
    assert (
        "- clean: tuned → paper: tuned, Test-G:" in text and "not the same statements about the same pictures" in text
    )
    sizes = {row["arm"]: row["n"]["statements"] for row in found["arms"]}
    assert sizes["clean: plain"] < sizes["paper: plain"]


def test_a_relation_that_was_not_asked_about_is_said(tmp_path: Path) -> None:
    compare = [{"before": "clean: plain", "after": "paper: tuned", "relations": ["under"]}]
    plan = fake_plan(tmp_path, compare=compare, seeds=[0])
    fake_runs(plan, tmp_path / "out")
    found = write_report(plan, tmp_path / "out")
    assert not found["contrasts"] and "nothing was asked about under" in found["not_compared"][0]


def test_rows_that_the_training_data_hold_and_the_others(tmp_path: Path) -> None:
    """A model that remembers is better on the rows of its training split alone."""
    plan = fake_plan(
        tmp_path,
        compare=[
            {"before": "clean: plain", "after": "paper: tuned", "trained": True},
            {"before": "clean: plain", "after": "paper: tuned", "trained": False},
            {"before": "clean: plain", "after": "clean: tuned", "trained": True},
        ],
    )
    out = tmp_path / "out"
    fake_runs(plan, out, pictures=lambda variant, seed: 0)
    test = make_triplets(out / "sets" / "0", 60, seed=0)
    for seed in (0, 1):  # half of the test under the paper's protocol, none of it under the clean one
        write_triplets(out / "paper" / f"seed-{seed}" / "triplets" / "train", test[:30])
        write_triplets(out / "clean" / f"seed-{seed}" / "triplets" / "train", make_triplets(out / "other", 8, seed=9))
    arms = arms_of(plan, open_runs(plan, out), plan.seeds)
    rows, lacking = contrasts(plan.experiment, arms)
    at = {(r["trained"], r["figure"]): r for r in rows}
    assert len(rows) == 2 * len(TESTED)
    assert all("rows of its training split" in why and "clean: tuned" in why for why in lacking) and len(lacking) == 3
    by_hand = {}
    for trained, some in ((True, test[:30]), (False, test[30:])):
        captions = {(t.image_id, t.caption) for t in some}
        by_hand[trained] = np.mean([_right(arms[3], s, captions) - _right(arms[0], s, captions) for s in (0, 1)])
        assert at[trained, "Test-S"]["value"] == pytest.approx(by_hand[trained])
    assert by_hand[True] != by_hand[False]
    write_report(plan, out)
    text = (out / "report.md").read_text()
    assert "clean: plain → paper: tuned, on rows of its training split" in text and "on other rows" in text


def _right(arm: Any, at: int, captions: set[tuple[str, str]]) -> float:
    """Test-S of an arm's seed on these statements."""
    rows = arm.runs[at].samples(("pack", "image_id", "caption", "correct")).to_pylist()
    asked = [r["correct"] for r in rows if r["pack"] == "test-s" and (r["image_id"], r["caption"]) in captions]
    return float(np.mean([c for c in asked if c is not None]))


def test_comparisons_of_parts_are_made_together(tmp_path: Path) -> None:
    """As one over all their statements, each answered by the arm that its part names."""
    parts = {"left of": "clean: tuned", "on": "paper: tuned"}
    compare = [
        {"before": "clean: plain", "after": after, "relations": [relation], "secondary": True, "together": "either"}
        for relation, after in parts.items()
    ]
    plan = fake_plan(tmp_path, compare=compare, primary=["test_g"])
    out = tmp_path / "out"
    fake_runs(plan, out, pictures=lambda variant, seed: 0)
    rows = [row for row in write_report(plan, out)["contrasts"] if row["figure"] == "Test-S"]
    joined, *single = rows
    assert len(rows) == 3 and joined["after"] == "either" and joined["relations"] == list(parts)
    assert joined["secondary"] is False and all(row["secondary"] for row in single)
    sizes = [row["statements"] for row in single]
    assert joined["statements"] == sum(sizes) and min(sizes) > 0
    for end in ("from", "to", "value"):
        value = [row[end] if end == "value" else row[end]["value"] for row in rows]
        assert value[0] == pytest.approx(np.average(value[1:], weights=sizes)), "one wording, so a share of statements"
    assert joined["value"] == pytest.approx(joined["to"]["value"] - joined["from"]["value"])
    assert "clean: plain → either, on left of, on | Test-G |" in (out / "report.md").read_text()


def test_figures_that_decide_are_corrected_apart(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, primary=["test_g"])
    fake_runs(plan, tmp_path / "out")
    rows = write_report(plan, tmp_path / "out")["contrasts"]
    for family in ({"Test-G"}, {"Test-S", "Unseen"}):
        mine = [row for row in rows if row["figure"] in family]
        assert [row["p_holm"] for row in mine] == pytest.approx(holm([row["p"] for row in mine]))
    assert (
        "the primary rows (Test-G), and separately for the secondary ones"
        in (tmp_path / "out" / "report.md").read_text()
    )


def test_seeds_on_the_same_pictures_are_resampled_together(tmp_path: Path) -> None:
    """Twice the seeds are not twice the pictures: the interval over pictures must not shrink with the seeds."""
    plan = fake_plan(tmp_path, compare=[])
    fake_runs(plan, tmp_path / "out", pictures=lambda variant, seed: 0)
    runs = open_runs(plan, tmp_path / "out")
    arms = arms_of(plan, runs, plan.seeds)
    assert all(arm.same_pictures for arm in arms)
    rows, _ = contrasts(part_of(plan, every(plan)).experiment, arms)
    row = next(r for r in rows if r["after"] == "paper: tuned" and r["figure"] == "Test-G")
    pairs = [(runs["paper"][s][0], runs["paper"][s][1]) for s in (0, 1)]
    together = np.mean([paired_draws(a, b, "test_g", seed=0) for a, b in pairs], axis=0)
    assert row["pictures"] == pytest.approx(np.percentile(together[1:], (2.5, 97.5)))
    write_report(plan, tmp_path / "out")
    assert "All seeds were tested on the same pictures" in (tmp_path / "out" / "report.md").read_text()


def test_all_relations_but_some(tmp_path: Path) -> None:
    """With those left out they make up the whole again."""
    pair = {"before": "clean: plain", "after": "clean: tuned"}
    plan = fake_plan(tmp_path, compare=[pair, pair | {"relations": ["on"]}, pair | {"but": ["on"]}], seeds=[0])
    fake_runs(plan, tmp_path / "out")
    whole, some, others = (r for r in write_report(plan, tmp_path / "out")["contrasts"] if r["figure"] == "Test-S")
    sizes = [some["statements"], others["statements"]]
    assert sum(sizes) == whole["statements"] and min(sizes) > 0
    assert whole["value"] == pytest.approx(np.average([some["value"], others["value"]], weights=sizes))
    assert "clean: plain → clean: tuned, on all but on | Test-S |" in (tmp_path / "out" / "report.md").read_text()


def test_a_part_that_cannot_be_made_leaves_no_whole(tmp_path: Path) -> None:
    parts = {"left of": "clean: tuned", "under": "paper: tuned"}
    compare = [
        {"before": "clean: plain", "after": after, "relations": [relation], "together": "either"}
        for relation, after in parts.items()
    ]
    plan = fake_plan(tmp_path, compare=compare, seeds=[0])
    fake_runs(plan, tmp_path / "out", pictures=lambda variant, seed: 0)
    found = write_report(plan, tmp_path / "out")
    assert {row["after"] for row in found["contrasts"]} == {"clean: tuned"}
    assert len(found["not_compared"]) == len(TESTED)


def test_a_figure_that_one_seed_lacks_is_said(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, compare=[{"before": "clean: plain", "after": "clean: tuned"}])
    out = tmp_path / "out"
    fake_runs(plan, out)
    path = out / "clean" / "seed-1" / "runs" / "tuned" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["test_g"]["acc_t"]["value"] = None
    path.write_text(json.dumps(metrics))
    found = write_report(plan, out)
    assert {row["figure"] for row in found["contrasts"]} == {"Test-S", "Unseen"}
    assert [why for why in found["not_compared"] if why.startswith("clean: plain → clean: tuned, Test-G: ")]


def test_other_statements_about_the_same_pictures_are_not_paired(tmp_path: Path) -> None:
    triplets = make_triplets(tmp_path / "set", 40, seed=0)
    runs = []
    for name, some in (("all", triplets), ("first", _one_a_picture(triplets))):
        make_run(tmp_path / name, name, some, skill=1.0, packs=PACKS)
        runs.append(open_run(ReportRun(name=name, folder=tmp_path / name)))
    assert len({t.image_id for t in triplets}) < len(triplets)
    assert paired_draws(*runs, "test_g") is None and paired_draws(runs[0], runs[0], "test_g") is not None


def _one_a_picture(triplets: list[Triplet]) -> list[Triplet]:
    return [*{t.image_id: t for t in triplets}.values()]


def test_seeds_on_other_pictures_are_resampled_apart(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    fake_runs(plan, tmp_path / "out")
    arm = arms_of(plan, open_runs(plan, tmp_path / "out"), plan.seeds)[0]
    draws = arm.draws("test_g")
    assert draws is not None
    apart = [paired_draws(None, run, "test_g", seed=i) for i, run in enumerate(arm.runs)]
    assert all(np.array_equal(a, b) for a, b in zip(draws, apart, strict=True))
    assert not np.array_equal(draws[1], paired_draws(None, arm.runs[1], "test_g", seed=0))
