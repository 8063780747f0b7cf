"""Where a model begins: a checkpoint as it is, or VSRE built on a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed

from vsre.model import ENCODERS, EncoderSpec, build_vsre, resolve_checkpoint, spec_from_checkpoint
from vsre.model.checkpoints import load_weights


def encoder_specs(names: Sequence[str]) -> list[EncoderSpec]:
    """Specs by the paper's names (clip, siglip, dinov2, sam), or of any checkpoint: zoo:NAME, a folder, a hub id."""
    return [ENCODERS[name] if name in ENCODERS else spec_from_checkpoint(name) for name in names]


def open_model(
    checkpoint: str | None, llm: str | None, encoders: Sequence[str], *, seed: int, keep_cls: bool = False
) -> tuple[Any, Any]:
    """The model to train and its processor, in float32; fresh adapters are drawn from `seed`."""
    set_seed(seed)
    if llm is not None:
        return build_vsre(llm, encoder_specs(encoders), keep_cls=keep_cls)
    path = resolve_checkpoint(str(checkpoint))
    model = load_weights(AutoModelForImageTextToText, path, torch.float32)
    return model, AutoProcessor.from_pretrained(path)
