"""The script that measures training at the paper's size: its shapes here, its whole way on tiny ones."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def script() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "train_scale.py"
    spec = importlib.util.spec_from_file_location("train_scale", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_scale"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "billions"), [("7b", 7.769), ("13b-lora", 14.107)])
def test_shapes_are_the_papers(script: ModuleType, name: str, billions: float) -> None:
    model, shape = script.build(script.SETTINGS[name], None, torch.device("meta"))
    assert model.config.image_tokens == shape.picture_tokens == 1817
    assert sum(p.numel() for p in model.parameters()) == sum(shape.parameters.values())
    assert sum(shape.parameters.values()) / 1e9 == pytest.approx(billions, abs=1e-3)


def test_fewer_layers_are_reckoned_with(script: ModuleType) -> None:
    model, shape = script.build(script.SETTINGS["7b"], 16, torch.device("meta"))
    assert shape.layers == model.config.get_text_config().num_hidden_layers == 16
    assert sum(p.numel() for p in model.parameters()) == sum(shape.parameters.values())


@pytest.mark.slow
def test_both_ways_are_measured(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.setattr(sys, "argv", ["train_scale.py", "--tiny", "--json", str(tmp_path / "out.json")])
    script.main()
    found = json.loads((tmp_path / "out.json").read_text())
    for name in script.TINY:
        assert found[name]["packed"]["sequences_a_pass"] >= 1 and found[name]["single"]["tokens_per_s"] > 0
        assert found[name]["bound_by_tokens"] == pytest.approx(4 * (144 + 11) / (144 + 4 * 11), abs=0.01)
