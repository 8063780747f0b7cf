"""A test set on the Hugging Face hub: uploading it, and downloading it."""

from __future__ import annotations

from pathlib import Path

from vsre.errors import VsreError, kind_and_line
from vsre.hub import push_folder
from vsre.lmms.folder import read_summary

PUBLISHED = ["README.md", "testset.json", "*/test-*.parquet"]
"""What goes to the hub; set_aside.jsonl names files of this machine and stays."""


def push(folder: str | Path, repo: str, *, private: bool = True) -> str:
    """Upload a written test set to the data set repository `repo` (made if it is not there); returns its address.

    Shards of an earlier upload that this one does not replace are removed. The key is the hub's own (HF_TOKEN, or `hf
    auth login`). Raises VsreError if there is no test set, if the hub refuses, or if `private` is wanted and the
    repository is already public: this upload does not change what an earlier one made public.
    """
    read_summary(folder)
    patterns = {"allow_patterns": PUBLISHED, "delete_patterns": ["*/test-*.parquet"]}
    return push_folder(Path(folder), repo, "dataset", private=private, message="Test set written by vsre", **patterns)


def hub_folder(repo: str, config: str | None = None) -> Path:
    """The local copy of a test set on the hub: its testset.json, and with `config` that configuration's shards.

    What the hub's cache holds is not fetched again. Raises VsreError if it cannot be obtained.
    """
    from huggingface_hub import snapshot_download

    wanted = ["testset.json"] + ([f"{config}/test-*.parquet"] if config else [])
    try:
        return Path(snapshot_download(repo, repo_type="dataset", allow_patterns=wanted))
    except Exception as error:
        raise VsreError(
            f"{repo}: neither a folder here nor a data set available on the hub ({kind_and_line(error)}). "
            "Name the folder that `vsre testset` wrote, or OWNER/NAME of one that was pushed."
        ) from error
