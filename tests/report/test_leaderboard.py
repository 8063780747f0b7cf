"""The leaderboard: who is ranked against whom, what is not ranked and why, and a page that is safe to open."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fakes import make_run, make_triplets
from test_report_page import Page
from typer.testing import CliRunner

import vsre
from vsre.cli import app
from vsre.errors import VsreError
from vsre.report.inputs import Estimate
from vsre.report.leaderboard import make_leaderboard, published
from vsre.report.leaderboard_page import rank_text, write_leaderboard
from vsre.report.ranks import apart_by_interval, rank_ranges, told_apart

SMALL = {"pool": 5, "held-out": 2, "test-s": 1}
PACKS = {"test-s": "sha256:s", "pool": "sha256:g", "held-out": "sha256:u"}
NASTY = '<script>alert("x")</script>\u202e\x1b[31m'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two equal models, a good one, and one on other test data."""
    root = tmp_path_factory.mktemp("board")
    for world, models in (("one", {"weak": 0.05, "good": 1.6, "weak2": 0.05}), ("two", {"other": 3.0})):
        triplets = make_triplets(root / world / "data", 160)
        for i, (name, skill) in enumerate(models.items()):
            folder = make_run(root / world / name, name, triplets, skill=skill, packs=SMALL, seed=i)
            settings = {"triplets": f"sha256:{world}", "packs": PACKS, "engine": {"dtype": "float32", "weights": "w"}}
            data = {"triplets": f"/home/me/{world}/triplets/test"}
            record = {"vsre": "0.1.0", "model": f"/home/me/{name}", "settings": settings, "data": data}
            (folder / "run.json").write_text(json.dumps(record))
    return root


