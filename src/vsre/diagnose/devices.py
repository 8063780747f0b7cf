"""Where a model runs: on one device, on several with accelerate, or with quantised weights."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig

from vsre.errors import VsreError

DTYPES = ("auto", "float32", "float16", "bfloat16", "float64")
OFFLOADED = ("cpu", "disk")
PLANS = ("auto", "balanced", "balanced_low_0", "sequential")
"""accelerate's strategies for device maps."""

Quantization = Literal["4bit", "8bit"]
DeviceMap = str | Mapping[str, Any]


def choose_device(device: str, device_map: DeviceMap | None = None) -> torch.device:
    """The device that inputs go to: the one named, for "auto" cuda if available, or a device map's first.

    Raises VsreError for a device that is unknown or not there.
    """
    if device_map is not None and device != "auto":
        raise VsreError(f"device {device} and a device map contradict each other. Give one of the two.")
    if isinstance(device_map, Mapping):
        named = [str(place) for place in device_map.values()]
        device = next((place for place in named if place not in OFFLOADED), "cpu")
        device = f"cuda:{device}" if device.isdecimal() else device
    elif device_map is not None and device_map not in PLANS:
        raise VsreError(f"Unknown device map {device_map!r}. Give one of {', '.join(PLANS)}, or parts and devices.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise VsreError(f"Unknown device {device!r}. Give auto, cpu, cuda, cuda:1 or mps.") from error
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if place.type in present and (place.index or 0) >= present[place.type]:
        there = [f"{kind}:{i}" if kind == "cuda" else kind for kind, n in present.items() for i in range(n)]
        raise VsreError(f"There is no device {device} here. There are: {', '.join(there)}.")
    return place


def input_device(model: Any) -> torch.device:
    """The device for a loaded model's inputs; its own `device` says "meta" if its first weights are offloaded."""
    places = getattr(model, "hf_device_map", None)
    return model.device if places is None else choose_device("auto", places)


def devices(model: Any) -> list[str]:
    """Every device that holds a part of a model, and "disk" if some of it is read from there."""
    places = getattr(model, "hf_device_map", None) or {"": model.device}
    return sorted({f"cuda:{place}" if isinstance(place, int) else str(place) for place in places.values()})


def quantized(kind: str, place: torch.device, dtype: str) -> tuple[BitsAndBytesConfig, str]:
    """bitsandbytes' settings for "4bit" (NF4) or "8bit" (LLM.int8), and the dtype of what is not quantised.

    The latter is also the compute dtype: `dtype`, or for "auto" bfloat16 if the GPU supports it, else float16. Raises
    VsreError for another kind, on cpu and mps, and if bitsandbytes is missing.
    """
    if kind not in ("4bit", "8bit"):
        raise VsreError(f"Unknown quantization {kind!r}. Give 4bit or 8bit.")
    if place.type in ("cpu", "mps"):
        raise VsreError(f"{kind} weights need a GPU, and this model would run on {place.type}. Leave quantization out.")
    if find_spec("bitsandbytes") is None:
        raise VsreError(f"{kind} weights need bitsandbytes, which is not installed: pip install bitsandbytes")
    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True), dtype
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return settings, dtype


def memory_limits(limits: Mapping[Any, Any] | None) -> dict[Any, Any] | None:
    """How much each device may hold, as in accelerate: {0: "20GiB", "cpu": "60GiB"}; GPUs may be strings of digits."""
    if limits is None:
        return None
    return {int(key) if str(key).isdecimal() else key: value for key, value in limits.items()}
