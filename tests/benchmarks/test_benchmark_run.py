"""Runs: the folder, resuming after a kill, samples and limits, errors, other settings, answers of any size."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import WRITERS, load, mmbench_tsv, mme_folder, picture, save, write_json

from vsre.benchmarks import BENCHMARKS, READINGS, load_benchmark_run, open_copy, run_benchmark
from vsre.benchmarks.item import fingerprint
from vsre.benchmarks.run import choose_items
from vsre.diagnose import Interrupted, Prompt, Reply, Score
from vsre.errors import VsreError

Rule = Callable[[Prompt], Reply]


class Rulebound:
    """An engine that answers by a rule and remembers what it was asked, and together with what."""

    batch_images = 2

    def __init__(self, rule: Rule, name: str = "rulebound") -> None:
        self.rule, self.name = rule, name
        self.calls: list[list[tuple[bytes | None, list[str]]]] = []

    @property
    def prompts(self) -> list[str]:
        return [text for call in self.calls for _, texts in call for text in texts]

    def settings(self) -> dict[str, Any]:
        return {"engine": "rulebound", "model": self.name}

    def notes(self) -> dict[str, Any]:
        return {"way": "by rule", "prompts": len(self.prompts)}

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        self.calls.append([(data, [prompt.text for prompt in prompts]) for data, prompts in asked])
        return [[self.rule(prompt) for prompt in prompts] for _, prompts in asked]


def first_option(prompt: Prompt) -> Reply:
    scores = tuple(Score(-1.0 - k, 1, -0.5) for k in range(len(prompt.options)))
    return Reply(None if prompt.style == "none" else prompt.options[0], scores)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_runs_both_ways(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / "data")
    engine = Rulebound(first_option)
    metrics = run_benchmark(engine, name, path, tmp_path / "run", mode="both", progress=False)
    items = load(name, path)
    assert len(engine.prompts) == 2 * len(items) == metrics["asked"] and metrics["errors"] == 0
    expected = set(READINGS) - ({"rule"} if BENCHMARKS[name].read is None else set())
    assert set(metrics["readings"]) == expected
    found = load_benchmark_run(tmp_path / "run")
    assert found.metrics == json.loads(json.dumps(metrics)) and len(found.samples) == metrics["asked"]
    assert found.run["counts"] == {"loaded": len(items), "items": len(items), "questions": 2 * len(items)}
    assert found.run["settings"]["questions"] == fingerprint(items) and found.run["finished"]
    # Each picture is sent once, with everything that is asked about it.
    pictures = [data for call in engine.calls for data, _ in call]
    assert len(pictures) == len(set(pictures)) == metrics["n_images"]
    assert max(len(call) for call in engine.calls) == min(2, metrics["n_images"])
    # By whatever is read, the first option was chosen.
    share = sum(i.answer == 0 for i in items) / len(items)
    for reading in metrics["readings"].values():
        figures = reading["figures"]
        plain = next(n for n in ("accuracy", "acc", "turns", "mean_over_tasks") if n in figures)
        assert figures[plain]["value"] == pytest.approx(share)


def test_samples_say_all_that_was_asked_and_read(tmp_path: Path) -> None:
    path = WRITERS["blink"](tmp_path / "data")
    run_benchmark(
        Rulebound(lambda p: Reply("B is closer", (Score(-1.0, 2, -3.0),) * 2)),
        "blink",
        path,
        tmp_path / "r",
        progress=False,
    )
    rows = {row["key"]: row for row in load_benchmark_run(tmp_path / "r").samples.to_pylist()}
    depth, relation = rows["val_Relative_Depth_1"], rows["val_Spatial_Relation_1"]
    assert (depth["truth"], depth["by_rule"], depth["reading"], depth["correct"]) == ("B", "unanswered", "B", True)
    assert (relation["reading"], relation["correct"]) == ("unanswered", False)
    assert depth["options"] == ["A is closer", "B is closer"] and depth["answer"] == "B is closer"
    assert (depth["logps"], depth["tokens"], depth["ends"]) == ([-1.0, -1.0], [2, 2], [-3.0, -3.0])
    assert depth["prompt"].startswith("Drawing 0: is it so?") and depth["way"] == "generate"


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    path = mmbench_tsv(tmp_path / "mmbench.tsv")
    first = run_benchmark(Rulebound(first_option), "mmbench", path, tmp_path / "run", progress=False)
    engine = Rulebound(first_option)
    assert run_benchmark(engine, "mmbench", path, tmp_path / "run", progress=False) == first and not engine.calls
    assert load_benchmark_run(tmp_path / "run").run["engine"]["way"] == "by rule"
    assert run_benchmark(engine, "mmbench", path, tmp_path / "run", progress=False, resume=False) == first
    assert len(engine.prompts) == 14


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    path = mmbench_tsv(tmp_path / "mmbench.tsv")
    undisturbed = run_benchmark(Rulebound(first_option), "mmbench", path, tmp_path / "a", progress=False)

    def tires(prompt: Prompt) -> Reply:
        if len(engine.prompts) > 8:
            raise KeyboardInterrupt
        return first_option(prompt)

    engine = Rulebound(tires)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(engine, "mmbench", path, tmp_path / "b", progress=False)
    with pytest.raises(VsreError, match="no finished benchmark run here"):
        load_benchmark_run(tmp_path / "b")
    rest = Rulebound(first_option)
    assert run_benchmark(rest, "mmbench", path, tmp_path / "b", progress=False) == undisturbed
    assert 0 < len(rest.prompts) < 14
    keys = [row["key"] for row in load_benchmark_run(tmp_path / "b").samples.select(["key"]).to_pylist()]
    assert len(keys) == len(set(keys)) == 14


def test_what_an_engine_had_before_it_was_cut_off_is_kept(tmp_path: Path) -> None:
    class Cut(Rulebound):
        def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
            replies: list[list[Reply | None]] = [list(row) for row in super().answer(asked)]
            replies[-1][-1] = None
            raise Interrupted("the server is gone", replies)

    path = mmbench_tsv(tmp_path / "mmbench.tsv")
    with pytest.raises(Interrupted):
        run_benchmark(Cut(first_option), "mmbench", path, tmp_path / "run", progress=False)
    rest = Rulebound(first_option)
    run_benchmark(rest, "mmbench", path, tmp_path / "run", progress=False)
    assert len(rest.prompts) == 14 - 7


KILLED = """
    import sys, time
    sys.path[:0] = {paths!r}
    from test_benchmark_run import Rulebound, first_option
    from vsre.benchmarks import run_benchmark

    def slow(prompt):
        time.sleep(0.05)
        return first_option(prompt)

    run_benchmark(Rulebound(slow), "mmbench", {data!r}, {out!r}, progress=False, flush_seconds=0.0)
