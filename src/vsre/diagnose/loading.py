"""Loading an image-text model for diagnosis: by path, hub id or `zoo:NAME`; safetensors and shipped code only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vsre.errors import VsreError
from vsre.model import resolve_checkpoint  # the import also registers our classes with the Auto classes

_SAMPLED = 4096
"""Values of each weight tensor that enter the fingerprint."""


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode with its processor; `name` is what the user called it."""

    name: str
    model: Any
    processor: Any
    device: torch.device
    dtype: torch.dtype


def load_model(name: str | Path, *, device: str = "auto", dtype: str = "auto") -> Loaded:
    """Load any model that AutoModelForImageTextToText knows, ours included.

    `device` "auto" is cuda where there is one. `dtype` "auto" is the checkpoint's own on cuda and float32 on a
    CPU. Raises VsreError for a folder without a model, weights that are not safetensors, a model that needs code
    of its own, or one without a processor or chat template.
    """
    place = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    wanted = dtype if dtype != "auto" or place.type != "cpu" else "float32"
    source = resolve_checkpoint(name)
    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise VsreError(f"{name}: no safetensors weights here. Other formats can run code when opened: convert them.")
    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            source, dtype=wanted, use_safetensors=True, trust_remote_code=False
        )
    # A broken folder can fail anywhere in transformers; the reason reaches the person as one message.
    except Exception as error:
        raise VsreError(
            f"{name}: cannot be loaded as an image-text model ({_first_line(error)}). Expected a folder or hub id with "
            "config.json, model.safetensors, tokenizer and processor files, as save_pretrained writes them."
        ) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise VsreError(
            f"{name}: no processor with a tokenizer and an image processor; save the model's processor too."
        )
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise VsreError(
            f"{name}: the processor has no chat template, so it is unknown how this model is asked. "
            "Put a chat_template.jinja beside its config."
        )
    model = model.to(place).eval()
    return Loaded(str(name), model, processor, place, next(model.parameters()).dtype)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def weights_fingerprint(model: torch.nn.Module) -> str:
    """sha256 over every tensor's name, shape and dtype and up to 4,096 evenly spaced values of it.

    Fast at any size; tells apart checkpoints of one training run, not a change made to single weights.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        picked = flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(picked.to("cpu", torch.float64).numpy()).tobytes())
    return "sha256:" + digest.hexdigest()[:24]
