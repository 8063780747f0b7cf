"""The model that is exported: a checkpoint as it is, or a PEFT adapter merged into its base."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from vsre.diagnose.devices import DTYPES
from vsre.diagnose.loading import Loaded, load_model
from vsre.errors import VsreError, first_line
from vsre.model.checkpoints import load_config

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def open_for_export(checkpoint: str | Path, *, base: str | Path | None = None, dtype: str | None = None) -> Loaded:
    """Model and processor on the CPU, in `dtype` or else the checkpoint's own.

    `checkpoint` is a folder, `zoo:NAME`, a hub id, or a folder with a PEFT adapter, which is merged into its base:
    `base`, or the one that it names. Raises VsreError as `load_model` does, if an adapter's weights are not
    safetensors or do not fit its base, and if peft is not installed.
    """
    folder = Path(checkpoint).expanduser()
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        return _merged(folder, base, dtype)
    if base is not None:
        raise VsreError(f"{checkpoint}: a base is only for a PEFT adapter, and there is no {ADAPTER_CONFIG} here.")
    return load_model(checkpoint, device="cpu", dtype=dtype or own_dtype(checkpoint))


def own_dtype(checkpoint: str | Path) -> str:
    """The dtype a checkpoint's config names; float32 if it names none that a model can be loaded in."""
    config, _ = load_config(checkpoint)
    found = str(config.dtype or config.get_text_config().dtype).removeprefix("torch.")
    return found if found in DTYPES else "float32"


def _merged(folder: Path, base: str | Path | None, dtype: str | None) -> Loaded:
    try:
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict, load_peft_weights
    except ImportError as error:
        raise VsreError(f"{folder}: a PEFT adapter is merged by the package peft. Install vsre[lora].") from error
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise VsreError(f"{folder}: no {ADAPTER_WEIGHTS} here. Only safetensors are read: save the adapter again.")
    named = base or PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not named:
        raise VsreError(f"{folder}: its {ADAPTER_CONFIG} does not name the model it was trained on. Give it as --base.")
    loaded = load_model(named, device="cpu", dtype=dtype or own_dtype(named))
    try:
        adapted: Any = PeftModel.from_pretrained(loaded.model, str(folder))
        # peft skips weights that have no place in the base, and initialises those that are missing.
        odd = load_peft_weights(str(folder), device="cpu").keys() ^ get_peft_model_state_dict(adapted).keys()
        model = adapted.merge_and_unload(safe_merge=True)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise VsreError(f"{folder}: this adapter cannot be merged into {named} ({first_line(error)}).") from error
    if odd:
        raise VsreError(
            f"{folder}: this adapter does not fit {named}: {len(odd)} of their weights have no counterpart "
            f"({', '.join(sorted(odd)[:2])}). Give the model it was trained on as --base."
        )
    processor = None
    if (folder / "processor_config.json").is_file():
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    return dataclasses.replace(loaded, name=str(folder), model=model.eval(), processor=processor or loaded.processor)
