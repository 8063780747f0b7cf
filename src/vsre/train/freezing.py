"""What trains and what does not: set, kept so, and shown."""

from __future__ import annotations

from typing import Any

import torch
from rich.table import Table
from torch import nn

from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration, count_parameters, module_groups
from vsre.train.stages import Stage


def freeze(model: Any, stage: Stage) -> list[nn.Module]:
    """Let the module groups that a stage trains learn and freeze every other parameter; returns the modules to keep in
    eval mode.

    The language model's own weights are frozen beneath LoRA's layers, which are put in afterwards. It stays in training
    mode then, for their dropout, and under gradient checkpointing: gradients pass through it, and transformers
    checkpoints activations in training mode only.
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
                    "Load the model in float32 (dtype=torch.float32), and set bf16: true where it is too slow."
                )
        if not learns and not (group == "llm" and (stage.gradient_checkpointing or stage.lora)):
            asleep += modules
    return asleep


def freezing_table(model: Any, title: str) -> Table:
    """Module group, parameters, and how many of them train."""
    table = Table(title=title, title_justify="left")
    table.add_column("modules")
    table.add_column("parameters", justify="right")
    table.add_column("trains")
    for group, (count, learning) in count_parameters(model).items():
        table.add_row(group, f"{count:,}", "yes" if learning == count else f"{learning:,}" if learning else "no")
    return table
