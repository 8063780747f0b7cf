"""The processes that share a training run."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def processes() -> PartialState:
    """Rank, number and barriers of the processes, one alone included.

    accelerate connects processes on a CPU only where it is told that they are to run there.
    """
    return PartialState(cpu=not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))
