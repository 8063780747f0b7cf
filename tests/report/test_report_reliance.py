"""The probes in the report: real samples of scripted models, and the sentences drawn from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fakes import make_triplets

from vsre.diagnose import Prompt, Reply, diagnose
from vsre.report import ReportMeta, ReportRun, write_report
from vsre.report.inputs import Run, open_run
from vsre.report.reliance import likelihood_rows, reliance_line, reliance_rows, reliance_table
from vsre.triplets import write_triplets


class Blind:
    """Says yes to everything but denials, with likelihoods that say no."""

    name, batch_images = "<b>blind</b>", 4

    def settings(self) -> dict[str, str]:
        return {"engine": "blind"}

    def notes(self) -> dict[str, str]:
        return {"way": "scripted"}

    def answer(self, asked: list[tuple[bytes | None, list[Prompt]]]) -> list[list[Reply]]:
        def one(prompt: Prompt) -> Reply:
            return Reply.yes_no(prompt.options[" not " in prompt.text], -3.0, -0.1)

        return [[one(p) for p in prompts] for _, prompts in asked]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("reliance")
    write_triplets(folder / "test", make_triplets(folder / "made", 40))
    diagnose(Blind(), folder / "test", ["test-s", "pool"], folder / "run", probes=40, progress=False)  # type: ignore[arg-type]
    return open_run(ReportRun(name="<b>blind</b>", folder=folder / "run"))


def test_a_blind_model_is_said_not_to_look(run: Run) -> None:
    line = reliance_line(run)
    assert (
        line is not None and "50.0 % of the time with the picture, 50.0 %" in line and "no sign that it looks" in line
    )
    rows = {row["probe"]: row[run.name] for row in reliance_rows([run])}
    assert rows["answers kept without the picture"] == "100.0 [86.1, 100.0], chance 100"
    assert rows["denial: turns"].startswith("100.0 ")
    assert rows["contradiction: a statement and its opposite both affirmed"].startswith("100.0 ")
    assert rows["gained by the picture, over the grey frame"].startswith("+0.0 [")
    table = reliance_table(run)
    assert table is not None and table.row_count == len(rows)


def test_said_and_likelier_stand_side_by_side(run: Run) -> None:
    (row,) = likelihood_rows([run])
    assert row["Test-S, said"] == "50.0" and row["Test-S, likelier"].startswith("50.0 [")
    assert {"Test-G, said", "Test-G, likelier", "Test-G, likelier a token"} <= row.keys()


def test_the_page_says_it_on_its_first_screen(run: Run, tmp_path: Path) -> None:
    html = write_report(tmp_path / "report.html", [run.spec], ReportMeta()).read_text()
    first_screen = html.split('<section id="templates">')[0]
    assert "no sign that it looks" in first_screen and "<b>blind" not in html
    assert "What the answers depend on" in html and "Said, or likelier" in html


def test_without_probes_nothing_is_said(run: Run) -> None:
    metrics = {k: v for k, v in run.metrics.items() if k not in ("picture_reliance", "likelihood")}
    bare = Run(run.spec, metrics)
    assert reliance_line(bare) is None and reliance_rows([bare]) == [] and reliance_table(bare) is None
    assert likelihood_rows([bare]) == []
