"""Muon for the matrices of hidden layers, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024) takes the orthogonal part of a matrix's momentum as its step; scaled to the root mean square
of AdamW's steps (Liu et al., arXiv 2502.16982), it can share their learning rate. Embeddings, the output layer, norms,
biases and convolutions stay with AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Container
from typing import Any

import torch
from torch import nn

from vsre.train.parts import parts_of


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer for a model's trainable parameters, each updated by torch.optim.Muon or torch.optim.AdamW."""

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float = 0.0) -> None:
        matrices, others = split_parameters(model)
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            scaled = "match_rms_adamw"
            self.parts.append(torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn=scaled))
        if others:
            # As in the Trainer, norms and biases are not decayed.
            groups = [[p for p in others if p.ndim >= 2], [p for p in others if p.ndim < 2]]
            found = [{"params": g, "weight_decay": w} for g, w in zip(groups, (weight_decay, 0.0), strict=True) if g]
            self.parts.append(torch.optim.AdamW(found, lr=lr))
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @property
    def state(self) -> defaultdict[torch.Tensor, Any]:
        """The parts' state by parameter, gathered at each access."""
        return defaultdict(dict, {p: kept for part in self.parts for p, kept in part.state.items()})

    @state.setter
    def state(self, _: Any) -> None:
        """torch's constructor sets an empty one; the parts keep their own."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        # Loading gives the parts new groups, and those are what a schedule must change.
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def parameter_groups(
    model: Any, decayed: Collection[str], weight_decay: float, lr: float, adapters_lr: float
) -> list[dict[str, Any]]:
    """The optimizer's groups of a model's trainable parameters: adapters have their own learning rate, and parameters
    named in `decayed` have weight decay.
    """
    adapters = {id(p) for p in parts_of(model).groups["adapters"]}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (adapters_lr if id(parameter) in adapters else lr, weight_decay if name in decayed else 0.0)
            groups.setdefault(kind, []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in sorted(groups.items(), key=lambda group: group[0][0] != lr)
    ]


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that train, each once: (matrices of hidden layers, all others)."""
    kept = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    kept |= {id(p) for p in head.parameters()} if isinstance(head, nn.Module) else set()
    training = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in training if p.ndim == 2 and id(p) not in kept]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in training if id(p) not in chosen]


def moment_bytes(model: nn.Module, *, muon: bool, made: Container[nn.Parameter] = ()) -> int:
    """Bytes of the optimizer's moments: one for each of Muon's matrices, two for every other parameter that trains.
    Those of the parameters in `made` are not counted.
    """
    matrices, others = split_parameters(model)
    return sum(
        each * p.nbytes
        for each, parameters in ((1 if muon else 2, matrices), (2, others))
        for p in parameters
        if p not in made
    )
