"""An export on the hub, which is a fake here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from vsre.cli import app
from vsre.errors import VsreError
from vsre.export import export_model, push_model


class FakeHub:
    """huggingface_hub.HfApi as far as it is called; it takes no token, so none can be given to it."""

    calls: list[tuple[str, dict[str, Any]]]
    private = True
    fails = False

    def create_repo(self, repo: str, **more: Any) -> None:
        if FakeHub.fails:
            raise OSError("401 Client Error\nAuthorization: Bearer hf_secret")
        FakeHub.calls.append(("create", {"repo": repo, **more}))

    def repo_info(self, repo: str, *, repo_type: str) -> SimpleNamespace:
        return SimpleNamespace(private=FakeHub.private)

    def upload_folder(self, **more: Any) -> None:
        FakeHub.calls.append(("upload", more))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    FakeHub.calls, FakeHub.private, FakeHub.fails = [], True, False
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return FakeHub


@pytest.fixture(scope="module")
def exported(tiny_llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("push") / "out"
    export_model(tiny_llava_folder, out)
    return out


def test_uploads_the_folder_and_is_private(exported: Path, hub: type[FakeHub]) -> None:
    assert push_model(exported, "me/vsre") == "https://huggingface.co/me/vsre"
    (_, made), (_, sent) = hub.calls
    assert made == {"repo": "me/vsre", "repo_type": "model", "private": True, "exist_ok": True}
    assert sent["folder_path"] == str(exported) and sent["repo_type"] == "model"
    assert "*.safetensors" in sent["delete_patterns"] and "*.py" in sent["delete_patterns"]


def test_nothing_goes_to_a_repository_that_is_public_unasked(exported: Path, hub: type[FakeHub]) -> None:
    hub.private = False
    with pytest.raises(VsreError, match="is public, so nothing was uploaded"):
        push_model(exported, "me/vsre")
    assert [name for name, _ in hub.calls] == ["create"]
    push_model(exported, "me/vsre", private=False)
    assert [name for name, _ in hub.calls][-1] == "upload"


def test_a_push_that_fails_says_what_to_do(exported: Path, tmp_path: Path, hub: type[FakeHub]) -> None:
    hub.fails = True
    with pytest.raises(VsreError, match="hf auth login") as told:
        push_model(exported, "me/vsre")
    assert "hf_secret" not in str(told.value)
    with pytest.raises(VsreError, match="no export here"):
        push_model(tmp_path, "me/vsre")


def test_the_verb(tiny_llava_folder: Path, tmp_path: Path, hub: type[FakeHub]) -> None:
    arguments = ["export", str(tiny_llava_folder), str(tmp_path / "out"), "--push", "me/vsre"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "pushed: https://huggingface.co/me/vsre" in result.output and "hf_secret" not in result.output
    assert hub.calls[0][1]["private"] is True
    result = CliRunner().invoke(app, [*arguments, "--public"])
    assert result.exit_code == 0 and hub.calls[2][1]["private"] is False
