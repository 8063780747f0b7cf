"""The processes that share a training run."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE = timedelta(hours=24)
"""How long processes wait for one that prepares something for all, such as the pictures of half a million questions.
The backends' own limits (NCCL: 10 minutes) are meant for steps."""


def processes() -> PartialState:
    """Rank, number and barriers of the processes; also works for a single one.

    accelerate connects processes on a CPU only if it is told that they run there.
    """
    cpu = not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=cpu, timeout=PATIENCE)


def sharded() -> bool:
    """Whether FSDP or DeepSpeed spreads the weights over the processes, as `accelerate launch` has set up."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP") or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")


def name_layers(model: Any) -> None:
    """Tell FSDP which layers to wrap: those that the model's classes name and that are in it.

    accelerate fails on the name of a part that the model lacks, such as the text side of LLaVA's CLIP.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return
    there = {type(module).__name__ for module in model.modules()}
    named = sorted(there & set(model._no_split_modules or ()))
    os.environ.setdefault("FSDP_TRANSFORMER_CLS_TO_WRAP", ",".join(named))
