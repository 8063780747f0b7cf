"""When two ways of computing the same logits count as equal."""

from __future__ import annotations

import torch

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
HALF_TOLERANCE = 3e-2


def tolerance(dtype: torch.dtype) -> float:
    """The largest difference allowed between two ways' logits in a model of this dtype, as `apart` measures it."""
    return TOLERANCE.get(dtype, HALF_TOLERANCE)


def apart(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest difference as a share of the reference's largest logit (at least 1); nan if a logit is nan."""
    scale = max(1.0, float(reference.abs().max()))
    return float((logits - reference).abs().max()) / scale
