"""From run folders to one table, tests and pages: on runs that are made up, so that what must come out is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from experiment_fakes import EXPERIMENT, PACKS, STAGES, fake_plan, fake_runs, fraction_plan
from PIL import Image
from report_fakes import make_run, make_triplets

from vsre.errors import VsreError
from vsre.experiments.report import write_report
from vsre.experiments.run import _claim, read_plan
from vsre.experiments.summary import arms_of
from vsre.experiments.table import open_runs
from vsre.report.compare import blind_floor
from vsre.report.seeds import TESTED, holm
from vsre.triplets import write_triplets


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    fake_runs(fake_plan(folder), folder / "out", statements=90)
    return folder / "out"


@pytest.fixture(scope="module")
def found(out: Path) -> dict[str, Any]:
    return write_report(read_plan(out), out)


def metrics(out: Path, variant: str, seed: int, model: str) -> dict[str, Any]:
    return dict(json.loads((out / variant / f"seed-{seed}" / "runs" / model / "metrics.json").read_text()))


def test_the_table_has_every_figure_of_every_run(out: Path, found: dict[str, Any]) -> None:
    table = pq.read_table(out / "results.parquet")
    assert table.column_names == [
        *("variant", "seed", "model", "role", "factor_kind", "factor_steps"),
        *("figure", "value", "low", "high", "n", "folder"),
    ]
    rows = table.to_pylist()
    assert len({(r["variant"], r["seed"], r["model"]) for r in rows}) == 8
    assert len({(r["folder"], r["figure"]) for r in rows}) == len(rows), "a figure once a run"
    at = {(r["variant"], r["seed"], r["model"], r["figure"]): r for r in rows}
    row = at["paper", 1, "tuned", "test_g.acc_t"]
    figure = metrics(out, "paper", 1, "tuned")["test_g"]["acc_t"]
    assert {k: row[k] for k in ("value", "low", "high", "n")} == {k: figure[k] for k in ("value", "low", "high", "n")}
    assert (row["factor_steps"], row["factor_kind"], row["folder"]) == (9.0, "b", "paper/seed-1/runs/tuned")
    assert at["clean", 0, "plain", "cost.ms_image"]["value"] == 12.5
    wordings = [at["clean", 0, "tuned", f"template.pool.pool-0{n}"]["value"] for n in (1, 2, 3)]
    assert np.mean(wordings) == pytest.approx(at["clean", 0, "tuned", "test_g.acc_t"]["value"])


def test_contrasts_are_paired_by_picture_and_tested_over_seeds(out: Path, found: dict[str, Any]) -> None:
    assert len(found["contrasts"]) == 3 * len(TESTED) and not found["not_compared"]
    by = {(r["before"], r["after"], r["figure"]): r for r in found["contrasts"]}
    row = by["clean: tuned", "paper: tuned", "Test-G"]
    each = [
        metrics(out, "paper", s, "tuned")["test_g"]["acc_t"]["value"]
        - metrics(out, "clean", s, "tuned")["test_g"]["acc_t"]["value"]
        for s in (0, 1)
    ]
    assert row["seeds"] == pytest.approx(each, abs=1e-4) and row["value"] == pytest.approx(np.mean(each))
    half = 12.7062 * abs(each[0] - each[1]) / 2  # t(1) at 97.5 %, times the standard error of two
    assert row["high"] - row["value"] == pytest.approx(half, rel=1e-4)
    # The runs of a seed share what is hard about its statements, so their difference is known better than either.
    arms = {row["arm"]: row for row in found["arms"]}
    width = row["pictures"][1] - row["pictures"][0]
    apart = [np.ptp(arms[name]["Test-G"]["pictures"]) for name in ("clean: tuned", "paper: tuned")]
    assert width < np.hypot(*apart)
    ps = sorted(r["p"] for r in found["contrasts"])
    smallest = min(found["contrasts"], key=lambda r: r["p"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, len(ps) * ps[0])), "Holm's over all rows"


def test_a_contrast_may_be_of_some_relations(out: Path, found: dict[str, Any]) -> None:
    row = next(r for r in found["contrasts"] if r["relations"] and r["figure"] == "Test-S")
    runs = open_runs(read_plan(out), out)
    rights = []
    for variant, at in (("clean", 0), ("paper", 1)):
        table = runs[variant][0][at].samples(("pack", "relation", "correct"))
        assert table is not None
        rights.append([r["correct"] for r in table.to_pylist() if r["pack"] == "test-s" and r["relation"] == "left of"])
    means = [np.mean([v for v in right if v is not None]) for right in rights]
    assert row["seeds"][0] == pytest.approx(means[1] - means[0], abs=1e-4)


def test_the_page_says_all_of_it(out: Path, found: dict[str, Any]) -> None:
    text = (out / "report.md").read_text()
    assert text.startswith("# Two protocols\n\nDoes it | matter?\n\n    vsre experiment run fake.yaml\n")
    for part in (
        "## Results",
        "## Differences",
        "## Cost",
        "## By relation",
        "Means of 2 seeds",
        "Blind floor (all; the best",
    ):
        assert part in text, part
    assert "clean: plain → paper: tuned, on left of" in text and "| 0.50 |" in text and text.endswith("- A note.\n")
    assert "All seeds were tested on the same pictures" not in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    for plot in EXPERIMENT["plots"]:
        assert f"![{plot['title']}]({plot['name']}.png)" in text
        with Image.open(out / f"{plot['name']}.png") as image:
            assert image.format == "PNG" and image.width > 600


def test_one_seed_has_intervals_over_pictures_and_no_p(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, seeds=[3], compare=[])
    fake_runs(plan, tmp_path / "out")
    found = write_report(plan, tmp_path / "out")
    assert {(r["before"], r["after"]) for r in found["contrasts"]} == {
        ("clean: plain", "clean: tuned"),
        ("paper: plain", "paper: tuned"),
    }
    for row in found["contrasts"]:
        assert row["p"] is row["p_holm"] is row["low"] is None
        assert row["pictures"][0] < row["value"] < row["pictures"][1]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "One seed: nothing is known of how seeds differ" in text and "p (Holm)" not in text
    json.dumps(found)


def test_a_seed_that_lacks_a_run_is_left_out_and_named(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    out = tmp_path / "out"
    fake_runs(plan, out, without={("paper", 0, "tuned")})
    found = write_report(plan, out)
    assert (found["seeds"], found["left_out"]) == ([1], [0])
    g = metrics(out, "clean", 1, "plain")["test_g"]["acc_t"]["value"]
    assert found["arms"][0]["Test-G"]["value"] == pytest.approx(g)
    assert "Seeds without all runs are left out: 0." in (out / "report.md").read_text()
    assert len({row["seed"] for row in pq.read_table(out / "results.parquet").to_pylist()}) == 2, "but the table has it"
    (out / "clean" / "seed-1" / "runs" / "plain" / "cost" / "step.json").unlink()
    with pytest.raises(VsreError, match="6 of 8 runs are done, and no seed has all"):
        write_report(plan, out)


def test_what_was_trained_on_is_counted(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, seeds=[0])
    out = tmp_path / "out"
    fake_runs(plan, out)
    assert write_report(plan, out)["data"] == [], "the data may have been taken away"
    test = make_triplets(out / "some", 12, seed=5)
    for variant, rows in (("clean", test[:8]), ("paper", test)):
        folder = out / variant / "seed-0"
        write_triplets(folder / "triplets" / "train", rows)
        step = folder / "data" / "original" / "questions" / "step.json"
        step.parent.mkdir(parents=True)
        step.write_text(json.dumps({"settings": {}, "seconds": 0, "summary": {"questions": 3 * len(rows)}}))
    clean, paper = write_report(plan, out)["data"]
    assert (clean["variants"], clean["statements"], clean["questions"]) == (["clean"], 8, 24)
    assert paper["pictures"] == len({t.image_id for t in test})
    assert paper["true"] == pytest.approx(np.mean([t.label for t in test]))
    assert "| original | paper |" in (out / "report.md").read_text()


def test_what_was_changed_after_the_first_run_is_said(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    out = tmp_path / "out"
    _claim(plan, out)
    _claim(fake_plan(tmp_path, reading="Nothing is there yet."), out)
    fake_runs(fake_plan(tmp_path, reading="Nothing is there yet."), out)
    write_report(read_plan(out), out)
    assert "Changed after" not in (out / "report.md").read_text()
    _claim(fake_plan(tmp_path, reading="It was clear all along.", primary=["test_s"]), out)
    write_report(read_plan(out), out)
    text = (out / "report.md").read_text()
    assert "written before it was run: Nothing is there yet." in text
    assert "**Changed after the first run: reading, primary.**" in text
    assert "How it is read now: It was clear all along." in text


def test_seeds_of_models_that_are_not_trained_are_one_on_the_same_pictures(tmp_path: Path) -> None:
    models = [{"name": name, "start": {"use": "merged"}} for name in ("plain", "tuned")]
    plan = fake_plan(tmp_path, recipe={"data": {}, "models": models}, plots=[])
    same = tmp_path / "same"
    fake_runs(plan, same, pictures=lambda variant, seed: 0)
    found = write_report(plan, same)
    assert (
        found["seeds"] == [0] and found["one"] == [1] and not found["left_out"] and found["contrasts"][0]["p"] is None
    )
    text = (same / "report.md").read_text()
    assert "Other seeds run the same models on the same pictures and are left out: 1." in text
    fake_runs(plan, tmp_path / "drawn")
    assert write_report(plan, tmp_path / "drawn")["seeds"] == [0, 1]
    assert "seeds differ only in their test pictures" in (tmp_path / "drawn" / "report.md").read_text()


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_fraction_tells_what_each_factor_adds(tmp_path: Path, seeds: list[int]) -> None:
    plan = fraction_plan(tmp_path, seeds)
    out = tmp_path / "out"
    fake_runs(plan, out, skill=lambda variant, model: 1.5 * model.factors["a"], statements=120)
    found = write_report(plan, out)
    by = {(r["effect"], r["figure"]): r for r in found["effects"]}
    assert len(by) == 3 * len(TESTED) and not found["contrasts"]
    row, nothing = by["a", "Test-G"], by["b", "Test-G"]
    assert row["p_holm"] < 0.05 < nothing["p"] and row["low"] > 0 > nothing["low"]
    assert row["pictures"][0] > 0.1
    arms = {arm["arm"]: arm["Test-G"]["value"] for arm in found["arms"]}
    on, off = ([v for name, v in arms.items() if name.startswith(f"a{at}")] for at in (1, 0))
    assert len(on) == len(off) == 4 and row["value"] == pytest.approx(np.mean(on) - np.mean(off))
    assert row["degrees"] == 8 - 4, "a seed more is no arm more"
    assert len(row["seeds"]) == len(seeds) and np.mean(row["seeds"]) == pytest.approx(row["value"], abs=1e-4)
    families = {True: ["a", "b"], False: ["a x b"]}
    for primary, names in families.items():
        some = [r for r in found["effects"] if r["primary"] is primary]
        assert [*dict.fromkeys(r["effect"] for r in some)] == names, "interactions are secondary"
        assert [r["p_holm"] for r in some] == pytest.approx(holm([r["p"] for r in some]))
    text = (out / "report.md").read_text()
    assert "## Effects" in text and "| a x b | Test-G |" in text and "8 arms" in text
    assert ("each the mean of 2 seeds" in text) == ("p (Holm) | each seed |" in text) == (len(seeds) == 2)


def test_further_sets_and_what_answers_hang_on(tmp_path: Path) -> None:

    recipe = {**EXPERIMENT["recipe"], "diagnose": {"also": {"crowds": {"objects": [5, 5]}}}}
    plan = fake_plan(tmp_path, recipe=recipe, seeds=[0], compare=[])
    out = tmp_path / "out"
    fake_runs(plan, out)
    others = make_triplets(out / "sets" / "crowds", 50, seed=9)
    for run in out.glob("*/seed-0/runs/*"):
        make_run(run / "also" / "crowds", run.name, others, skill=0.0, packs={"pool": 3}, seed=5)
        found = json.loads((run / "metrics.json").read_text())
        found["blank"] = {"acc_t": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}}
        found["picture_reliance"] = {"acc_t": {"blank": {"value": 0.45, "low": 0.4, "high": 0.6, "n": 10}}}
        (run / "metrics.json").write_text(json.dumps(found))
    result = write_report(plan, out)
    also = {row["arm"]: row for row in result["also"]}
    own = {row["arm"]: row["Test-G"]["value"] for row in result["arms"]}
    row = also["clean: tuned"]
    assert row["set"] == "crowds" and row["n"]["pictures"] == 25
    assert row["above"]["value"] == pytest.approx(row["figure"]["value"] - own["clean: tuned"])
    assert row["above"]["pictures"][1] < 0, "it was made to know nothing of them"
    figures = {r["figure"] for r in pq.read_table(out / "results.parquet").to_pylist()}
    assert {"also.crowds.test_g.acc_t", "picture_reliance.acc_t.blank"} <= figures
    assert {row["arm"]: row["grey frame"]["value"] for row in result["looks"]} == dict.fromkeys(own, 0.45)
    text = (out / "report.md").read_text()
    assert "## Further test sets" in text and "## Wording and picture" in text


def test_all_right_is_not_known_for_certain(tmp_path: Path) -> None:
    """Resamples of answers that are all right see no doubt; so few pictures do not prove that much."""
    plan = fake_plan(tmp_path, seeds=[0])
    out = tmp_path / "out"
    fake_runs(plan, out, skill=lambda variant, model: 99.0 if model.name == "tuned" else 0.0)
    found = write_report(plan, out)
    sure = {row["arm"]: row["Test-S"] for row in found["arms"]}["clean: tuned"]
    images = len({t.image_id for t in make_triplets(tmp_path / "again", 60, seed=0)})
    low = 0.05 ** (1 / images)
    assert sure["value"] == 1 and sure["pictures"] == pytest.approx([low, 1.0])
    row = next(r for r in found["contrasts"] if r["after"] == "clean: tuned" and r["figure"] == "Test-S")
    assert row["to"]["pictures"] == pytest.approx([low, 1.0])


def test_comparisons_and_effects_are_corrected_together(tmp_path: Path) -> None:
    plan = fraction_plan(tmp_path, [0, 1], primary=["test_g"])
    first, second = (f"main: {model.name}" for model in plan.recipes["main"].models[:2])
    plan = fraction_plan(tmp_path, [0, 1], primary=["test_g"], compare=[{"before": first, "after": second}])
    fake_runs(plan, tmp_path / "out")
    found = write_report(plan, tmp_path / "out")
    rows = [*found["contrasts"], *found["effects"]]
    for primary in (True, False):
        mine = [row for row in rows if row["primary"] is primary]
        assert len(mine) > 1 and [row["p_holm"] for row in mine] == pytest.approx(holm([row["p"] for row in mine]))


def test_plots_without_their_figures_are_named(tmp_path: Path) -> None:
    plots = [{"kind": "dots", "name": "typo", "title": "A", "y": ["test_g.acct"]}]
    fake_runs(plan := fake_plan(tmp_path, plots=plots, seeds=[0]), tmp_path / "out")
    write_report(plan, tmp_path / "out")
    assert "Not drawn, as these runs lack the figures: typo." in (tmp_path / "out" / "report.md").read_text()


def test_what_stands_in_the_tables_is_counted_by_hand(tmp_path: Path) -> None:
    """Relations and floors, what is not significant, both ends of a difference, and the first beside the one before."""
    models = [{"name": n, "start": {"use": "merged"}, "stages": STAGES} for n in ("plain", "same", "tuned")]
    recipe = {"data": {"original": {"pack": "test-s"}}, "models": models}
    plan = fake_plan(tmp_path, recipe=recipe, variants={"main": {}}, compare=[], plots=[])
    out = tmp_path / "out"
    fake_runs(plan, out, skill=lambda variant, model: 2.0 * (model.name == "tuned"), statements=200)
    found = write_report(plan, out)
    pairs = {(row["before"], row["after"]) for row in found["contrasts"]}
    assert pairs == {("plain", "same"), ("same", "tuned"), ("plain", "tuned")}
    arms = arms_of(plan, open_runs(plan, out), plan.seeds)
    rows = arms[2].runs[0].samples(("pack", "relation", "correct")).to_pylist()
    rows += arms[2].runs[1].samples(("pack", "relation", "correct")).to_pylist()
    for row in found["relations"]:
        asked = [r["correct"] for r in rows if r["pack"] == "pool" and r["relation"] == row["relation"]]
        assert row["statements"] == round(len(asked) / PACKS["pool"] / len(plan.seeds)), "of a seed"
        assert row["tuned"] == pytest.approx(np.mean([c for c in asked if c is not None]), abs=0.03), "mean of seeds"
    assert found["relations"]
    for row in found["contrasts"]:
        ends = {end: row[end] for end in ("from", "to")}
        of = {arm["arm"]: arm[row["figure"]] for arm in found["arms"]}
        # as in the table of arms, but for what the other of the two has an error to
        assert ends["from"]["value"] == pytest.approx(of[row["before"]]["value"], abs=2e-3)
        assert ends["to"]["pictures"] == pytest.approx(of[row["after"]]["pictures"], abs=1e-2)
    lines = (out / "report.md").read_text().splitlines()
    same = next(line for line in lines if line.startswith("| plain → same | Test-G"))
    assert "not significant" in same
    floors = [blind_floor(run)[1].value for run in arms[0].runs]
    assert found["floors"][0]["seeds"] == floors and found["floors"][0]["value"] == pytest.approx(np.mean(floors))
