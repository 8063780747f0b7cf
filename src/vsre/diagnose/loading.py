"""Loading an image-text model for diagnosis: by path, hub id or `zoo:NAME`; safetensors only, no remote code by
default."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.integrations.accelerate import load_offloaded_parameter

from vsre.diagnose.devices import (
    DTYPES,
    DeviceMap,
    Quantization,
    choose_device,
    input_device,
    memory_limits,
    quantized,
)
from vsre.errors import VsreError, kind_and_line
from vsre.model import resolve_checkpoint  # the import also registers our classes with the Auto classes
from vsre.model.checkpoints import check_loaded
from vsre.model.text import text_parts

_SAMPLED = 4096
"""Values of each weight tensor that enter the fingerprint."""

PACKAGES = ("torchvision", "num2words", "timm", "sentencepiece", "tiktoken", "bitsandbytes", "flash_attn", "kernels")
"""What transformers asks for if a processor or model needs more than this package installs."""


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode with its processor; `name` is what the user called it.

    `device` takes the inputs, `dtype` is that of the weights that are not quantised, `revision` the commit of a model
    from the hub.
    """

    name: str
    model: Any
    processor: Any
    device: torch.device
    dtype: torch.dtype
    revision: str | None = None


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    quantization: Quantization | None = None,
    device_map: DeviceMap | None = None,
    max_memory: Mapping[Any, Any] | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load any model that AutoModelForImageTextToText knows, including ours.

    `device` "auto" is cuda if available. `dtype` "auto" is the checkpoint's own on cuda and float32 on a
    CPU. `revision` is a branch, tag or commit on the hub. `quantization` "4bit" or "8bit" is done by bitsandbytes while
    loading. `device_map` spreads the model over devices with accelerate ("auto", or {part: device, "cpu" or "disk"}),
    with at most `max_memory` on each. `attn_implementation` is transformers' ("sdpa", "eager", "flash_attention_2").
    With `trust_remote_code` a checkpoint's own Python code is run, and attention kernels from the hub may be named;
    weights are still read from safetensors.

    Raises VsreError for a folder without a model, weights that are not safetensors or do not match the config's shapes,
    a model that needs code of its own or a package that is missing, one without a processor or chat template, and
    options that cannot be met.
    """
    if dtype not in DTYPES:
        raise VsreError(f"Unknown dtype {dtype!r}. Give one of {', '.join(DTYPES)}.")
    if max_memory is not None and device_map is None:
        device_map = "auto"
    if not trust_remote_code and attn_implementation and "/" in attn_implementation:
        raise VsreError(
            f"{attn_implementation}: attention from the hub is code that would be run here. Allow it with "
            "trust_remote_code if you trust it, or name one that transformers has: sdpa, eager, flash_attention_2."
        )
    place = choose_device(device, device_map)
    source = resolve_checkpoint(name)
    folder = Path(source)
    if folder.is_dir() and revision is not None:
        raise VsreError(f"{name}: a folder has no revisions. Leave revision {revision!r} out, or give a hub id.")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise VsreError(f"{name}: no safetensors weights here. Other formats can run code when opened: convert them.")
    wanted = "float32" if dtype == "auto" and place.type == "cpu" else dtype
    more: dict[str, Any] = {"device_map": device_map or {"": str(place)}, "max_memory": memory_limits(max_memory)}
    if quantization is not None:
        more["quantization_config"], wanted = quantized(quantization, place, dtype)
    if attn_implementation is not None:
        more["attn_implementation"] = attn_implementation
    same = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        processor = AutoProcessor.from_pretrained(source, **same)
        model, found = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=wanted,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with both shapes
            **same,
            **more,
        )
    # A broken folder can fail anywhere in transformers; the reason reaches the user as one message.
    except Exception as error:
        raise VsreError(f"{name}: {_why_not(error)}") from error
    check_loaded(name, found)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise VsreError(
            f"{name}: no processor with a tokenizer and an image processor; save the model's processor too."
        )
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise VsreError(
            f"{name}: the processor has no chat template, so it is unknown how to prompt this model. "
            "Put a chat_template.jinja next to its config."
        )
    commit = getattr(model.config, "_commit_hash", None) or revision
    return Loaded(str(name), model.eval(), processor, input_device(model), model.dtype, commit)


def _why_not(error: Exception) -> str:
    """Why transformers could not load a model, and what to do."""
    text = str(error)
    for package in PACKAGES:
        if package in text.lower() and find_spec(package) is None:
            return f"this model needs {package}, which is not installed ({kind_and_line(error)}). {_install(package)}"
    if "trust_remote_code" in text:
        return (
            "this model needs code of its own, and code from a checkpoint is run only if you allow it "
            f"({kind_and_line(error)}). Read that code, and allow it with trust_remote_code if you trust it."
        )
    return (
        f"cannot be loaded as an image-text model ({kind_and_line(error)}). Expected a folder or hub id with "
        "config.json, model.safetensors, tokenizer and processor files, as save_pretrained writes them."
    )


def _install(package: str) -> str:
    if package != "torchvision":
        return f"Install it: pip install {package}"
    major, minor = torch.__version__.split(".")[:2]  # torchvision 0.15 came with torch 2.0, and so on
    version = f"==0.{int(minor) + 15}.*" if major == "2" else ""
    return f'Install the one that goes with torch {major}.{minor}: pip install "torchvision{version}"'


def weights_fingerprint(model: torch.nn.Module) -> str:
    """sha256 over every tensor's name, shape and dtype and up to 4,096 evenly spaced values of it.

    Fast at any size; distinguishes checkpoints of one training run, but misses changes to single weights. Where the
    weights are does not matter: spread over devices, or offloaded to disk, which is read one tensor at a time.
    Quantised weights count as they are stored, with their scales.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_meta:
            tensor = load_offloaded_parameter(model, name)
        flat = tensor.detach().reshape(-1)
        picked = flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(picked.to("cpu", torch.float64).numpy()).tobytes())
    return "sha256:" + digest.hexdigest()[:24]


def processor_fingerprint(processor: Any) -> str:
    """sha256 over what turns a picture and a question into a model's inputs: vocabulary, special tokens, chat template,
    and the image processor's settings.
    """
    parts = [*text_parts(processor), processor.image_processor.to_dict()]
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
