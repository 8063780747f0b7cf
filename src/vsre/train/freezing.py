"""What trains and what is frozen: setting it, keeping it so, and showing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration, count_parameters, module_groups
from vsre.train.stages import Stage


def freeze(model: Any, stage: Stage) -> list[nn.Module]:
    """Unfreeze the module groups that a stage trains and freeze every other parameter; returns the modules to keep in
    eval mode.

    With LoRA, the language model's own weights are frozen beneath the low-rank layers, which are added afterwards; it
    stays in training mode, for their dropout.
    """
    if "encoders" in stage.train and isinstance(model, VsreForConditionalGeneration):
        raise VsreError("the encoders of a VSRE model are frozen by design. Take encoders out of the stage's train.")
    model.requires_grad_(False)
    asleep: list[nn.Module] = []
    for group, modules in module_groups(model).items():
        learns = group in stage.train and not (group == "llm" and stage.lora)
        for module in modules:
            module.requires_grad_(learns)
            if learns and any(p.dtype == torch.float16 for p in module.parameters()):
                raise VsreError(
                    f"the weights of {group} are float16, in which small steps vanish and large ones overflow. "
                    "Load the model in float32 (dtype=torch.float32), and set bf16: true if it is too slow."
                )
        if not learns and not (group == "llm" and stage.lora):
            asleep += modules
    return asleep


@contextmanager
def checkpointing(model: Any, asleep: Iterable[nn.Module]) -> Iterator[None]:
    """Within it, layers are computed again in the backward pass instead of keeping their activations.

    transformers does so in training mode only. The layers in `asleep`, through which gradients pass to what trains, are
    made to do it in eval mode, so that checkpointing does not turn on their dropout.
    """
    layers = {m for part in asleep for m in part.modules() if isinstance(m, GradientCheckpointingLayer)}
    model.activation_checkpointing_enable()
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
        model.activation_checkpointing_disable()


def freezing_table(model: Any, title: str) -> Table:
    """A table of module groups: their parameters, and how many of them train."""
    table = Table(title=title, title_justify="left")
    table.add_column("modules")
    table.add_column("parameters", justify="right")
    table.add_column("trains")
    for group, (count, learning) in count_parameters(model).items():
        table.add_row(group, f"{count:,}", "yes" if learning == count else f"{learning:,}" if learning else "no")
    return table
