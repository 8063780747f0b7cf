"""The command line: exit codes, tables, JSON, and errors that speak to the person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from vsre import cli
from vsre.cli import app, main
from vsre.cli.output import write_json
from vsre.errors import VsreError
from vsre.model import zoo_names

run = CliRunner()
DATA = os.environ.get("VSRE_TEST_DATA")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "world"
    result = run.invoke(app, ["scenes", str(out), "--train", "6", "--dev", "0", "--test", "3", "--workers", "1"])
    assert result.exit_code == 0, result.output
    return out


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vsre", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_help_names_every_verb() -> None:
    text = run.invoke(app, ["--help"]).output
    verbs = "scenes vsr templates rewrite repaint train ask diagnose report demo run recipes zoo"
    assert all(verb in text for verb in verbs.split())


def test_scenes_are_read_as_vsr_and_rewritten(world: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures" / "vsr.json"
    arguments = ["vsr", str(tmp_path / "data"), "-a", str(world / "annotations" / "caption-disjoint"), "-i"]
    arguments += [str(world / "images"), "--instances", str(world / "instances.json"), "--json", str(figures)]
    result = run.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(figures.read_text())
    assert summary["set_aside"]["rows"] == 0 and summary["splits"]["test"]["triplets"] > 0
    rewrite = ["rewrite", str(tmp_path / "data" / "train"), str(tmp_path / "q"), "--pack", "stage1"]
    result = run.invoke(app, [*rewrite, "--per-triplet", "2"])
    assert result.exit_code == 0, result.output
    n = json.loads((tmp_path / "q" / "rewrite.json").read_text())
    assert n["questions"] == 2 * summary["splits"]["train"]["triplets"]


def test_templates_list_and_check(tmp_path: Path) -> None:
    result = run.invoke(app, ["templates", "--json", str(tmp_path / "packs.json")])
    assert result.exit_code == 0
    sizes = json.loads((tmp_path / "packs.json").read_text())
    assert [sizes[p] for p in ("pool", "diagnosis", "held-out", "stage1", "test-s")] == [50, 69, 12, 10, 1]
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\ntemplates:\n  - {id: a, text: 'What is this?', format: yes-no}\n")
    result = run.invoke(app, ["templates", str(bad)])
    assert isinstance(result.exception, VsreError) and "line 3" in str(result.exception)


def test_bad_input_is_2_and_a_failure_is_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert exit_code(monkeypatch, "vsr", str(tmp_path / "o"), "-a", str(tmp_path)) == 2
    assert exit_code(monkeypatch, "templates", "no-such-pack") == 2
    assert exit_code(monkeypatch, "run", "no-such-recipe", "--out", str(tmp_path / "r")) == 2
    assert exit_code(monkeypatch, "no-such-verb") == 2
    assert exit_code(monkeypatch, "templates") == 0
    # A defect of vsre itself, or of the machine, is told apart from bad input by its exit code.
    program = "import sys; sys.argv = ['vsre', 'templates']; import vsre.rewrite as r, vsre.cli as c\n"
    program += "def broken(*a):\n    raise RuntimeError('boom')\nr.shipped_packs = broken\nc.main()\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "boom" in done.stderr


def test_a_folder_without_config_is_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ("diagnose", str(tmp_path / "empty"), "-t", str(world), "-o", str(tmp_path / "run"))
    assert exit_code(monkeypatch, *arguments) == 2


def test_error_text_is_not_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, "templates", "[bold]odd[/nonsense]") == 2
    assert "[bold]odd[/nonsense]" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "no OUT given"), (("--survey", "-a", "another"), "-a names 2")],
)
def test_vsr_needs_a_folder_or_a_survey_of_one(arguments: tuple[str, ...], says: str) -> None:
    result = run.invoke(app, ["vsr", "-a", "annotations", *arguments])
    assert isinstance(result.exception, VsreError) and says in str(result.exception)


@pytest.mark.parametrize("verb", ["scenes", "layouts"])
def test_sizes_have_bounds(tmp_path: Path, verb: str) -> None:
    arguments = [verb, str(tmp_path / "o"), *(["-a", "a", "--instances", "b"] if verb == "layouts" else [])]
    for size in ("31", "2049"):
        result = run.invoke(app, [*arguments, "--size", size])
        assert result.exit_code == 2 and "32 to 2048" not in result.output, "told before anything is read"


def test_a_stopped_verb_promises_no_more_than_it_keeps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = typer.Typer()

    @stopping.command()
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", stopping)
    monkeypatch.setattr(sys, "argv", ["vsre"])
    assert exit_code(monkeypatch) == 130
    assert capsys.readouterr().err.strip() == "stopped; run the same command again"


def test_figures_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link = tmp_path / "figures.json", tmp_path / "link.json"
    write_json(file, {"n": 1})
    link.symlink_to(file)
    write_json(link, {"n": 2})
    assert link.is_symlink() and json.loads(file.read_text()) == {"n": 2}, "as /dev/stdout is"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(file, {"n": 3})
    assert json.loads(file.read_text()) == {"n": 2}


@pytest.mark.skipif(not DATA, reason="set VSRE_TEST_DATA to a folder with vsr/annotations (published VSR files)")
def test_survey_of_the_published_files(tmp_path: Path) -> None:
    figures = tmp_path / "survey.json"
    annotations = str(Path(str(DATA)) / "vsr" / "annotations")
    result = run.invoke(app, ["vsr", "-a", annotations, "--survey", "--json", str(figures)])
    assert result.exit_code == 0, result.output
    assert "10972" in figures.read_text()


@pytest.mark.parametrize(("seeds", "says"), [("0,x", "whole numbers"), ("3", "two or more"), ("1,1", "different")])
def test_seeds_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, seeds: str, says: str
) -> None:
    assert exit_code(monkeypatch, "run", "smoke", "--out", str(tmp_path / "o"), "--seeds", seeds) == 2
    assert says in "".join(capsys.readouterr())
    assert not (tmp_path / "o").exists()


def test_a_style_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert exit_code(monkeypatch, "scenes", str(tmp_path / "w"), "--test", "1", "--test-style", "noto") == 2
    assert "openmoji" in "".join(capsys.readouterr())


def test_asking_a_picture_at_once(world: Path, tmp_path: Path) -> None:
    picture = sorted((world / "images").iterdir())[0]
    out, page = tmp_path / "answers.json", tmp_path / "page.html"
    asked = ["Is the cat to the left of the dog?", "Do you see a cat or a dog?"]
    result = run.invoke(app, ["ask", "zoo:vsre", str(picture), *asked, "--json", str(out), "--html", str(page)])
    assert result.exit_code == 0, result.output
    first, second = json.loads(out.read_text())
    assert first["statement"] == {"subject": "cat", "relation": "left of", "object": "dog"}
    assert len(first["answers"]) == 50 and {a["text"] for a in first["answers"]} - {""} and 0 < first["p_yes"] < 1
    assert first["says"] is None or 0 < first["agreement"] <= 1
    told = {p["name"]: p for p in first["probes"]}
    assert set(told) == {"blank", "swap", "inverse", "opposite", "negated", "mirror", "mirror-swap"}
    if first["says"] is not None:
        assert told["negated"]["expected"] is not first["says"] and told["mirror-swap"]["expected"] is first["says"]
    assert second["statement"] is None and second["answers"][0]["text"] and second["probes"] == []
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 1 and "http" not in html.split("<main>")[1]
    assert all(
        a["prompt"].split("?")[0] in html for a in first["answers"] if "&" not in a["prompt"] and '"' not in a["prompt"]
    )
    assert "wordings" in result.output


def test_asking_what_is_no_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert exit_code(monkeypatch, "ask", "zoo:vsre", str(tmp_path / "none.jpg"), "Is it?") == 2
    (tmp_path / "odd.jpg").write_text("no picture")
    assert exit_code(monkeypatch, "ask", "zoo:vsre", str(tmp_path / "odd.jpg"), "Is it?") == 2
    assert "odd.jpg" in "".join(capsys.readouterr())


@pytest.mark.skipif("base" not in zoo_names(), reason="the shipped models are not built: vsre zoo train all")
def test_a_model_without_encoders_to_look_into(tmp_path: Path) -> None:
    result = run.invoke(app, ["features", "zoo:base", str(tmp_path / "out")])
    assert "no VSRE model" in str(result.exception) and not (tmp_path / "out").exists()
