"""A test set on the hub, which is a fake here; and the verb that writes and pushes one."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.lmms.hub import hub_folder, push


class FakeHub:
    """huggingface_hub.HfApi as far as it is called."""

    calls: list[tuple[str, dict[str, Any]]]
    fails = False
    private = True

    def create_repo(self, repo: str, **more: Any) -> None:
        if FakeHub.fails:
            raise OSError("401 Client Error\nsecret hf_token here")
        FakeHub.calls.append(("create", {"repo": repo, **more}))

    def repo_info(self, repo: str, repo_type: str) -> SimpleNamespace:
        assert (repo, repo_type) == ("me/vsr", "dataset")
        return SimpleNamespace(private=FakeHub.private)

    def upload_folder(self, **more: Any) -> None:
        FakeHub.calls.append(("upload", more))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    FakeHub.calls, FakeHub.fails, FakeHub.private = [], False, True
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    return FakeHub


def test_push_uploads_what_may_be_published(testset_folder: Path, hub: type[FakeHub]) -> None:
    assert push(testset_folder, "me/vsr") == "https://huggingface.co/datasets/me/vsr"
    (_, made), (_, sent) = hub.calls
    assert made == {"repo": "me/vsr", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert sent["folder_path"] == str(testset_folder) and sent["repo_type"] == "dataset"
    files = [str(f.relative_to(testset_folder)) for f in testset_folder.rglob("*") if f.is_file()]
    published = {f for f in files if any(fnmatch(f, pattern) for pattern in sent["allow_patterns"])}
    assert set(files) - published == {"set_aside.jsonl"}  # it names files of this machine
    assert any(fnmatch("test_s/test-00000.parquet", p) for p in sent["delete_patterns"])


def test_nothing_goes_to_a_data_set_that_is_public_unasked(testset_folder: Path, hub: type[FakeHub]) -> None:
    hub.private = False
    with pytest.raises(VsreError, match=r"me/vsr: this repository is public, so nothing was uploaded\. Say --public"):
        push(testset_folder, "me/vsr")
    assert [what for what, _ in hub.calls] == ["create"]
    push(testset_folder, "me/vsr", private=False)
    assert [what for what, _ in hub.calls] == ["create", "create", "upload"]


def test_push_that_fails_says_what_to_do(testset_folder: Path, tmp_path: Path, hub: type[FakeHub]) -> None:
    hub.fails = True
    with pytest.raises(VsreError, match="hf auth login") as told:
        push(testset_folder, "me/vsr")
    assert "hf_token" not in str(told.value)
    with pytest.raises(VsreError, match="no test set here"):
        push(tmp_path, "me/vsr")


def test_a_data_set_that_is_nowhere_is_named() -> None:
    with pytest.raises(VsreError, match="neither a folder here nor a data set"):
        hub_folder("nobody/nothing")


def test_the_verb(triplets_folder: Path, tmp_path: Path, hub: type[FakeHub]) -> None:
    split = tmp_path / "data" / "test"
    split.parent.mkdir()
    split.symlink_to(triplets_folder)
    (tmp_path / "data" / "summary.json").write_text('{"protocol": {"name": "clean-concepts"}}')
    out, figures = tmp_path / "set", tmp_path / "figures.json"
    arguments = ["testset", str(split), "--out", str(out), "--pack", "test-s", "--json", str(figures)]
    result = CliRunner().invoke(app, [*arguments, "--push", "me/vsr", "--public"])
    assert result.exit_code == 0, result.output
    assert "pushed: https://huggingface.co/datasets/me/vsr" in result.output and "load_dataset" in result.output
    assert json.loads(figures.read_text())["protocol"] == "clean-concepts"
    assert hub.calls[0][1]["private"] is False
