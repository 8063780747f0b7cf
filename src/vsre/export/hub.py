"""An export on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from vsre.errors import VsreError
from vsre.export.folder import RECORD
from vsre.hub import push_folder

_STALE = ["*.safetensors", "*.safetensors.index.json", "*.py"]
"""Files that an earlier upload may have left and that would be loaded along with this one's."""


def push_model(folder: str | Path, repo: str, *, private: bool = True) -> str:
    """Upload an exported folder to the model repository `repo` (created if necessary); returns its address.

    The token is the hub's own (HF_TOKEN, or `hf auth login`); it is not read here. Raises VsreError if the folder is
    no export, if the hub refuses, and if `private` is asked for but the repository is already public.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise VsreError(f"{folder}: no export here ({RECORD} is missing). Write one: vsre export MODEL {folder}")
    patterns = {"ignore_patterns": [".*", "*.part"], "delete_patterns": _STALE}
    return push_folder(folder, repo, "model", private=private, message="Model written by vsre", **patterns)