"""


def test_a_killed_process_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    path, out = mmbench_tsv(tmp_path / "mmbench.tsv", questions=12), tmp_path / "run"
    here = Path(__file__).parent
    code = textwrap.dedent(KILLED.format(paths=[str(here), str(here.parent)], data=str(path), out=str(out)))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"})
    deadline = time.monotonic() + 60
    while len(list(out.glob("samples/*.parquet"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    held = len(list(out.glob("samples/*.parquet")))
    assert held >= 2 and not (out / "metrics.json").exists()
    rest = Rulebound(first_option)
    metrics = run_benchmark(rest, "mmbench", path, out, progress=False)
    assert metrics["n"] == 12 * 4 + 2 and 0 < len(rest.prompts) < metrics["n"]
    assert not {p for p in rest.prompts if p in {r["prompt"] for r in _first_rows(out, held)}}


def _first_rows(out: Path, parts: int) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    files = sorted(out.glob("samples/*.parquet"))[:parts]
    return [row for file in files for row in pq.read_table(file, columns=["prompt"]).to_pylist()]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = mmbench_tsv(tmp_path / "mmbench.tsv")
    run_benchmark(Rulebound(first_option), "mmbench", path, tmp_path / "run", progress=False)

    def again(**more: Any) -> None:
        engine = Rulebound(first_option, more.pop("name", "rulebound"))
        run_benchmark(
            engine, more.pop("benchmark", "mmbench"), more.pop("data", path), tmp_path / "run", progress=False, **more
        )

    with pytest.raises(VsreError, match=r"engine\.model: there 'rulebound', now 'other'"):
        again(name="other")
    with pytest.raises(VsreError, match="limit: there None, now 4"):
        again(limit=4)
    with pytest.raises(VsreError, match=r"ways: there \['generate'\], now \['likelihood'\]"):
        again(mode="likelihood")
    with pytest.raises(VsreError, match="benchmark: there 'mmbench', now 'mme'"):
        again(benchmark="mme", data=mme_folder(tmp_path / "mme"))
    with pytest.raises(VsreError, match="questions: there 'sha256"):
        again(data=mmbench_tsv(tmp_path / "other.tsv", questions=2))
    # The same questions from another place are the same run.
    again(data=mmbench_tsv(tmp_path / "elsewhere" / "copy.tsv"))


def test_limit_and_sample_take_whole_groups(tmp_path: Path) -> None:
    items = load("mmbench", mmbench_tsv(tmp_path / "mmbench.tsv", questions=10))
    assert [i.group for i in choose_items(items, limit=5)] == ["0"] * 4 + ["1"] * 4
    drawn = choose_items(items, sample=9, seed=3)
    groups = [i.group for i in drawn]
    assert 9 <= len(drawn) <= 12 and all(groups.count(g) == sum(i.group == g for i in items) for g in groups)
    assert [items.index(i) for i in drawn] == sorted(items.index(i) for i in drawn)
    assert drawn == choose_items(items, sample=9, seed=3) != choose_items(items, sample=9, seed=4)
    assert choose_items(items, sample=10_000) == items
    assert choose_items(drawn, limit=1) == choose_items(items, sample=9, seed=3, limit=1)
    for wrong in ({"limit": 0}, {"sample": -1}):
        with pytest.raises(VsreError, match="nothing would be asked"):
            choose_items(items, **wrong)


def test_rows_set_aside_are_in_the_folder(tmp_path: Path) -> None:
    root = mme_folder(tmp_path / "data")
    save(root / "position" / "zz.txt", b"Is there a picture?\tNo\n")
    metrics = run_benchmark(Rulebound(first_option), "mme", root, tmp_path / "run", progress=False)
    assert metrics["set_aside"] == {"no such picture file": 1}
    (line,) = (tmp_path / "run" / "set_aside.jsonl").read_text().splitlines()
    assert json.loads(line)["file"].endswith("zz.txt") and json.loads(line)["row"] == 1
    assert len((tmp_path / "run" / "position.txt").read_text().splitlines()) == 6


def test_errors_and_pictures_that_are_gone_count_nowhere(tmp_path: Path) -> None:
    root = mme_folder(tmp_path / "data")
    copy = open_copy("mme", root)
    (root / "position" / "0001.png").unlink()

    def rule(prompt: Prompt) -> Reply:
        return Reply(error="no memory") if "left" in prompt.text else Reply("yes")

    metrics = run_benchmark(Rulebound(rule), "mme", copy, tmp_path / "run", progress=False)
    assert metrics["errors"] == 2 + 2 and metrics["official"]["acc"]["n"] == 2
    assert "acc_plus" not in metrics["official"]
    assert metrics["error_reasons"]["no memory"] == 2
    assert any("0001.png: the picture cannot be read any more" in reason for reason in metrics["error_reasons"])
    rows = load_benchmark_run(tmp_path / "run").samples.to_pylist()
    assert {row["reading"] for row in rows if row["error"]} == {"error"}
    assert {row["correct"] for row in rows if row["error"]} == {None}


def test_errors_are_asked_again_where_that_is_asked_for(tmp_path: Path) -> None:
    root = mme_folder(tmp_path / "data")
    failing = Rulebound(lambda prompt: Reply(error="no memory") if "left" in prompt.text else Reply("yes"))
    first = run_benchmark(failing, "mme", root, tmp_path / "run", progress=False)
    well = Rulebound(lambda prompt: Reply("yes"))
    assert run_benchmark(well, "mme", root, tmp_path / "run", progress=False) == first and not well.prompts
    again = run_benchmark(well, "mme", root, tmp_path / "run", progress=False, retry_errors=True)
    assert first["errors"] == len(well.prompts) == 3 and again["errors"] == 0
    assert again["asked"] == first["asked"], "no question counts twice"


def test_answers_cut_at_the_limit_are_counted(tmp_path: Path) -> None:
    path = mmbench_tsv(tmp_path / "mmbench.tsv", questions=3)
    cut = iter([True, False, True] + [False] * 30)
    engine = Rulebound(lambda p: Reply("B", cut=next(cut)))
    metrics = run_benchmark(engine, "mmbench", path, tmp_path / "run", progress=False)
    kept = load_benchmark_run(tmp_path / "run").samples["cut"].to_pylist()
    assert kept.count(True) == 2 and any(
        warning.startswith(f"2 of {len(kept)} answers") and "larger --max-tokens" in warning
        for warning in metrics["warnings"]
    )


@pytest.mark.slow
def test_empty_answers_and_ten_megabytes(tmp_path: Path) -> None:
    path = mmbench_tsv(tmp_path / "mmbench.tsv", questions=1)
    huge = "A cup. " * 1_500_000
    answers = iter(["", huge, huge + "\nFinal answer: B", " \n", "x" * 10_000_000, "\x00\ud800"])
    metrics = run_benchmark(
        Rulebound(lambda p: Reply(next(answers))), "mmbench", path, tmp_path / "run", progress=False
    )
    assert metrics["readings"]["reading"]["answered"]["value"] == pytest.approx(1 / 6)
    assert metrics["warnings"] == ["only 17 % of the answers could be read: look at the samples."]
    kept = load_benchmark_run(tmp_path / "run").samples["answer"].to_pylist()
    assert len(kept[1]) == len(huge) and (kept[0], kept[5]) == ("", "\x00?")


def test_names_modes_and_paths_that_are_wrong(tmp_path: Path) -> None:
    engine = Rulebound(first_option)
    with pytest.raises(VsreError, match=r"mmb: no such benchmark. There are mme, mmbench"):
        run_benchmark(engine, "mmb", tmp_path, tmp_path / "run")
    with pytest.raises(VsreError, match=r"best: no such mode. Use one of official, generate, likelihood, both"):
        run_benchmark(engine, "mme", mme_folder(tmp_path / "mme"), tmp_path / "run", mode="best")
    with pytest.raises(VsreError, match=r"gone\.tsv: no such file or folder. MMBench \(spatial\) wants"):
        run_benchmark(engine, "mmbench", tmp_path / "gone.tsv", tmp_path / "run")
    with pytest.raises(VsreError, match=r"none of the .*|none of embspatial_bench"):
        run_benchmark(engine, "embspatial", tmp_path / "mme", tmp_path / "run")
    write_json(tmp_path / "empty.json", [])
    with pytest.raises(VsreError, match="none of its rows are EmbSpatial-Bench's spatial questions"):
        run_benchmark(engine, "embspatial", tmp_path / "empty.json", tmp_path / "run")
    assert not engine.calls and picture(0)
