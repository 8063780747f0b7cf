"""Uploading a folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vsre.errors import VsreError, kind_and_line

_CALLED = {"model": "the model repository", "dataset": "the data set"}


def push_folder(
    folder: Path, repo: str, kind: Literal["model", "dataset"], *, private: bool, message: str, **upload: Any
) -> str:
    """Upload a folder to a repository, created if necessary; returns its address. `upload`: further arguments of
    `HfApi.upload_folder`.

    The token is the hub's own (HF_TOKEN, or `hf auth login`); it is not read here. Raises VsreError if the hub
    refuses, and if `private` is asked for but the repository is already public: an upload does not change its
    visibility.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        public = private and not api.repo_info(repo, repo_type=kind).private
        if not public:
            api.upload_folder(repo_id=repo, repo_type=kind, folder_path=str(folder), commit_message=message, **upload)
    except Exception as error:  # from requests, the hub or the network: either way the upload failed
        raise VsreError(
            f"{folder}: cannot be pushed to {_CALLED[kind]} {repo} ({kind_and_line(error)}). "
            "Log in with `hf auth login` or set HF_TOKEN, and name a repository you may write to (OWNER/NAME)."
        ) from error
    if public:
        raise VsreError(f"{repo}: this repository is public, so nothing was uploaded. Say --public, or name another.")
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"
