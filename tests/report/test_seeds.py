"""Several seeds as one result: means, intervals over seeds and pictures, steps that are tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_fakes import make_run, make_triplets

from vsre.errors import VsreError
from vsre.report import ReportRun, seeds_table, write_seeds
from vsre.report.compare import difference, paired_draws
from vsre.report.inputs import open_run
from vsre.report.seeds import holm, known, over_seeds, pooled, seeds_markdown

SKILLS = {"base": 0.0, "tuned": 2.0, "tuned again": 2.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[ReportRun]]:
    made: dict[int, list[ReportRun]] = {}
    for seed in (0, 1, 2):
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        triplets = make_triplets(folder / "triplets", 80, seed=seed)
        made[seed] = []
        for i, (name, skill) in enumerate(SKILLS.items()):
            make_run(folder / name, name, triplets, skill=skill, seed=10 * seed + i)
            made[seed].append(ReportRun(name=name, folder=folder / name, role="base" if i == 0 else "rung"))
    return made


def test_means_intervals_and_steps(runs: dict[int, list[ReportRun]], tmp_path: Path) -> None:
    result = write_seeds(tmp_path, runs)
    assert json.loads((tmp_path / "seeds.json").read_text()) == result
    base, tuned, _ = result["models"]
    each = [json.loads((r[1].folder / "metrics.json").read_text())["test_g"]["acc_t"]["value"] for r in runs.values()]
    assert tuned["Test-G"]["value"] == pytest.approx(np.mean(each), abs=1e-6)
    assert tuned["Test-G"]["seeds"] == pytest.approx(each, abs=1e-4)
    assert tuned["Test-G"]["low"] < tuned["Test-G"]["value"] < tuned["Test-G"]["high"]
    assert base["Test-G"]["high"] < tuned["Test-G"]["low"]
    steps = {(s["before"], s["after"], s["figure"]): s for s in result["steps"]}
    gain = steps["base", "tuned", "Test-G"]
    pairs = [difference(*map(open_run, r[:2]), "test_g") for r in runs.values()]
    assert gain["value"] == pytest.approx(np.mean([pair.value for pair in pairs if pair]), abs=1e-6)
    # what one of the two has an error to counts for neither
    assert gain["value"] == pytest.approx(tuned["Test-G"]["value"] - base["Test-G"]["value"], abs=1e-3)
    assert gain["p_holm"] < 0.05
    nothing = steps["tuned", "tuned again", "Test-S"]
    assert nothing["low"] < 0 < nothing["high"] and nothing["p_holm"] > 0.05
    assert ("base", "tuned again", "Test-G") in steps, "every model is also held against the first"
    text = seeds_markdown(result)
    assert ", not significant" in text and "| tuned |" in text
    assert seeds_table(result).row_count == 3


def test_a_model_is_compared_with_those_it_names(runs: dict[int, list[ReportRun]], tmp_path: Path) -> None:
    named = {s: [*r[:2], r[2].model_copy(update={"against": ("base",)})] for s, r in runs.items()}
    found = {(s["before"], s["after"]) for s in write_seeds(tmp_path, named)["steps"]}
    assert found == {("base", "tuned"), ("base", "tuned again")}


def test_the_interval_over_seeds_is_a_t_interval() -> None:
    rng = np.random.default_rng(0)
    drawn = [np.concatenate([[m], m + 0.01 * rng.standard_normal(500)]) for m in (0.05, 0.06, 0.07)]
    figure = pooled(drawn)
    # By hand: mean .06, standard deviation .01, t(2) at 97.5 % is 4.3027.
    assert figure["value"] == pytest.approx(0.06)
    assert figure["high"] - 0.06 == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-3)
    assert figure["p"] == pytest.approx(0.0091, abs=2e-4)  # t = 10.39
    half = (figure["pictures"][1] - figure["pictures"][0]) / 2
    assert half == pytest.approx(1.96 * 0.01 / np.sqrt(3), rel=0.15)


def test_seeds_that_agree_exactly_prove_nothing() -> None:
    assert pooled([np.full(11, 0.1), np.full(11, 0.1 + 1e-17)])["p"] == 1.0


def test_noise_between_seeds_is_not_called_significant() -> None:
    """However well each seed was measured: a bootstrap over three seeds would call a quarter of these significant."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(400):
        drawn = [np.concatenate([[m], m + 1e-4 * rng.standard_normal(50)]) for m in 0.03 * rng.standard_normal(3)]
        found += pooled(drawn)["p"] < 0.05
    assert found <= 0.09 * 400


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_other_models_in_another_seed_are_refused(runs: dict[int, list[ReportRun]]) -> None:
    with pytest.raises(VsreError, match="different models"):
        over_seeds({0: runs[0], 1: runs[1][:2]})


def test_the_same_pictures_are_not_more_pictures(runs: dict[int, list[ReportRun]]) -> None:
    """Four seeds that agree on the same pictures know no more of pictures than one does."""
    model = runs[min(runs)][1:2]
    same = over_seeds(dict.fromkeys(range(4), model))["models"][0]["Test-G"]
    one = np.percentile(paired_draws(None, open_run(model[0]), "test_g", seed=0)[1:], (2.5, 97.5))
    assert same["pictures"] == pytest.approx(one)


def test_a_figure_of_errors_alone_is_no_figure() -> None:
    assert known([np.full(5, 0.5), np.full(5, np.nan)]) is None
    assert known([np.full(5, 0.5), None]) is None
    assert known([]) is None
