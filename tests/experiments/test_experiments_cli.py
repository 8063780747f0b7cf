"""vsre experiment ls | show | run | report | query."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from experiment_fakes import fake_plan, fake_runs
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.experiments.files import experiment_names, experiment_text
from vsre.recipes import load_recipe

run = CliRunner()


def said(*arguments: str) -> str:
    result = run.invoke(app, ["experiment", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str) -> str:
    error = run.invoke(app, ["experiment", *arguments]).exception
    assert isinstance(error, VsreError), error
    return str(error)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    plan = fake_plan(folder, seeds=[0])
    fake_runs(plan, folder / "out", statements=40)
    said("report", str(folder / "out"), "--json", str(folder / "found.json"))
    return folder / "out"


def test_ls_names_all_with_their_time(tmp_path: Path) -> None:
    text = said("ls", "--json", str(tmp_path / "ls.json"))
    rows = {row["experiment"]: row for row in json.loads((tmp_path / "ls.json").read_text())}
    assert [*rows] == experiment_names() and all(name in text for name in rows)
    assert rows["gain"]["runs"] == 48 and all(row["seconds"] > 0 for row in rows.values())
    assert rows["gain"]["seconds"] > rows["first"]["seconds"] > rows["sensitivity"]["seconds"]


def test_show_tells_arms_reading_and_time() -> None:
    text = said("show", "first")
    for part in ("Do merged encoders help", "How it is read", "zoo:merged", "repainted", "9 runs (3 seeds), about"):
        assert part in text, part
    assert "[bold]" not in text


def test_show_text_is_the_file_itself() -> None:
    for name in experiment_names():
        assert said("show", name, "--text") == experiment_text(name)[0]


def test_a_plain_recipe_of_a_variant_can_be_run_as_one(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(said("show", "leaks", "--recipe", "paper", "--set", "source.train_units=5"))
    recipe = load_recipe(str(path))
    assert (recipe.protocol, recipe.source.train_units) == ("paper", 5)  # type: ignore[union-attr]
    assert "extends" not in yaml.safe_load(path.read_text())
    assert "Did you mean 'paper'?" in refused("show", "leaks", "--recipe", "papr")


def test_mistakes_are_said() -> None:
    assert "Did you mean 'gain'?" in refused("show", "gian")
    assert "Did you mean 'layouts'?" in refused("ls", "--scale", "layout")
    assert "--seeds 0,x: give whole numbers" in refused("run", "first", "--seeds", "0,x", "-o", "nowhere")
    assert "KEY=VALUE" in refused("show", "first", "--set", "protocol")
    assert "use --seeds" in refused("show", "first", "--set", "seed=99")
    assert "Every variant has protocol" in refused("show", "leaks", "--set", "protocol=clean")


def test_report_prints_arms_and_where_the_rest_is(out: Path, tmp_path: Path) -> None:
    text = said("report", str(out))
    assert "clean: tuned" in text and "Two protocols" in text
    assert "".join(text.split()).endswith("everyfigure")
    found = json.loads((out.parent / "found.json").read_text())
    assert [row["arm"] for row in found["arms"]][:2] == ["clean: plain", "clean: tuned"]
    assert "    vsre experiment run fake.yaml\n" in (out / "report.md").read_text(), "the command that ran it is kept"
    assert "Run `vsre experiment run`" in refused("report", str(tmp_path))


def test_the_table_answers_sql(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    sql = "SELECT count(DISTINCT model) AS models FROM results WHERE figure = 'test_g.acc_t' AND variant = 'paper'"
    assert "models" in said("query", str(out), sql) and "2" in said("query", str(out), sql)
    assert "DuckDB: " in refused("query", str(out), "SELECT nothing FROM results")
    wide = said("query", str(out), "SELECT * FROM results ORDER BY ALL", "--json", str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())
    of_tuned = [row for row in rows if row["model"] == "tuned"]
    assert len(of_tuned) > 100 and wide.count("runs/tuned") == len(of_tuned), "no row is cut"
    assert all(row["folder"] in wide for row in rows) and rows[0].keys() >= {"variant", "figure", "value"}
    assert "Run `vsre experiment report" in refused("query", str(tmp_path), sql)
