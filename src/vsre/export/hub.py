"""An export on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from vsre.errors import VsreError
from vsre.export.folder import RECORD
from vsre.hub import push_folder

_STALE = ["*.safetensors", "*.safetensors.index.json", "*.py"]
"""What an earlier upload may have left that would be loaded beside this one."""


def push_model(folder: str | Path, repo: str, *, private: bool = True) -> str:
    """Upload an exported folder to the model repository `repo` (made if it is not there); returns its address.

    The key is the hub's own (HF_TOKEN, or `hf auth login`); it is not read here. Raises VsreError where the folder is
    no export, where the hub refuses, and where `private` is wanted and the repository is public already.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise VsreError(f"{folder}: no export here ({RECORD} is missing). Write one: vsre export MODEL {folder}")
    patterns = {"ignore_patterns": [".*", "*.part"], "delete_patterns": _STALE}
    return push_folder(folder, repo, "model", private=private, message="Model written by vsre", **patterns)
