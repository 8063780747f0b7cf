"""Two runs compared: the join, the figures, and folders that cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fakes import make_run, make_triplets
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from vsre.cli import app
from vsre.diagnose.samples import read_samples
from vsre.errors import VsreError
from vsre.report import ReportRun
from vsre.report.compare import difference
from vsre.report.inputs import open_run
from vsre.report.paired import compare_runs
from vsre.report.paired_tests import mcnemar
from vsre.report.paired_text import comparison_markdown, found

SMALL = {"phase1": 2, "pool": 4, "held-out": 2, "test-s": 1}
INFO = {"vsre": "0.1.0", "settings": {"triplets": "sha256:data", "packs": {"pool": "sha256:pool"}, "engine": {}}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paired")
    triplets = make_triplets(root / "data", 160)
    for i, (name, skill) in enumerate((("base", 0.1), ("expert", 1.6), ("twin", 0.1))):
        make_run(root / name, name, triplets, skill=skill, packs=SMALL, seed=i)
        (root / name / "run.json").write_text(json.dumps({"model": name, **INFO}))
    return root


@pytest.fixture
def changed(runs: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a run whose samples or record a function has changed."""

    def make(
        name: str = "base",
        rows: Callable[[pa.Table], pa.Table] = lambda table: table,
        info: dict[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / f"{name}-changed"
        shutil.copytree(runs / name, folder)
        (file,) = (folder / "samples").glob("*.parquet")
        pq.write_table(rows(pq.read_table(file)), file)
        record = json.loads((folder / "run.json").read_text()) | (info or {})
        (folder / "run.json").write_text(json.dumps(record))
        return folder

    return make


def by_question(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = read_samples(folder / "samples").to_pylist()
    return {(r["pack"], r["template"], r["key"]): r for r in rows if r["reading"] != "error"}


def test_figures_are_those_of_a_count_by_hand(runs: Path) -> None:
    c = compare_runs(runs / "base", runs / "expert")
    a, b = by_question(runs / "base"), by_question(runs / "expert")
    shared = sorted(a.keys() & b.keys())
    assert c.questions == len(shared) and c.left_out["both"] == {
        "ended in an error": len(read_samples(runs / "base" / "samples")) - len(shared)
    }
    assert [r.name for r in c.tables["overall"]] == ["Test-S", "Test-G", "Unseen", "phase1"]
    for row in c.tables["overall"]:
        by_template: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        for q in shared:
            if q[0] == row.pack:
                by_template[q[1]].append((a[q]["correct"], b[q]["correct"]))
        means = [np.mean(pairs, axis=0) for pairs in by_template.values()]
        assert (row.a, row.b) == pytest.approx(tuple(np.mean(means, axis=0)), abs=1e-6)
        flips = [pair for pairs in by_template.values() for pair in pairs]
        assert (row.a_only, row.b_only) == (sum(x and not y for x, y in flips), sum(y and not x for x, y in flips))
        assert row.questions == len(flips) and row.verdict == "B higher"
        assert row.low is not None and row.low <= row.difference <= (row.high or 0)
    # the tables by group are Test-G taken apart: the pool's questions alone
    assert c.grouped_over == "pool"
    for relation in c.tables["relation"]:
        pairs = [
            (a[q]["correct"], b[q]["correct"]) for q in shared if q[0] == "pool" and a[q]["relation"] == relation.name
        ]
        assert (relation.a, relation.b) == pytest.approx(tuple(np.mean(pairs, axis=0)), abs=1e-6)
    assert sum(r.questions for r in c.tables["relation"]) == sum(q[0] == "pool" for q in shared)
    assert len(c.tables["template"]) == sum(SMALL.values())
    for row in c.tables["template"]:
        assert (row.mcnemar, row.mcnemar_mid) == pytest.approx(mcnemar(row.a_only, row.b_only)[2:])
    assert all(r.mcnemar is None for r in c.tables["relation"]), "a statement in many wordings is no row of McNemar's"
    agreement = c.agreement[0]
    flips = [(a[q]["correct"], b[q]["correct"]) for q in shared if q[0] == "test-s"]
    kappa = cohen_kappa_score(*zip(*flips, strict=True))
    alike = [a[q]["reading"] == b[q]["reading"] != "unanswered" for q in shared if q[0] == "test-s"]
    assert agreement.kappa == pytest.approx(kappa) and agreement.same == pytest.approx(np.mean(alike))
    assert agreement.both_right == sum(x and y for x, y in flips)


def test_the_interval_is_that_of_the_report(runs: Path) -> None:
    """Errors apart, which the comparison leaves out for both."""
    c = compare_runs(runs / "base", runs / "expert")
    before, after = (open_run(ReportRun(name=n, folder=runs / n)) for n in ("base", "expert"))
    known = difference(before, after, "test_g")
    row = c.tables["overall"][1]
    assert known is not None
    assert (row.difference, row.low, row.high) == pytest.approx((known.value, known.low, known.high), abs=0.006)


def test_equal_models_are_not_told_apart_and_say_what_could_have_been_shown(runs: Path) -> None:
    c = compare_runs(runs / "base", runs / "twin")
    for row in c.tables["overall"]:
        assert row.verdict == "not told apart" and row.detectable and row.detectable_corrected
        assert row.detectable_corrected > row.detectable > abs(row.difference) / 2
    assert all("not told apart" in line and "smaller differences may be there" in line for line in found(c))
    for rows in c.tables.values():
        assert all(r.p <= r.p_holm and r.p - 1e-12 <= r.q_bh <= r.p_holm + 1e-12 for r in rows)


def test_swapping_the_two_turns_every_sign(runs: Path) -> None:
    one, two = compare_runs(runs / "base", runs / "expert"), compare_runs(runs / "expert", runs / "base")
    for name, rows in one.tables.items():
        for r, s in zip(rows, two.tables[name], strict=True):
            assert (r.name, r.p, r.a, r.a_only) == (s.name, s.p, s.b, s.b_only)
            assert r.difference == -s.difference and r.detectable == pytest.approx(s.detectable)
    assert one.swings["b_right"] and [s.key for s in one.swings["b_right"]] == [s.key for s in two.swings["a_right"]]
    assert all(s.b_right > s.a_right and s.caption for s in one.swings["b_right"])


def test_a_run_against_itself(runs: Path) -> None:
    c = compare_runs(runs / "base", runs / "base")
    assert (c.a, c.b) == ("A", "B") and any("may be one model" in note for note in c.notes)
    for rows in c.tables.values():
        assert all((r.difference, r.p, r.p_holm, r.a_only) == (0, 1, 1, 0) for r in rows)
    assert all(g.kappa in (None, 1.0) for g in c.agreement) and c.swings == {"a_right": [], "b_right": []}


def test_runs_that_overlap_are_compared_on_what_they_share(runs: Path, changed: Callable[..., Path]) -> None:
    keys = pc.unique(read_samples(runs / "expert" / "samples")["key"]).sort()
    kept = keys[: len(keys) // 2]
    other = {"settings": INFO["settings"] | {"triplets": "sha256:other"}}  # type: ignore[operator]
    folder = changed("expert", lambda t: t.filter(pc.is_in(t["key"], value_set=kept)), other)
    c = compare_runs(runs / "base", folder)
    a = read_samples(runs / "base" / "samples")
    assert c.statements <= len(kept)
    assert c.left_out["a"] == {
        "statement not in the other run": pc.sum(pc.invert(pc.is_in(a["key"], value_set=kept))).as_py()
    }
    assert not c.left_out["b"] and any("sha256:other" in note for note in c.notes)


def test_fewer_packs_and_wordings_are_counted(runs: Path, changed: Callable[..., Path]) -> None:
    folder = changed("expert", lambda t: t.filter(pc.equal(t["pack"], "test-s")))
    c = compare_runs(runs / "base", folder)
    a = read_samples(runs / "base" / "samples")
    assert c.left_out["a"] == {"wording not in the other run": pc.sum(pc.not_equal(a["pack"], "test-s")).as_py()}
    assert [r.name for r in c.tables["overall"]] == ["Test-S"] and c.grouped_over is None
    assert c.tables["relation"][0].mcnemar is not None, "with one wording a relation's rows are McNemar's"
    with pytest.raises(VsreError, match=r"pack 'pool' was not asked in both runs. Both were asked: test-s"):
        compare_runs(runs / "base", folder, pack="pool")


def _set(table: pa.Table, column: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


def test_another_truth_is_left_out_and_said(runs: Path, changed: Callable[..., Path]) -> None:
    key = read_samples(runs / "base" / "samples")["key"][0].as_py()

    def relabel(t: pa.Table) -> pa.Table:
        return _set(t, "truth", pc.xor(t["truth"], pc.equal(t["key"], key)))

    c = compare_runs(runs / "base", changed("expert", relabel))
    count = sum(SMALL.values())
    assert c.left_out["both"]["other truth for the same statement"] == count
    assert any(f"{count:,} of" in note and "other truth" in note for note in c.notes)
    assert c.questions + sum(c.left_out["both"].values()) == len(read_samples(runs / "base" / "samples"))


def test_other_words_under_the_same_name_are_left_out(runs: Path, changed: Callable[..., Path]) -> None:
    def reword(t: pa.Table) -> pa.Table:
        mine = pc.equal(t["template"], "pool-01")
        return _set(t, "prompt", pc.if_else(mine, "Is it so?", t["prompt"]))

    packs = {"settings": INFO["settings"] | {"packs": {"pool": "sha256:new"}}}  # type: ignore[operator]
    c = compare_runs(runs / "base", changed("expert", reword, packs))
    assert "pool-01" not in [r.name for r in c.tables["template"]]
    asked = pc.sum(pc.equal(read_samples(runs / "base" / "samples")["template"], "pool-01")).as_py()
    assert c.left_out["both"]["asked in other words under the same template name"] == asked > 100
    assert any("content of the packs pool" in note for note in c.notes)


def test_why_two_runs_cannot_be_compared(runs: Path, changed: Callable[..., Path]) -> None:
    def elsewhere(t: pa.Table) -> pa.Table:
        return _set(_set(t, "key", pc.binary_join_element_wise(t["key"], "x", "")), "pack", pa.array(["mine"] * len(t)))

    folder = changed("twin", elsewhere, {"settings": {"triplets": "sha256:new"}})
    with pytest.raises(VsreError) as error:
        compare_runs(runs / "base", folder)
    text = str(error.value)
    for reason in ("cannot be compared", "sha256:data against sha256:new", "none of the ", "packs differ", "mine"):
        assert reason in text
    folder = changed("expert", lambda t: _set(t, "truth", pc.invert(t["truth"])))
    with pytest.raises(VsreError, match=r"none can be used: .* other truth for the same statement"):
        compare_runs(runs / "base", folder)


def test_other_templates_of_the_same_pack_are_no_common_question(runs: Path, changed: Callable[..., Path]) -> None:
    folder = changed("expert", lambda t: _set(t, "template", pc.binary_join_element_wise(t["template"], "x", "-")))
    with pytest.raises(VsreError, match="no statement was asked of both under the same template"):
        compare_runs(runs / "base", folder)


def test_a_folder_of_another_version_is_named(runs: Path, changed: Callable[..., Path]) -> None:
    folder = changed("expert", lambda t: t.drop_columns(["reading", "meta_category"]), {"vsre": "0.0.3"})
    with pytest.raises(VsreError, match=r"part-00000.parquet: the columns meta_category, reading are missing.*0\.0\.3"):
        compare_runs(runs / "base", folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda t: _set(t, "correct", pc.cast(t["truth"], pa.string())), None),
        (lambda t: _set(t, "correct", pa.array(["wrong"] * len(t))), "column correct holds string, expected bool"),
        (lambda t: _set(t, "reading", pa.array(["maybe"] * len(t))), "does not know: maybe"),
    ],
)
def test_columns_of_another_type(runs: Path, changed: Callable[..., Path], rows: Any, message: str | None) -> None:
    folder = changed("expert", rows)
    if message is None:
        assert compare_runs(runs / "base", folder).questions
    else:
        with pytest.raises(VsreError, match=message):
            compare_runs(runs / "base", folder)


def test_folders_that_are_no_run(runs: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    def refuse(folder: Path, message: str) -> None:
        with pytest.raises(VsreError, match=message):
            compare_runs(runs / "base", folder)

    refuse(tmp_path / "nowhere", "no such folder")
    refuse(tmp_path, "no run.json")
    folder = changed("expert", info={"benchmark": "mme"})
    refuse(folder, "a run of the benchmark mme")
    (folder / "run.json").write_text("{")
    refuse(folder, "run.json: not readable as JSON")
    (folder / "run.json").write_text("[]")
    refuse(folder, "expected a JSON object, found list")
    (folder / "run.json").write_text("{}")
    (file,) = (folder / "samples").iterdir()
    file.write_bytes(file.read_bytes()[:500])
    refuse(folder, r"part-00000.parquet: cannot be read as Parquet")
    file.unlink()
    refuse(folder, "no samples")


def test_rows_that_cannot_be_used_are_counted(runs: Path, changed: Callable[..., Path]) -> None:
    def spoil(t: pa.Table) -> pa.Table:
        broken = _set(t, "truth", pc.if_else(pa.array([i == 3 for i in range(len(t))]), None, t["truth"]))
        return pa.concat_tables([broken, t.slice(0, 2)])

    c = compare_runs(runs / "base", changed("expert", spoil))
    assert c.left_out["b"] == {"incomplete row": 1, "asked twice": 2}
    assert c.left_out["a"] == {"not asked in the other run": 1}


def test_what_a_reader_must_know_is_noted(runs: Path, changed: Callable[..., Path]) -> None:
    engine = {"settings": INFO["settings"] | {"engine": {"dtype": "int8", "weights": "x", "decoding": {"n": 9}}}}  # type: ignore[operator]
    folder = changed("expert", info={"protocol": "paper", "finished": None, "vsre": "9.9", **engine})
    notes = "\n".join(compare_runs(runs / "base", folder).notes)
    for words in ("leaking protocol “paper”", "is not finished", "9.9", "dtype None against int8", "decoding.n"):
        assert words in notes
    assert "weights" not in notes


def test_prompts_that_were_not_kept(runs: Path, changed: Callable[..., Path]) -> None:
    folder = changed("expert", lambda t: t.drop_columns(["prompt", "caption"]))
    c = compare_runs(runs / "base", folder)
    assert c.questions and any("keeps no prompts" in note for note in c.notes)
    assert not any("one model" in n for n in c.notes)


def test_one_image_has_no_interval(runs: Path, changed: Callable[..., Path]) -> None:
    image = read_samples(runs / "base" / "samples")["image_id"][0]
    c = compare_runs(runs / "base", changed("expert", lambda t: t.filter(pc.equal(t["image_id"], image))))
    assert c.images == 1
    for row in c.tables["overall"]:
        assert row.low is None and row.detectable is None and row.verdict == "not told apart"
    assert all("could show no difference" in line for line in found(c))
    comparison_markdown(c)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_part_of_a_run_can_be_compared(runs: Path, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Whatever rows are left on either side, counts add up and no figure is out of range."""
    folders = []
    for name in ("base", "expert"):
        folder = tmp_path_factory.mktemp(name)
        table = read_samples(runs / name / "samples")
        share = data.draw(st.floats(0.02, 1.0))
        keep = np.random.default_rng(data.draw(st.integers(0, 99))).random(len(table)) < share
        keep[0] = True
        (folder / "samples").mkdir()
        pq.write_table(table.filter(pa.array(keep)), folder / "samples" / "part-00000.parquet")
        (folder / "run.json").write_text(json.dumps(INFO))
        folders.append((folder, int(keep.sum())))
    try:
        c = compare_runs(*(f for f, _ in folders), flips=200, resamples=50)
    except VsreError as error:
        assert "cannot be compared" in str(error)
        return
    for side, (_, n) in zip("ab", folders, strict=True):
        assert c.questions + sum(c.left_out["both"].values()) + sum(c.left_out[side].values()) == n
    for rows in c.tables.values():
        for r in rows:
            assert 0 < r.p <= r.p_holm <= 1 and r.design_effect >= 1 and 0 <= r.discordance <= 1
            assert r.difference == pytest.approx(r.b - r.a) and abs(r.difference) <= 1
    json.dumps(c.as_json(), allow_nan=False)


# --- the command


def test_the_command_prints_and_writes(runs: Path, tmp_path: Path) -> None:
    figures, page = tmp_path / "f" / "c.json", tmp_path / "m" / "c.md"
    arguments = ["compare", str(runs / "base"), str(runs / "expert"), "--json", str(figures), "--markdown", str(page)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    for words in ("A base", "B expert", "Test-G: B higher", "shows from", "not told apart", "error consistency"):
        assert words in result.output
    c = compare_runs(runs / "base", runs / "expert")
    assert json.loads(figures.read_text()) == json.loads(json.dumps(c.as_json()))
    assert json.loads(figures.read_text())["tables"]["overall"][0]["verdict"] == "B higher"
    text = page.read_text()
    assert "McNemar's test (exact, mid-p) counts statements as independent" in text
    assert all(f"| {row.name} |" in text for rows in c.tables.values() for row in rows)


def test_names_from_data_are_shown_as_they_are(runs: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    nasty = "[red]|<b>\u202e"
    folder = changed("expert", lambda t: _set(t, "relation", pa.array([nasty] * len(t))))
    target = folder.rename(folder.with_name("[bold]run|x"))
    page = tmp_path / "c.md"
    arguments = ["compare", str(runs / "base"), str(target), "--all", "--markdown", str(page)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "[bold]run|x" in result.output and "\u202e" not in result.output + page.read_text()
    assert "[bold]run\\|x" in page.read_text() and "<b>" not in page.read_text()


def test_the_command_refuses_with_the_reason(runs: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(runs / "base"), str(tmp_path)])
    assert isinstance(result.exception, VsreError) and "no run.json" in str(result.exception)
