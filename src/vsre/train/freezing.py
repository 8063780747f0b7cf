"""What trains and what does not: set, kept so, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.table import Table
from torch import nn

from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration, count_parameters, module_groups


def freeze(model: Any, train: Sequence[str], *, keep_llm_in_training: bool = False) -> list[nn.Module]:
    """Let the named module groups train and freeze every other parameter; returns the modules to keep in eval
    mode.

    `keep_llm_in_training` leaves a frozen language model in training mode: gradients pass through it, and
    transformers checkpoints activations in training mode only.
    """
    if "encoders" in train and isinstance(model, VsreForConditionalGeneration):
        raise VsreError("the encoders of a VSRE model are frozen by design. Take encoders out of the stage's train.")
    groups = module_groups(model)
    model.requires_grad_(False)
    asleep: list[nn.Module] = []
    for group, modules in groups.items():
        for module in modules:
            module.requires_grad_(group in train)
            if group in train and any(p.dtype == torch.float16 for p in module.parameters()):
                raise VsreError(
                    f"the weights of {group} are float16, in which small steps vanish and large ones overflow. "
                    "Load the model in float32 (dtype=torch.float32), and set bf16: true where it is too slow."
                )
        if group not in train and not (group == "llm" and keep_llm_in_training):
            asleep += modules
    return asleep


def freezing_table(model: Any, title: str) -> Table:
    """Module group, parameters, trains or not."""
    table = Table(title=title, title_justify="left")
    table.add_column("modules")
    table.add_column("parameters", justify="right")
    table.add_column("trains")
    for group, (count, learning) in count_parameters(model).items():
        table.add_row(group, f"{count:,}", "yes" if learning else "no")
    return table
