"""An export on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from vsre.errors import VsreError, first_line
from vsre.export.folder import RECORD

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
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        public = private and not api.repo_info(repo, repo_type="model").private
        if not public:
            api.upload_folder(
                repo_id=repo,
                repo_type="model",
                folder_path=str(folder),
                ignore_patterns=[".*", "*.part"],
                delete_patterns=_STALE,
                commit_message="Model written by vsre",
            )
    except Exception as error:  # requests, its own and the network's: all mean that it is not there
        raise VsreError(
            f"{folder}: cannot be pushed to {repo} ({first_line(error)}). "
            "Log in with `hf auth login` or set HF_TOKEN, and name a repository you may write to (OWNER/NAME)."
        ) from error
    if public:
        raise VsreError(f"{repo}: this repository is public, so nothing was uploaded. Say --public, or name another.")
    return f"https://huggingface.co/{repo}"
