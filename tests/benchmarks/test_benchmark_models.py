"""Every benchmark with a real (tiny, random) model, and the command a person types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmark_data import WRITERS, load, mme_folder, save
from typer.testing import CliRunner

from vsre.benchmarks import BENCHMARKS, load_benchmark_run, run_benchmark
from vsre.cli import app
from vsre.diagnose import Decoding, TransformersEngine
from vsre.sources.images import load_image


@pytest.fixture(scope="module")
def engine(tiny_llava_folder: Path) -> TransformersEngine:
    return TransformersEngine(tiny_llava_folder, decoding=Decoding(full_tokens=6))


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_real_model_answers_every_benchmark_both_ways(name: str, engine: TransformersEngine, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / "data")
    metrics = run_benchmark(engine, name, path, tmp_path / "run", mode="both", progress=False)
    items = load(name, path)
    assert metrics["errors"] == 0 and metrics["asked"] == 2 * len(items) == 2 * metrics["n"]
    assert metrics["missing"] == {}
    assert {"reading", "letters", "likelihood", "likelihood_mean", "likelihood_sum"} <= set(metrics["readings"])
    for reading in metrics["readings"].values():
        for figure in reading["figures"].values():
            assert figure["low"] <= figure["value"] <= figure["high"] and figure["n"] > 0
    for row in load_benchmark_run(tmp_path / "run").samples.to_pylist():
        assert len(row["logps"]) == len(row["options"]) and (row["answer"] is None) == (row["way"] == "likelihood")
        assert all((end is not None) == (row["way"] == "likelihood") for end in row["ends"])


def test_seed_s_ranking_is_the_model_s_own_loss(engine: TransformersEngine, tmp_path: Path) -> None:
    """Against the benchmark's recipe: the loss that the model itself gives for choice and end token as labels."""
    path = WRITERS["seed-bench-2"](tmp_path / "data")
    run_benchmark(engine, "seed-bench-2", path, tmp_path / "run", progress=False)
    rows = {row["key"]: row for row in load_benchmark_run(tmp_path / "run").samples.to_pylist()}
    model, renderer = engine.model, engine.renderer
    end = renderer.tokenizer.eos_token_id
    for item in load("seed-bench-2", path):
        losses = []
        for option in item.options:
            inputs = renderer.whole([load_image(item.picture.read())], renderer.render([item.bare]))
            told = torch.tensor([[*renderer.option(option), end]])
            ids = torch.cat([inputs.pop("input_ids"), told], 1)
            inputs["attention_mask"] = torch.ones_like(ids)
            labels = ids.clone()
            labels[:, : -told.shape[1]] = -100
            with torch.inference_mode():
                losses.append(float(model(input_ids=ids, labels=labels, **inputs).loss))
        row = rows[item.key]
        ours = [-(p + e) / (n + 1) for p, n, e in zip(row["logps"], row["tokens"], row["ends"], strict=True)]
        assert ours == pytest.approx(losses, abs=1e-4)
        assert row["reading"] == "ABCD"[losses.index(min(losses))]


def run_cli(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["benchmark", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command(tiny_llava_folder: Path, tmp_path: Path) -> None:
    mme, blink = (WRITERS[name](tmp_path / name) for name in ("mme", "blink"))
    save(mme / "position" / "zz.txt", b"Is there a picture?\tNo\n")
    args = (tiny_llava_folder, f"mme={mme}", f"blink={blink}", "-o", tmp_path / "out", "--max-tokens", 4)
    code, said = run_cli(*args, "--json", tmp_path / "figures.json")
    assert code == 0
    for words in (
        "MME (position)",
        "official: rule",
        "acc_plus",
        "acc by other readings: letters",
        "BLINK (spatial)",
        "mean_over_tasks",
    ):
        assert words in said
    assert "rows set aside: 1 no such picture file" in said and "answered by:" in said
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"mme", "blink"} and figures["mme"]["official"]["acc"]["n"] == 6
    assert (tmp_path / "out" / "blink" / "predictions.json").is_file()
    again, said = run_cli(*args)
    assert again == 0 and load_benchmark_run(tmp_path / "out" / "mme").run["sessions"][-1]["questions"] == 0


def test_the_list_names_everything(tmp_path: Path) -> None:
    code, said = run_cli("--list", "--json", tmp_path / "list.json")
    assert code == 0
    for name, benchmark in BENCHMARKS.items():
        assert name in said and benchmark.wants in said and benchmark.source in said and benchmark.citation in said
    assert set(json.loads((tmp_path / "list.json").read_text())) == set(BENCHMARKS)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "Give a model, one or more NAME=PATH and --out"),
        (("MODEL", "mme", "-o", "OUT"), "mme: give NAME=PATH"),
        (("MODEL", "mm=MME", "-o", "OUT"), "mm: no such benchmark"),
        (("MODEL", "mme=gone", "-o", "OUT"), "gone: no such file or folder"),
        (("MODEL", "mme=MME", "mme=MME", "-o", "OUT"), "named twice"),
        (("MODEL", "mme=MME", "-o", "OUT", "--mode", "best"), "no such mode"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(args: tuple[str, ...], words: str, tmp_path: Path) -> None:
    from vsre.errors import VsreError

    mme_folder(tmp_path / "MME")
    places = {"MME": str(tmp_path / "MME"), "OUT": str(tmp_path / "out"), "MODEL": str(tmp_path / "no model here")}
    with pytest.raises(VsreError, match=words):
        run_cli(*("=".join(places.get(part, part) for part in arg.split("=")) for arg in args))


def test_a_run_in_which_everything_errors_exits_with_1(
    tiny_llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsre.diagnose import Reply

    def answer(self: TransformersEngine, asked: list[tuple[bytes, list[object]]]) -> list[list[Reply]]:
        return [[Reply(error="out of memory") for _ in prompts] for _, prompts in asked]

    monkeypatch.setattr(TransformersEngine, "answer", answer)
    code, said = run_cli(tiny_llava_folder, f"mme={mme_folder(tmp_path / 'MME')}", "-o", tmp_path / "out")
    assert code == 1 and "errors: 6 of 6: 6 x out of memory" in said and "every question ended in an error" in said
