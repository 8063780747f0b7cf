"""A report on some of an experiment's arms, as while the others are still to be run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from experiment_fakes import EXPERIMENT, STAGES, fake_plan, fake_runs, fraction_plan
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.experiments.design import told_apart
from vsre.experiments.files import load_experiment, plan_experiment
from vsre.experiments.part import named, part_of
from vsre.experiments.report import write_report
from vsre.experiments.run import read_plan


def test_arms_by_pattern_with_what_belongs_to_them(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    tuned = part_of(plan, named(plan, "tuned"))
    assert [(v, [m.name for m in r.models]) for v, r in tuned.recipes.items()] == [
        ("clean", ["tuned"]),
        ("paper", ["tuned"]),
    ]
    assert [(c.before, c.after) for c in tuned.experiment.compare] == [("clean: tuned", "paper: tuned")]
    assert part_of(plan, named(plan, "paper: *")).recipes.keys() == {"paper"}
    assert part_of(plan, named(plan, "*")) == plan
    with pytest.raises(VsreError, match=r"--only turned: no arm has this name.*clean: plain; clean: tuned"):
        part_of(plan, named(plan, "turned"))


def test_a_part_of_a_fraction_has_the_effects_that_its_arms_can_tell() -> None:
    plan = plan_experiment(load_experiment("gain"))
    part = part_of(plan, named(plan, "*, rewrite (large)"))
    assert len(part.recipes["main"].models) == 15 and len(part.experiment.compare) == len(plan.experiment.compare)
    encoders = ["clip", "siglip", "dinov2", "sam"]
    pairs = [" x ".join(pair) for pair in itertools.combinations(encoders, 2)]
    assert part.experiment.fraction is not None and part.experiment.fraction.effects == [*encoders, *pairs]
    assert part.recipes["main"].data.keys() == {"original-large", "rewritten-large", "general-large"}
    two = part_of(plan, named(plan, "*clip, rewrite (large)")).experiment
    assert two.fraction is None and "effects" not in {plot.kind for plot in two.plots}
    assert part_of(plan, named(plan, "*")).experiment.fraction == plan.experiment.fraction


def test_arms_that_differ_in_a_factor_of_no_effect() -> None:
    """An arm of the experiment's own beside those of its fraction may lack what the others have more."""
    runs = [{"a": a, "b": b} for a in (0, 1) for b in (0, 1)] * 2
    assert told_apart([{"extra": 1, **runs[0]}, *runs[1:]], ["a", "b"]) == ["a", "b"]


def test_nothing_is_compared_that_was_not_in_the_whole_plan(tmp_path: Path) -> None:
    """Where an experiment does not say, a model is compared with the one before it and the first."""
    models = [{"name": n, "start": {"use": "merged"}, "stages": STAGES} for n in ("a", "b1", "b2", "b3")]
    plan = fake_plan(
        tmp_path, recipe=EXPERIMENT["recipe"] | {"models": models}, compare=[], plots=[], variants={"main": {}}
    )
    part = part_of(plan, named(plan, "b[13]"))
    assert part.experiment.compare == []
    assert [(c.before, c.after) for c in part_of(plan, named(plan, "b?")).experiment.compare] == [
        ("main: b1", "main: b2"),
        ("main: b2", "main: b3"),
    ]
    out = tmp_path / "some"
    fake_runs(plan, out, statements=30, without=[("main", s, "b1") for s in plan.seeds])
    found = write_report(read_plan(out), out, so_far=True)
    assert {(row["before"], row["after"]) for row in found["contrasts"]} == {("a", "b2"), ("b2", "b3"), ("a", "b3")}
    assert write_report(read_plan(out), out, "b[13]", so_far=True)["contrasts"] == []
    assert "Changed after" not in Path(found["file"]).read_text()
    fake_runs(plan, tmp_path / "out", statements=30)
    found = write_report(read_plan(tmp_path / "out"), tmp_path / "out", "b[13]")
    assert found["contrasts"] == [] and "Changed after" not in Path(found["file"]).read_text()
    again = write_report(read_plan(tmp_path / "out"), tmp_path / "out", "b[13]*")
    assert again["file"] != found["file"], "patterns of the same letters have folders of their own"


