"""LoRA: what trains, what a checkpoint holds, and that merging changes nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn
from train_world import load, write_world

from tiny_models import tiny_llava, tiny_vsre
from vsre.errors import VsreError
from vsre.model import module_groups
from vsre.train import Stage, checkpoints, parse_stages, run_stages
from vsre.train import lora as lora_module
from vsre.train.freezing import freeze
from vsre.train.logs import read_log
from vsre.train.lora import LoraLayers, lora_parameters
from vsre.train.stages import Lora

pytest.importorskip("peft")

Setup = tuple[Path, dict[str, Path]]
SMALL = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module", params=[tiny_vsre, tiny_llava])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("world")
    return request.param(folder), write_world(folder / "world")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints.os, "fsync", lambda _: None)


def stage(source: dict[str, Path], **change: Any) -> dict[str, Any]:
    common = {"name": "tune", "train": ["adapters", "llm"], "data": [source], "batch_images": 4, "max_steps": 4}
    return {**common, "save_every": 2, "lr": 1e-2, "lora": SMALL, **change}


def run(setup: Setup, out: Path, **change: Any) -> Any:
    model, processor = load(setup[0])
    quiet = Console(file=io.StringIO(), width=120)
    run_stages(model, processor, [stage(setup[1], **change)], out, seed=1, console=quiet)
    return model


def test_a_stage_trains_low_rank_layers_and_adapters_and_saves_an_ordinary_model(setup: Setup, tmp_path: Path) -> None:
    before, _ = load(setup[0])
    trained = run(setup, tmp_path)
    saved, _ = load(tmp_path / "01-tune" / "model")
    ours, theirs, start = (dict(m.named_parameters()) for m in (trained, saved, before))
    assert ours.keys() == theirs.keys() == start.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    changed = {name for name in ours if not ours[name].equal(start[name])}
    adapters = {id(p) for m in module_groups(trained)["adapters"] for p in m.parameters()}
    assert {name for name in ours if id(ours[name]) in adapters} <= changed
    rest = {name for name in changed if id(ours[name]) not in adapters}
    assert rest == {name for name in ours if "_proj.weight" in name and "layers." in name and "encoders" not in name
                    and "vision" not in name}  # fmt: skip
    for name in rest:
        assert torch.linalg.matrix_rank(ours[name] - start[name], rtol=1e-4) <= SMALL["rank"]


def test_a_checkpoint_holds_only_what_trains(setup: Setup, tmp_path: Path) -> None:
    model = run(setup, tmp_path)
    held = load_file(tmp_path / "01-tune" / "checkpoint-4" / "trained.safetensors")
    low_rank = sum(t.numel() for name, t in held.items() if "lora_" in name)
    assert low_rank == lora_parameters(model, Lora(**SMALL)) > 0
    adapters = sum(p.numel() for m in module_groups(model)["adapters"] for p in m.parameters())
    assert sum(t.numel() for t in held.values()) == low_rank + adapters


@pytest.mark.parametrize("bf16", [False, True])
def test_merging_changes_no_logit(setup: Setup, bf16: bool) -> None:
    model, _ = load(setup[0])
    asked = parse_stages([stage(setup[1], bf16=bf16)])[0]
    freeze(model, asked)
    layers = LoraLayers(model, Lora(**SMALL), seed=0, bf16=bf16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    ids = torch.arange(5, 25)[None]
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        apart = model(input_ids=ids).logits.float()
        layers.merge()
        merged = model(input_ids=ids).logits.float()
    assert not any("lora" in name for name, _ in model.named_modules())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.allclose(apart, merged, atol=0.05 if bf16 else 1e-5)
    plain, _ = load(setup[0])
    with torch.no_grad():
        assert (plain(input_ids=ids).logits - merged).abs().max() > 0.1


def test_layers_that_are_taken_out_leave_the_model_as_it_was(setup: Setup) -> None:
    model, _ = load(setup[0])
    before = {name: p.clone() for name, p in model.named_parameters()}
    layers = LoraLayers(model, Lora(**SMALL), seed=0, bf16=False)
    layers.remove()
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and all(after[name].equal(before[name]) for name in before)


def test_gradient_checkpointing_gives_the_same_gradients(setup: Setup, tmp_path: Path) -> None:
    logs = []
    for name, on in (("without", False), ("with", True)):
        run(setup, tmp_path / name, lora={**SMALL, "dropout": 0.2}, gradient_checkpointing=on)
        logs.append(read_log(tmp_path / name / "01-tune" / "log.jsonl"))
    for a, b in zip(*logs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_named_targets_alone_change(setup: Setup, tmp_path: Path) -> None:
    before, _ = load(setup[0])
    after = run(setup, tmp_path, train=["llm"], lora={**SMALL, "targets": ["q_proj"]})
    changed = [n for n, p in after.named_parameters() if not p.equal(dict(before.named_parameters())[n])]
    assert changed and all("q_proj" in name and "layers" in name for name in changed)


def test_adapters_may_learn_at_a_rate_of_their_own(setup: Setup, tmp_path: Path) -> None:
    """LLaVA's mm_projector_lr: a rate of nearly nothing leaves the adapters where they are."""
    before, _ = load(setup[0])
    after = run(setup, tmp_path, adapters_lr=1e-12)
    for a, b in zip(module_groups(after)["adapters"], module_groups(before)["adapters"], strict=True):
        assert all(torch.allclose(x, y, atol=1e-9) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_loss_that_is_no_number_leaves_no_layers_behind(setup: Setup, tmp_path: Path) -> None:
    model, processor = load(setup[0])
    with torch.no_grad():
        next(module_groups(model)["adapters"][0].parameters()).fill_(float("nan"))
    with pytest.raises(VsreError, match="is nan"):
        run_stages(model, processor, [stage(setup[1])], tmp_path, seed=1, console=Console(file=io.StringIO()))
    assert not any("lora" in name for name, _ in model.named_modules())


def test_defaults_are_those_of_llavas_lora_script() -> None:
    data = [{"triplets": "t", "questions": "q"}]
    both = Stage.model_validate({"name": "a", "train": ["adapters", "llm"], "data": data, "lora": {}})
    assert both.lora and (both.lora.rank, both.lora.alpha, both.lora.dropout) == (128, 256, 0.05)
    assert (both.lr, both.adapters_lr, both.batch_images) == (2e-4, 2e-5, 128)
    alone = Stage.model_validate({"name": "a", "train": ["llm"], "data": data, "lora": {}})
    assert (alone.lr, alone.adapters_lr) == (2e-4, None)
    own = Stage.model_validate({"name": "a", "train": ["adapters", "llm"], "data": data, "lora": {}, "lr": 1e-3})
    assert (own.lr, own.adapters_lr) == (1e-3, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": ["adapters"]}, "put llm into train"),
        ({"lora": {"ranks": 4}}, "did you mean 'rank'"),
        ({"lora": {"quantise": "8bit"}}, "lora.quantise"),
        ({"adapters_lr": 1e-3, "optimizer": "muon"}, "adapters_lr needs"),
        ({"lora": {"targets": []}}, "lora.targets"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    data = {"triplets": Path("t"), "questions": Path("q")}
    with pytest.raises(VsreError) as error:
        parse_stages([stage(data, **change)])
    assert said in str(error.value) or said.capitalize() in str(error.value)


def test_a_name_that_no_layer_has_is_answered_with_those_there_are(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"no linear layer is called query\. There are: down_proj, .*v_proj"):
        run(setup, tmp_path, lora={**SMALL, "targets": ["query"]})


def test_a_language_model_without_linear_layers_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_module, "_linear_layers", lambda _: [])
    model, _ = load(setup[0])
    with pytest.raises(VsreError, match=r"Llama\w+ has no linear layer"):
        LoraLayers(model, Lora(**SMALL), seed=0, bf16=False)


@pytest.mark.parametrize(("gone", "extra"), [("peft", "lora"), ("bitsandbytes", "qlora")])
def test_a_missing_package_is_said_before_anything_is_written(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, extra: str
) -> None:
    monkeypatch.setattr(lora_module, "find_spec", lambda name: name != gone)
    monkeypatch.setattr(lora_module.torch.cuda, "is_available", lambda: True)
    with pytest.raises(VsreError, match=rf"package {gone}\. Install vsre\[{extra}\]"):
        run(setup, tmp_path / "out", lora={"quantise": "4bit"})
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_four_bits_need_a_gpu(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_module, "find_spec", lambda _: True)
    with pytest.raises(VsreError, match="quantise: 4bit needs a CUDA device"):
        run(setup, tmp_path / "out", lora={"quantise": "4bit"})


def test_four_bits_beneath_low_rank_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen layer alone, on any device: NF4 takes half a byte a value, lies near, comes back as it computed."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)  # its packed form on CPUs is another
    torch.manual_seed(0)
    plain = nn.Linear(128, 64)
    device = lora_module.processes().device
    inputs = torch.randn(8, 128, device=device)
    exact = plain.to(device)(inputs)
    layer = lora_module._in_four_bits(plain, torch.float32)
    assert layer.weight.dtype == torch.uint8 and layer.weight.numel() == plain.weight.numel() // 2
    back = lora_module._floating(layer, torch.float32)
    assert type(back) is nn.Linear and torch.allclose(layer(inputs), back(inputs), atol=1e-4)
    distance = (back(inputs) - exact).norm() / exact.norm()
    assert 0.01 < distance < 0.2
