"""Muon and AdamW as one optimizer."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from rich.console import Console
from torch import nn
from train_world import load, write_world

from tiny_models import tiny_llava, tiny_vsre
from vsre.train import run_stages
from vsre.train.optimizer import MuonAdamW, moment_bytes, split_parameters


def test_every_parameter_is_in_one_hand(tmp_path: Path) -> None:
    for made in (tiny_llava(tmp_path), tiny_vsre(tmp_path)):
        model, _ = load(made)
        names = {id(p): n for n, p in model.named_parameters()}
        matrices, others = ([names[id(p)] for p in part] for part in split_parameters(model))
        training = [n for n, p in model.named_parameters() if p.requires_grad]
        assert sorted(matrices + others) == sorted(training)
        assert not any("embed" in n or "lm_head" in n or "norm" in n or "bias" in n for n in matrices)
        assert any("q_proj" in n for n in matrices) and any("embed_tokens" in n for n in others)


def test_frozen_parameters_are_left_out(tmp_path: Path) -> None:
    model, _ = load(tiny_llava(tmp_path))
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    found = {id(p) for group in MuonAdamW(model, lr=1e-3).param_groups for p in group["params"]}
    assert found == {id(p) for p in model.model.multi_modal_projector.parameters()}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.norm = nn.Embedding(12, 8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.out = nn.Linear(8, 12, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        return self.out

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.hidden(self.embed(ids)).relu()))


def steps(
    net: Net, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, n: int
) -> list[float]:
    ids = torch.arange(12)
    losses = []
    for _ in range(n):
        loss = nn.functional.cross_entropy(net(ids), (ids + 1) % 12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def made(seed: int = 0) -> tuple[Net, MuonAdamW, torch.optim.lr_scheduler.LRScheduler]:
    torch.manual_seed(seed)
    net = Net()
    optimizer = MuonAdamW(net, lr=0.02, weight_decay=0.01)
    return net, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))


def test_a_saved_state_goes_on_as_if_never_saved(tmp_path: Path) -> None:
    whole = made()
    undisturbed = steps(*whole, 10)
    assert undisturbed[-1] < undisturbed[0]
    first = made()
    assert steps(*first, 5) == undisturbed[:5]
    torch.save([part.state_dict() for part in first], tmp_path / "state.pt")
    later = made(seed=1)
    for part, state in zip(later, torch.load(tmp_path / "state.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    assert steps(*later, 5) == undisturbed[5:]
    assert [g["lr"] for g in later[1].param_groups] == [g["lr"] for g in whole[1].param_groups]
    # Norms and biases are not decayed.
    groups = {tuple(p.ndim for p in g["params"]): g["weight_decay"] for g in whole[1].param_groups}
    assert groups == {(2,): 0.01, (2, 2): 0.01, (1, 1, 1): 0.0}


@pytest.mark.parametrize("muon", [True, False])
def test_what_the_moments_take_is_known_before_and_after(muon: bool) -> None:
    net, optimizer, _ = made()
    plain = optimizer if muon else torch.optim.AdamW(net.parameters(), lr=0.02)
    before = moment_bytes(net, muon=muon)
    Accelerator(cpu=True)
    wrapped = AcceleratedOptimizer(plain)
    assert not wrapped.state
    steps(net, wrapped, torch.optim.lr_scheduler.LambdaLR(plain, lambda step: 1.0), 2)
    assert wrapped.state.keys() == set(net.parameters())
    kept = [t for state in wrapped.state.values() for t in state.values() if t.ndim]
    assert before == sum(t.nbytes for t in kept)
    assert len(kept) == (11 if muon else 12)  # of one matrix one moment, two of each other parameter
    assert moment_bytes(net, muon=muon, made=wrapped.state) == 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stage_trains_by_the_optimizer_it_names(optimizer: str, tmp_path: Path) -> None:
    stage = {
        "name": "tune", "train": ["adapters", "llm"], "data": [write_world(tmp_path / "world")], "batch_images": 6,
        "questions_per_image": 4, "max_steps": 12, "lr": 3e-3, "optimizer": optimizer,
    }  # fmt: skip
    model, processor = load(tiny_llava(tmp_path))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    done = run_stages(model, processor, [stage], tmp_path / "out", seed=0, console=Console(file=io.StringIO()))
    assert done["stages"][0]["last_loss"] < done["stages"][0]["first_loss"]
    change = (dict(model.named_parameters())["model.language_model.layers.0.mlp.up_proj.weight"].detach()
              - before["model.language_model.layers.0.mlp.up_proj.weight"])  # fmt: skip
    spread = torch.linalg.svdvals(change)
    # Muon's steps go equally far in every direction, AdamW's mostly in a few.
    assert (spread[len(spread) // 2] / spread[0] > 0.4) == (optimizer == "muon"), spread