@pytest.fixture
def changed(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a run with parts of its record and of its figures replaced."""

    def make(source: str, name: str, info: dict[str, Any] | None = None, metrics: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / name
        shutil.copytree(made / source, folder)
        for file, parts in (("run.json", info), ("metrics.json", metrics)):
            record = json.loads((folder / file).read_text()) | (parts or {})
            (folder / file).write_text(json.dumps(record))
        return folder

    return make


def settings_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "run.json").read_text())["settings"]
    assert isinstance(found, dict)
    return found


# --- ranks


def test_rank_ranges_by_hand() -> None:
    # 0 above 2 and 3; 1 above 3; nothing else is known
    above = np.zeros((4, 4), bool)
    above[0, 2] = above[0, 3] = above[1, 3] = True
    assert rank_ranges(above) == [(1, 2), (1, 3), (2, 4), (3, 4)]


def test_intervals_that_overlap_tell_nothing_apart() -> None:
    figures = [Estimate(0.9, 0.8, 1.0), Estimate(0.7, 0.6, 0.8), Estimate(0.65, 0.6, 0.79), Estimate(0.5)]
    above = apart_by_interval(figures)
    assert above.tolist() == [[False, False, True, False], *[[False] * 4] * 3]


def test_pairs_are_told_apart_on_the_same_resamples() -> None:
    """Two models that move together are told apart by a difference far below their own intervals."""
    rng = np.random.default_rng(0)
    common = 0.05 * rng.standard_normal(1000)
    draws = [0.60 + common, 0.63 + common + 0.002 * rng.standard_normal(1000), 0.63 + 0.05 * rng.standard_normal(1000)]
    above = told_apart(np.array([np.concatenate([[v], d]) for v, d in zip((0.6, 0.63, 0.63), draws, strict=True)]), 80)
    assert above.tolist() == [[False, False, False], [True, False, False], [False, False, False]]
    assert not told_apart(np.full((3, 11), 0.5), 80).any()


def test_equal_models_are_rarely_ranked_apart() -> None:
    """Over all pairs of eight equal models at once; pairs taken one by one would be wrong in half of all boards."""
    rng = np.random.default_rng(1)
    wrong = alone = 0
    for _ in range(200):
        right = (rng.random((8, 60)) < 0.6).astype(float)
        weights = rng.multinomial(60, [1 / 60] * 60, 400) / 60
        draws = np.concatenate([right.mean(1, keepdims=True), right @ weights.T], axis=1)
        wrong += bool(told_apart(draws, 60).any())
        alone += any(told_apart(draws[[i, j]], 60).any() for i in range(8) for j in range(i))
    assert wrong <= 0.09 * 200 and alone > 0.3 * 200


# --- groups and what is set aside


def test_rows_are_ranked_within_their_test_data_alone(made: Path) -> None:
    board = make_leaderboard([made / "one" / "weak", made / "two" / "other", made / "one" / "good", made / "one/weak2"])
    one, two = board.groups
    assert one.rows[0].run.name == "good" and one.how == "paired"
    assert [rank_text(r) for r in one.rows] == ["1", "2–3", "2–3"]
    assert [r.run.name for r in two.rows] == ["other"] and two.rows[0].rank is None
    assert two.rows[0].why == "nothing to rank against" and two.how is None
    assert (one.data, one.source) == ("sha256:one", "one/triplets/test")


def test_ranks_follow_the_figure_asked_for(made: Path) -> None:
    runs = [made / "one" / n for n in ("weak", "good")]
    assert make_leaderboard(runs, by="test_s").groups[0].rows[0].run.name == "good"
    with pytest.raises(VsreError, match="cannot rank by 'mme'"):
        make_leaderboard(runs, by="mme")


def test_other_wordings_of_the_same_data_are_another_group(made: Path, changed: Callable[..., Path]) -> None:
    settings = settings_of(made / "one" / "good")
    other = changed("one/good", "rephrased", {"settings": settings | {"packs": PACKS | {"pool": "sha256:g2"}}})
    fewer = changed("one/good", "fewer", {"settings": settings | {"packs": {"pool": "sha256:g"}}})
    board = make_leaderboard([made / "one" / "weak", other, fewer])
    assert [[r.run.name for r in g.rows] for g in board.groups] == [["fewer", "weak"], ["rephrased"]]


def test_a_leaking_protocol_is_marked_and_not_ranked(made: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    leaky = changed("one/good", "leaky", metrics={"protocol": "paper"})
    board = make_leaderboard([made / "one" / n for n in ("weak", "weak2")] + [leaky])
    (group,) = board.groups
    assert [r.leaks for r in group.rows] == [False, False, True]
    assert group.rows[-1].rank is None and "leaks" in group.rows[-1].why
    assert [rank_text(r) for r in group.rows] == ["1–2", "1–2", "–"]
    first_screen, _, rest = write_leaderboard(tmp_path / "l.html", board).read_text().partition("<main>")
    assert "Leaking protocol:</strong> leaky" in first_screen
    assert "trained under the leaking protocol “paper”" in rest


def test_without_answers_ranks_go_by_intervals(made: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    bare = changed("one/good", "bare")
    shutil.rmtree(bare / "samples")
    board = make_leaderboard([made / "one" / "weak", made / "one" / "weak2", bare])
    assert board.groups[0].how == "intervals"
    assert [rank_text(r) for r in board.groups[0].rows] == ["1", "2–3", "2–3"]
    assert "intervals do not overlap" in write_leaderboard(tmp_path / "l.html", board).read_text()


def test_what_is_no_finished_run_is_set_aside_with_its_reason(
    made: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    unfinished = changed("one/good", "unfinished")
    (unfinished / "metrics.json").unlink()
    no_record = changed("one/good", "no-record")
    (no_record / "run.json").unlink()
    broken = changed("one/good", "broken")
    (broken / "metrics.json").write_text("{")
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    for file in ("run.json", "metrics.json"):
        (unknown / file).write_text(json.dumps({"accuracy": 0.5}))
    (tmp_path / "empty").mkdir()
    mme = changed("one/good", "mme", {"benchmark": "mme"})
    others = changed("one/good", "others", metrics=dict.fromkeys(("test_s", "test_g", "unseen")))
    good = made / "one" / "good"
    wrong = [unfinished, no_record, broken, unknown, tmp_path / "empty", mme, others, tmp_path / "nowhere"]
    board = make_leaderboard([good, good / ".." / "good", *wrong])
    assert [r.run.name for g in board.groups for r in g.rows] == ["good"]
    reasons = dict(board.set_aside)
    expected = {
        "good": "given twice",
        "unfinished": "not finished",
        "no-record": "no run.json",
        "broken": "not readable as JSON",
        "unknown": "an unknown kind of run",
        "empty": "no metrics.json",
        "mme": "a run of the benchmark mme",
        "others": "asked none of the packs test-s, pool, held-out",
        "nowhere": "no such folder",
    }
    assert reasons.keys() == expected.keys()
    assert all(words in reasons[name] for name, words in expected.items())
    page = write_leaderboard(tmp_path / "l.html", board).read_text()
    assert all(words in page for words in expected.values())
    with pytest.raises(VsreError, match=r"None of the folders is a finished run.*\n.*unfinished: not finished"):
        make_leaderboard(wrong)


def test_runs_without_a_fingerprint_are_never_ranked(changed: Callable[..., Path]) -> None:
    board = make_leaderboard([changed("one/good", n, {"settings": s}) for n, s in (("a", {}), ("b", None), ("c", []))])
    assert [len(g.rows) for g in board.groups] == [1, 1, 1]
    assert all(r.rank is None and "does not say on which data" in r.why for g in board.groups for r in g.rows)


# --- published figures


def test_published_figures_are_those_of_the_paper() -> None:
    found = published()
    rows = {(r.model, r.stage_1, r.stage_2): (r.test_g, r.test_s) for t in found.tables for r in t.rows}
    assert len(rows) == 21 and all(r.trained == bool(r.stage_1 or r.stage_2) for t in found.tables for r in t.rows)
    assert rows["LLaVA-1.5 7B", "pre-400k", "turn-g 500k"] == (66.7, 73.5)
    assert rows["LLaVA-1.5 13B", "pre-400k, then turn-s 11k", "turn-g 500k"] == (70.1, 76.6)
    best, base = rows["VSRE 13B, all four encoders", "best data", "best data"], rows["LLaVA-1.5 13B", None, None]
    # the gains the paper's own re-evaluation gives: +11.1 on Test-S, +16.7 on Test-G
    assert (best[1] - base[1], best[0] - base[0]) == pytest.approx((11.1, 16.7))
    assert [b.after - b.before for b in found.benchmarks] == pytest.approx([21.67, 7.2, 8.1])


def test_published_figures_ship_with_the_package() -> None:
    root = Path(vsre.__file__).parent
    assert (root / "report" / "published.yaml").is_file() and (root / "report/templates/leaderboard.html.j2").is_file()
    project = tomllib.loads((root.parents[1] / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/vsre"], "whole folder, YAML too"


# --- the page and the command


def test_the_page_is_whole_and_loads_nothing(made: Path, tmp_path: Path) -> None:
    board = make_leaderboard([made / "one" / n for n in ("weak", "good", "weak2")] + [made / "two" / "other", tmp_path])
    html = write_leaderboard(tmp_path / "deep" / "l.html", board).read_text()
    page = Page(html)
    assert {"published", "aside", "words"} <= page.ids
    assert "script" not in page.tags and "img" not in page.tags and page.links == []
    assert "default-src 'none'" in html and "/home/me" not in html
    assert not list((tmp_path / "deep").glob("*.tmp"))
    for words in ("2–3", "Blind floor", "Yes/no gap", "AUROC", "Consistency", "published, not measured here"):
        assert words in page.text
    assert "not above the blind floor" in page.text and "protocol leaks" in page.text
    good = board.groups[0].rows[0].run
    assert f"{100 * (good.estimate('test_g', 'acc_t').value or 0):.1f}" in page.text
    figures = re.findall(r"<b>([^<]*)</b>", html.partition('<section id="published"')[0])
    assert "79.5" not in figures, "published figures stand apart from measured ones"


def test_text_from_anywhere_is_escaped(made: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    nasty = changed(
        "one/good",
        "<b>x",
        {"model": NASTY, "vsre": NASTY, "finished": NASTY, "engine": {"way": NASTY}, "data": {"triplets": NASTY}},
        {"protocol": NASTY, "warnings": [NASTY], "n_triplets": NASTY, "missing": {"auroc": NASTY}, "auroc": None},
    )
    board = make_leaderboard([nasty, made / "one" / "weak"])
    html = write_leaderboard(tmp_path / "l.html", board, title=NASTY).read_text()
    Page(html)
    assert "<script" not in html and "<b>x" not in html and "\u202e" not in html and "\x1b" not in html


def test_broken_figures_become_dashes(made: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    odd = {"test_s": "x", "templates": "x", "blind_floor": [], "consistency": 3, "auroc": {"value": "x"}, "missing": 1}
    board = make_leaderboard([changed("one/good", "odd", {"engine": "x"}, odd), made / "one" / "weak"])
    Page(write_leaderboard(tmp_path / "l.html", board).read_text())
    assert json.loads(json.dumps(board.as_json(), allow_nan=False))["groups"][0]["rows"][0]["Test-S"]["value"] is None


def test_the_command_writes_page_and_figures(made: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "l.html", tmp_path / "l.json"
    runs = [str(made / "one" / n) for n in ("weak", "good")]
    arguments = ["leaderboard", *runs, str(tmp_path), "--out", str(page), "--json", str(figures), "--title", "Ours"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for words in ("good", "Test-G", "set aside", "Ranked by Test-G", "not above the blind floor"):
        assert words in result.output
    assert "<h1>Ours</h1>" in page.read_text()
    found = json.loads(figures.read_text())
    assert [r["rank"] for r in found["groups"][0]["rows"]] == [[1, 1], [2, 2]]
    assert found["groups"][0]["ranked_by"] == "paired" and found["published"]["id"] == "arXiv 2412.18224"
    assert found["groups"][0]["rows"][0]["n_triplets"] == 160
