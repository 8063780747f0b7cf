"""The card: only what was measured, with its interval; licences that are known; text that stays text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from vsre.diagnose.loading import weights_fingerprint
from vsre.errors import VsreError
from vsre.export.card import CardFacts, limitations, write_card
from vsre.export.origins import data_licence, licence_of, model_parts, public_name
from vsre.export.results import measured
from vsre.export.training import DataFacts, StageFacts, describe_data, stages_of
from vsre.model import ENCODERS
from vsre.model.checkpoints import load_config
from vsre.rewrite import rewrite
from vsre.triplets import Triplet, write_triplets


def figure(value: float, low: float, high: float, n: int = 40) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": n}


def write_run(
    folder: Path, model: nn.Module | None = None, *, name: str = "mine", protocol: str = "clean", **changes: Any
) -> Path:
    """A run folder as far as a card reads it; of other weights where no model is given."""
    fingerprint = weights_fingerprint(model) if model is not None else "sha256:other"
    metrics = {
        "model": name,
        "protocol": protocol,
        "n_triplets": 40,
        "n_images": 12,
        "test_s": {"acc_t": figure(0.8, 0.7, 0.9)},
        "test_g": {"acc_t": figure(0.7654321, 0.6, 0.85, 2000)},
        "unseen": {"acc_t": figure(0.55, 0.48, 0.6, 480)},
        "bias": figure(0.05, 0.01, 0.1),
        "blind_floor": {"majority": figure(0.5, 0.4, 0.6)},
    } | changes
    run = {
        "data": {"triplets": "/home/someone/data/test"},
        "settings": {"engine": {"weights": fingerprint, "dtype": "float32"}, "triplets": "sha256:t", "limit": None},
        "versions": {"torch": "2.9"},
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def facts(**changes: Any) -> CardFacts:
    base = CardFacts(
        name="mine",
        own_code=True,
        parts=[{"part": "encoder clip", "checkpoint": "openai/clip", "taken": "layer -2", "licence": "unknown"}],
        parameters=1234,
        dtype="float32",
        visual_tokens=36,
        stages=[],
        data=[],
        results=[],
        licence=None,
    )
    return dataclasses.replace(base, **changes)


def test_results_with_interval_n_and_floor(model: nn.Module, tmp_path: Path) -> None:
    own, other = write_run(tmp_path / "own", model), write_run(tmp_path / "other", name="/home/someone/llava")
    card = ModelCard.load(write_card(tmp_path, facts(results=measured([other, own], model))))
    text = card.text
    assert "| **this model** (mine) | 80.0 [70.0, 90.0] | 76.5 [60.0, 85.0] | 55.0 [48.0, 60.0] |" in text
    assert "Test-S n 40; Test-G n 2,000; Unseen n 480" in text
    assert "| llava (other weights) | 80.0 [70.0, 90.0] |" in text
    assert text.index("this model") < text.index("(other weights)")
    assert "| Blind floor | 50.0 [40.0, 60.0] |" in text and "| Chance | 50.0 |" in text
    assert "Test: data/test, 40 statements about 12 pictures, protocol clean." in text
    assert "/home" not in text
    found = {result.metric_name: result for result in card.data.eval_results or []}
    assert len(card.data.eval_results or []) == 3, "other weights are no result of this model"
    for name, (config, value, n) in {
        "acc_t, Test-S": ("test_s", 0.8, 40),
        "acc_t, Test-G": ("test_g", 0.7654, 2000),
        "acc_t, Unseen": ("unseen", 0.55, 480),
    }.items():
        result = found[name]
        assert (result.dataset_config, result.metric_value, result.metric_args["n"]) == (config, value, n)
        assert result.metric_args["low"] < value < result.metric_args["high"]
        assert result.dataset_name.startswith(name.removeprefix("acc_t, "))
        assert result.dataset_args == {"protocol": "clean"} and result.dataset_revision == "sha256:t"


def test_runs_on_other_data_stand_in_tables_of_their_own(model: nn.Module, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / p, model, protocol=p) for p in ("clean", "paper")]
    text = write_card(tmp_path, facts(results=measured(runs, model))).read_text()
    assert text.count("| Blind floor |") == 2 and "protocol paper." in text
    assert "The protocol paper trains on test rows" in text


def test_weights_are_known_by_their_fingerprint(model: nn.Module, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", model)

    def same(folder: Path, model: nn.Module) -> bool:
        return measured([folder], model)[0].same_weights

    assert same(run, model)
    # A checkpoint in half precision, asked in float32 on a CPU: the same weights.
    half = nn.Linear(4, 3).to(torch.bfloat16)
    assert not same(write_run(tmp_path / "half", nn.Linear(4, 3)), half)
    assert same(write_run(tmp_path / "same", _as_float(half)), half)
    assert half.weight.dtype == torch.bfloat16
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert not same(run, model)


def _as_float(half: nn.Module) -> nn.Module:
    whole = nn.Linear(4, 3)
    whole.load_state_dict(half.state_dict())
    return whole


def test_limitations_come_from_the_figures(model: nn.Module, tmp_path: Path) -> None:
    assert limitations(facts())[0].startswith("Nothing was measured on these weights")
    good = limitations(facts(results=measured([write_run(tmp_path / "good", model)], model)))
    assert [line for line in good if "not above what guessing" in line] == [
        "Unseen (on data/test, protocol clean): not above what guessing without the picture reaches."
    ]
    assert not any("leans" in line for line in good)
    leaning = write_run(tmp_path / "leaning", model, bias=figure(0.4, 0.3, 0.5), blind_floor={})
    bad = limitations(facts(results=measured([leaning], model)))
    assert any("accuracies on true and on false are 40 points apart" in line for line in bad)
    assert any("No blind floor was measured" in line for line in bad)
    other = limitations(facts(results=measured([write_run(tmp_path / "other")], model)))
    assert other[0].startswith("Nothing was measured on these weights")
    assert any("not for photographs" in line for line in limitations(facts(parts=[_part("zoo:clip")])))


def _part(checkpoint: str) -> dict[str, str]:
    return {"part": "encoder", "checkpoint": checkpoint, "taken": "", "licence": licence_of(checkpoint)}


EVIL = "x | <script>alert(1)</script> [a](http://b) `c`\n---\n# d\nlicense: mit"


def test_text_from_data_stays_text(model: nn.Module, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", model, name=EVIL, protocol=EVIL)
    hostile = facts(
        name=EVIL,
        parts=[dict.fromkeys(("part", "checkpoint", "taken", "licence"), EVIL)],
        stages=[StageFacts(EVIL, {"trains": EVIL, EVIL: 1}, ())],
        data=[DataFacts(EVIL, EVIL, EVIL, EVIL)],
        results=measured([run], model),
        licence=EVIL,
    )
    path = write_card(tmp_path, hostile)
    card = ModelCard.load(path)
    assert card.data.license == EVIL and card.data.model_name == EVIL  # YAML keeps them as values
    body = card.text
    assert "<script>" not in body and "](http" not in body.replace("\\](http", "")
    assert not [line for line in body.splitlines() if line.startswith(("# d", "---", "license:"))]
    for table in [block for block in body.split("\n\n") if block.startswith("| ")]:
        cells = {line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(cells) == 1, table


def test_licences_are_known_or_unknown() -> None:
    for spec in ENCODERS.values():
        assert licence_of(spec.checkpoint) != "unknown"
    assert licence_of("facebook/sam-vit-base") == "apache-2.0"
    assert licence_of("facebook/sam-vit-base-mine") == "unknown"
    assert licence_of("facebook/SAM-vit-base") == "unknown"
    assert licence_of("zoo:clip") == "apache-2.0"  # as its own card says
    assert data_licence("repaint:t2i") == "unknown" and "CC BY 4.0" in data_licence("scenes:general")


def test_licence_of_a_folder_is_what_its_card_says(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert licence_of(folder) == "unknown"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    assert licence_of(folder) == "mit"
    (folder / "README.md").write_text("---\nlicense: [broken\n---\n")
    assert licence_of(folder) == "unknown"


def test_parts(tiny_vsre_folder: Path, tiny_llava_folder: Path) -> None:
    config, _ = load_config(tiny_vsre_folder)
    rows = model_parts(config, tiny_vsre_folder, "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert [row["part"] for row in rows] == [f"encoder {name}" for name in ENCODERS] + ["language model"]
    assert rows[-1]["licence"] == "apache-2.0" and rows[0]["checkpoint"] == "clip"
    assert model_parts(config, tiny_vsre_folder)[-1]["checkpoint"] == "unknown"
    assert model_parts(config, tiny_vsre_folder, start="zoo:vsre")[-1]["licence"] == "apache-2.0"
    rows = model_parts(load_config(tiny_llava_folder)[0], "llava-hf/llava-1.5-7b-hf", None)
    assert [row["part"] for row in rows] == ["vision encoder", "language model", "trained from"]
    assert rows[-1]["licence"] == "llama2" and rows[0]["licence"] == "unknown"
    assert public_name("/home/someone/clip") == "clip" and public_name("openai/clip") == "openai/clip"


def write_stage(run: Path, name: str, number: int) -> Path:
    stage = run / f"{number:02d}-{name}"
    (stage / "model").mkdir(parents=True)
    source = {"triplets": f"/home/someone/data/{name}", "questions": f"/home/someone/data/{name}-questions"}
    done = {
        "stage": name,
        "steps": 10,
        "images": 5,
        "questions": 60,
        "train_seconds": 7200,
        "last_loss": 0.123456,
        "config": {
            "train": ["adapters", "llm"],
            "data": [source],
            "epochs": 1,
            "max_steps": None,
            "batch_images": 4,
            "questions_per_image": 12,
            "lr": 2e-5,
            "optimizer": "adamw",
            "schedule": "cosine",
            "warmup": 0.03,
            "lora": {"rank": 8, "alpha": 16.0} if name == "expert" else None,
        },
    }
    (stage / "done.json").write_text(json.dumps(done))
    return stage / "model"


def test_stages_up_to_the_checkpoints_own(tmp_path: Path) -> None:
    models = [write_stage(tmp_path / "run", name, n) for n, name in enumerate(("align", "expert", "last"), 1)]
    assert [stage.name for stage in stages_of(models[1])] == ["align", "expert"]
    assert [stage.name for stage in stages_of(tmp_path, tmp_path / "run")] == ["align", "expert", "last"]
    assert stages_of(tmp_path) == []
    with pytest.raises(VsreError, match="no finished stage"):
        stages_of(tmp_path, tmp_path)
    stage, low_rank = stages_of(models[1])
    assert low_rank.rows["low-rank layers"] == "rank 8, alpha 16"
    assert stage.rows["time"] == "2 h 00 min" and stage.rows["trains"] == "adapters, llm"
    data = [describe_data(source) for source in stage.sources]
    text = write_card(tmp_path, facts(stages=[stage], data=data)).read_text()
    assert "| align | adapters, llm | – | data/align-questions | 60 | 5 | 10 |" in text
    assert "| data/align | not looked at |" in text and "/home" not in text


def test_data_as_it_lies_there(tmp_path: Path) -> None:
    rows = [
        Triplet("sha256:1", "a.png", "cat", "left of", "dog", f"The cat is left of the dog {n}.", True, "train", origin)
        for n, origin in enumerate(("vsr", "vsr", "repaint:t2i"))
    ]
    write_triplets(tmp_path / "data" / "train", rows)
    (tmp_path / "data" / "summary.json").write_text('{"protocol": {"name": "clean"}}')
    found = describe_data(str(tmp_path / "data" / "train"))
    assert found.name == "data/train" and found.protocol == "clean"
    assert found.content == "triplets: 2 of vsr, 1 of repaint:t2i; 1 pictures"
    assert "repaint:t2i: unknown" in found.licence and "Apache-2.0" in found.licence
    rewrite(tmp_path / "data" / "train", tmp_path / "asked", "test-s")
    assert describe_data(str(tmp_path / "asked")).content == "questions: 3, pack test-s, 1 templates"
    rewrite(tmp_path / "data" / "train", tmp_path / "each", "pool", 1)
    assert "templates" not in describe_data(str(tmp_path / "each")).content
    assert describe_data("LLaVA-Instruct, as published") == DataFacts("LLaVA-Instruct, as published", "not looked at")
