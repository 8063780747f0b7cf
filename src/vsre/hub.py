"""Uploading a folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vsre.errors import VsreError, kind_and_line

_CALLED = {"model": "the model repository", "dataset": "the data set"}


def push_folder(
    folder: Path, repo: str, kind: Literal["model", "dataset"], *, private: bool, message: str, **upload: Any
) -> str:
    """Upload a folder to a repository, made if it is not there; returns its address. `upload`: further arguments of
    `HfApi.upload_folder`.

    The key is the hub's own (HF_TOKEN, or `hf auth login`); it is not read here. Raises VsreError where the hub
    refuses, and where `private` is wanted and the repository is public already: what an earlier upload made of it is
    not this one's to decide.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        public = private and not api.repo_info(repo, repo_type=kind).private
        if not public:
            api.upload_folder(repo_id=repo, repo_type=kind, folder_path=str(folder), commit_message=message, **upload)
    except Exception as error:  # requests, its own and the network's: all mean that it is not there
        raise VsreError(
            f"{folder}: cannot be pushed to {_CALLED[kind]} {repo} ({kind_and_line(error)}). "
            "Log in with `hf auth login` or set HF_TOKEN, and name a repository you may write to (OWNER/NAME)."
        ) from error
    if public:
        raise VsreError(f"{repo}: this repository is public, so nothing was uploaded. Say --public, or name another.")
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"