def test_what_belongs_together_is_all_there_or_looked_at_by_itself(tmp_path: Path) -> None:
    plan = plan_experiment(load_experiment("generalisation"))
    some = part_of(plan, named(plan, "*a[lr]*: tuned")).experiment.compare
    assert some and not any(contrast.together for contrast in some)
    every = part_of(plan, named(plan, "*: tuned")).experiment.compare
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
        "Only arms called `*: tuned`: 4 of 8 runs. Tests are corrected within this part only." in text
        and "Changed after" not in text
    )
    assert found["effects_left_out"] == []
    rows = pq.read_table(Path(found["file"]).with_name("results.parquet")).to_pylist()
    assert {row["model"] for row in rows} == {"tuned"} and (out / rows[0]["folder"]).is_dir()
    said = CliRunner().invoke(app, ["experiment", "report", str(out), "--only", "paper: tuned"])
    assert said.exit_code == 0 and len([*out.glob("only-paper-tuned-*/arms.png")]) == 1


def test_what_was_said_before_the_first_run_is_held_against_the_same_comparisons(tmp_path: Path) -> None:
    fake_runs(fake_plan(tmp_path), tmp_path / "out", statements=30)
    plan = read_plan(tmp_path / "out")
    part = part_of(plan, named(plan, "tuned"))
    assert [c["before"] for c in part.first["compare"]] == ["clean: tuned"]
    odd = replace(read_plan(tmp_path / "out"), first={"compare": [{"before": "a", "after": "a"}]})
    assert part_of(odd, named(odd, "tuned")).first["compare"] == [], "refused by now, so it was changed since"


def test_the_report_of_what_is_done_so_far(tmp_path: Path) -> None:
    """Of the seed that has most arms, and of others that have them too."""
    out = tmp_path / "out"
    plan = fake_plan(tmp_path)
    fake_runs(plan, out, statements=30, without=[("clean", 0, "plain"), ("paper", 1, "plain"), ("paper", 1, "tuned")])
    found = write_report(read_plan(out), out, so_far=True)
    assert [row["arm"] for row in found["arms"]] == ["clean: tuned", "paper: plain", "paper: tuned"]
    assert found["seeds"] == [0] and found["left_out"] == [1]
    text = (out / "so-far" / "report.md").read_text()
    assert found["file"] == str(out / "so-far" / "report.md") and "Changed after" not in text
    assert "Only arms that are done: 3 of 8 runs." in text and "Seeds without all runs are left out: 1." in text
    said = CliRunner().invoke(app, ["experiment", "report", str(out), "--so-far"])
    assert said.exit_code == 0 and "so-far/report.md" in "".join(said.output.split())
    both = write_report(read_plan(out), out, "*: tuned", so_far=True)
    assert [row["arm"] for row in both["arms"]] == ["clean: tuned", "paper: tuned"] and "only-" in both["file"]
    assert "Only arms called `*: tuned` that are done: 2 of 8 runs." in Path(both["file"]).read_text()


def test_nothing_is_done_so_far(tmp_path: Path) -> None:
    plan, every = (
        fake_plan(tmp_path),
        [(v, s, m) for v in ("clean", "paper") for s in (0, 1) for m in ("plain", "tuned")],
    )
    fake_runs(plan, tmp_path / "out", statements=30, without=every)
    with pytest.raises(VsreError, match="--so-far: no run is done yet"):
        write_report(read_plan(tmp_path / "out"), tmp_path / "out", so_far=True)


def test_main_effects_alone_while_a_fraction_is_under_way(tmp_path: Path) -> None:
    """What is left out is named: it comes back in the others."""
    plot = {"kind": "effects", "name": "effects", "title": "Effects", "y": ["test_g.acc_t"]}
    plan = fraction_plan(tmp_path, [0], plots=[plot])
    names = [model.name for model in plan.recipes["main"].models]
    out = tmp_path / "out"
    fake_runs(plan, out, statements=30, without=[("main", 0, name) for name in names[1::2]])
    found = write_report(read_plan(out), out, so_far=True)
    assert [row["effect"] for row in found["effects"] if row["figure"] == "Test-G"] == ["a", "b"]
    assert found["effects_left_out"] == ["a x b"] and (out / "so-far" / "effects.png").is_file()
    assert "**Not estimable from these arms: a x b.** What" in Path(found["file"]).read_text()
