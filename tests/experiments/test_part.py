"""A report on some of an experiment's arms, as while the others are still to be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from experiment_fakes import EXPERIMENT, STAGES, fake_plan, fake_runs
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.experiments.files import load_experiment, plan_experiment
from vsre.experiments.part import part_of
from vsre.experiments.report import write_report
from vsre.experiments.run import read_plan


def test_arms_by_pattern_with_what_belongs_to_them(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    tuned = part_of(plan, "tuned")
    assert [(v, [m.name for m in r.models]) for v, r in tuned.recipes.items()] == [
        ("clean", ["tuned"]),
        ("paper", ["tuned"]),
    ]
    assert [(c.before, c.after) for c in tuned.experiment.compare] == [("clean: tuned", "paper: tuned")]
    assert part_of(plan, "paper: *").recipes.keys() == {"paper"}
    assert part_of(plan, "*") == plan
    with pytest.raises(VsreError, match=r"--only turned: no arm is called so.*clean: plain; clean: tuned"):
        part_of(plan, "turned")


def test_a_part_of_a_fraction_has_no_effects() -> None:
    plan = plan_experiment(load_experiment("gain"))
    part = part_of(plan, "*, rewrite (large)")
    assert len(part.recipes["main"].models) == 15 and len(part.experiment.compare) == len(plan.experiment.compare)
    assert part.experiment.fraction is None and "effects" not in {plot.kind for plot in part.experiment.plots}
    assert part.recipes["main"].data.keys() == {"original-large", "rewritten-large", "general-large"}
    assert part_of(plan, "*").experiment.fraction == plan.experiment.fraction


def test_nothing_is_compared_that_was_not_in_the_whole_plan(tmp_path: Path) -> None:
    """Where an experiment does not say, a model is compared with the one before it and the first."""
    models = [{"name": n, "start": {"use": "merged"}, "stages": STAGES} for n in ("a", "b1", "b2", "b3")]
    plan = fake_plan(
        tmp_path, recipe=EXPERIMENT["recipe"] | {"models": models}, compare=[], plots=[], variants={"main": {}}
    )
    part = part_of(plan, "b[13]")
    assert part.experiment.compare == []
    assert [(c.before, c.after) for c in part_of(plan, "b?").experiment.compare] == [
        ("main: b1", "main: b2"),
        ("main: b2", "main: b3"),
    ]
    fake_runs(plan, tmp_path / "out", statements=30)
    found = write_report(read_plan(tmp_path / "out"), tmp_path / "out", "b[13]")
    assert found["contrasts"] == [] and "Changed after" not in Path(found["file"]).read_text()
    again = write_report(read_plan(tmp_path / "out"), tmp_path / "out", "b[13]*")
    assert again["file"] != found["file"], "patterns of the same letters have folders of their own"


def test_what_belongs_together_is_all_there_or_looked_at_by_itself(tmp_path: Path) -> None:
    plan = plan_experiment(load_experiment("generalisation"))
    some = part_of(plan, "*a[lr]*: tuned").experiment.compare
    assert some and not any(contrast.together for contrast in some)
    every = part_of(plan, "*: tuned").experiment.compare
    assert sum(bool(contrast.together) for contrast in every) == 7


def test_the_report_of_a_part_while_others_are_not_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fake_runs(fake_plan(tmp_path), out, statements=30, without=[("clean", s, "plain") for s in (0, 1)])
    with pytest.raises(VsreError, match="no seed has all"):
        write_report(read_plan(out), out)
    found = write_report(read_plan(out), out, "*: tuned")
    assert [row["arm"] for row in found["arms"]] == ["clean: tuned", "paper: tuned"] and len(found["contrasts"]) == 3
    text = Path(found["file"]).read_text()
    assert (
        "Only arms called `*: tuned`: 4 of 8 runs. What is tested is corrected for this part alone." in text
        and "Changed after" not in text
    )
    rows = pq.read_table(Path(found["file"]).with_name("results.parquet")).to_pylist()
    assert {row["model"] for row in rows} == {"tuned"} and (out / rows[0]["folder"]).is_dir()
    said = CliRunner().invoke(app, ["experiment", "report", str(out), "--only", "paper: tuned"])
    assert said.exit_code == 0 and len([*out.glob("only-paper-tuned-*/arms.png")]) == 1


def test_what_was_said_before_the_first_run_is_held_against_the_same_comparisons(tmp_path: Path) -> None:
    fake_runs(fake_plan(tmp_path), tmp_path / "out", statements=30)
    part = part_of(read_plan(tmp_path / "out"), "tuned")
    assert [c["before"] for c in part.first["compare"]] == ["clean: tuned"]
    odd = replace(read_plan(tmp_path / "out"), first={"compare": [{"before": "a", "after": "a"}]})
    assert part_of(odd, "tuned").first["compare"] == [], "refused by now, so it was changed since"
