"""Where weights come from: a folder, the models shipped in the package (`zoo:NAME`), or the Hugging Face hub.

Weights are safetensors only, and no code from a checkpoint is ever run. A language model may also be one GGUF file
(its numbers are dequantised), in a folder or, as OWNER/NAME/FILE.gguf, on the hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import is_gguf_available

import vsre
from vsre.errors import VsreError, first_line

ZOO = Path(vsre.__file__).parent / "zoo" / "weights"
ZOO_PREFIX = "zoo:"
GGUF = ".gguf"


def zoo_names() -> list[str]:
    """The names after `zoo:` of the models shipped in the package."""
    return sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def resolve_checkpoint(checkpoint: str | Path) -> str:
    """A folder's path or a hub id that `from_pretrained` takes.

    `zoo:NAME` gives the folder inside the package. Raises VsreError if the name or folder does not exist,
    or if the folder has no config.json.
    """
    text = str(checkpoint)
    if text.startswith(ZOO_PREFIX):
        folder = ZOO / text.removeprefix(ZOO_PREFIX)
        if not (folder / "config.json").is_file():
            raise VsreError(f"{text}: no such model in the zoo. There are: {', '.join(zoo_names()) or 'none'}.")
        return str(folder)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise VsreError(
                f"{text}: this folder has no config.json, so it is not a checkpoint. Point to the folder "
                "that `save_pretrained` wrote (it holds config.json and model.safetensors)."
            )
        return str(folder)
    if isinstance(checkpoint, Path) or folder.exists() or text.startswith((".", "~", "/")) or text.count("/") > 1:
        raise VsreError(f"{text}: no such checkpoint folder. Check the path, or give a hub id such as OWNER/NAME.")
    return text


def locate(checkpoint: str | Path) -> tuple[str, dict[str, str]]:
    """A resolved path or id, and further arguments for `from_pretrained`: {"gguf_file": name} for a GGUF file.

    Raises VsreError if nothing is there, and for a GGUF file without the package that reads it.
    """
    text = str(checkpoint)
    if not text.lower().endswith(GGUF):
        return resolve_checkpoint(checkpoint), {}
    if not is_gguf_available():
        raise VsreError(f"{text}: a GGUF file is read by the package gguf. Install vsre[gguf].")
    file = Path(text).expanduser()
    if file.is_file():
        return str(file.parent), {"gguf_file": file.name}
    if isinstance(checkpoint, Path) or text.startswith((".", "~", "/")) or text.count("/") != 2:
        raise VsreError(f"{text}: no such file. Check the path, or give OWNER/NAME/FILE.gguf of the hub.")
    repository, _, name = text.rpartition("/")
    return repository, {"gguf_file": name}


def encoder_name(checkpoint: str | Path) -> str:
    """An encoder's name from its checkpoint: the last part, after "encoder-" if it does not begin with a letter."""
    last = re.sub(r"[^A-Za-z0-9_-]", "-", str(checkpoint).rstrip("/").replace(":", "/").split("/")[-1])
    return last if re.match(r"[A-Za-z]", last) else f"encoder-{last}"


def load_config(checkpoint: str | Path) -> tuple[PreTrainedConfig, str]:
    """A checkpoint's config and its resolved path or id; reads no weights.

    Raises VsreError when there is none.
    """
    path, more = locate(checkpoint)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False, **more), path
    except (OSError, ValueError, KeyError) as error:
        raise VsreError(
            f"{checkpoint}: its config cannot be read ({first_line(error)}). Give a folder with the "
            "config.json of a transformers model, `zoo:NAME`, or a hub id that is cached or can be reached."
        ) from error


def load_weights(loader: Any, path: str, dtype: torch.dtype, **kwargs: Any) -> Any:
    """The model that `loader.from_pretrained` loads from a resolved checkpoint, safetensors only (or `gguf_file`).

    Raises VsreError if there are none, if they are damaged or incomplete, or if their shapes are not those of the
    config.
    """
    try:
        model, found = loader.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,  # if left out, transformers asks whether to run a checkpoint's code
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
    except (OSError, SafetensorError) as error:
        raise VsreError(
            f"{path}: its weights cannot be read ({first_line(error)}). Only safetensors are read: save the "
            "model with save_pretrained, or copy or download its model.safetensors again."
        ) from error
    check_loaded(path, found)
    return model


def check_loaded(checkpoint: str | Path, found: Mapping[str, Any]) -> None:
    """Raise VsreError if the checkpoint lacks any of a model's weights, or has them in shapes other than its config's.

    `found` is transformers' loading info under `ignore_mismatched_sizes`. The message names the first ones.
    """
    if wrong := sorted(found["mismatched_keys"]):
        name, has, wants = wrong[0]
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise VsreError(
            f"{checkpoint}: {name} has the shape {tuple(has)} in the checkpoint, {tuple(wants)} by its config.json"
            f"{others}. Put the config.json and the weights of one save together."
        )
    if missing := sorted(found["missing_keys"]):
        raise VsreError(
            f"{checkpoint}: lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}), which would be "
            "random numbers. Save the whole model, or use the version of transformers that it was made with."
        )
