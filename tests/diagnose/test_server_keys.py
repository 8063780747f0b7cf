"""Keys and addresses: nothing secret in any record, and no key where it must not go."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from diagnose_data import make_triplets, write_data
from fault_server import KEY, PICTURE, PROMPTS, FaultServer, Request, Send, ask, error, make, say

from vsre.diagnose import Interrupted, Prompt, diagnose
from vsre.diagnose.server import ServerEngine
from vsre.errors import VsreError


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_keys_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats the key wherever it can: as its model's name, in refusals, in the error that ends a run."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")  # as read from a file
    data = write_data(tmp_path / "data", make_triplets(2))

    def plan(request: Request) -> Send | None:
        if request.number == 3:
            return error(400, f"bad: Bearer {KEY} \x1b[31m")
        if request.number == 4:
            return error(500, f"failed with {KEY}")
        if request.number == 9:
            return error(401, f"Incorrect API key provided: {KEY}")
        return say("Yes", model=f"m {KEY}", system_fingerprint=KEY)

    with FaultServer(plan) as server:
        engine = make(server, key_env="MY_KEY", concurrency=1, retries=0)
        with pytest.raises(Interrupted) as caught:
            diagnose(engine, data, ["phase1"], tmp_path / "run", progress=False)
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        other = make(server, key_env="MY_KEY", key_header="api-key")
        with pytest.raises(Interrupted):
            server.plan = lambda request: error(401, "no")
            other.answer([(PICTURE, [Prompt("Is it?")])])
        assert server.requests[-1].headers["api-key"] == KEY
    written = b"".join(file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())
    rows = [row for file in (tmp_path / "run" / "samples").glob("*") for row in _rows(file)]
    seen = [str(caught.value), repr(caught.value), repr(engine), str(vars(engine)), caplog.text, str(rows)]
    seen += [json.dumps(engine.settings()), json.dumps(engine.notes()), written.decode("latin-1")]
    assert not [text for text in seen if KEY in text]
    assert "MY_KEY" in str(caught.value) and "Incorrect API key provided: ***" in str(caught.value)
    assert any("bad: Bearer *** [31m" in (row["error"] or "") for row in rows)
    assert engine.notes()["server_models"].keys() == {"m ***"}


def _rows(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://me:hunter2@example.com/v1", "carries a name or password"),
        ("https://hunter2@example.com/v1", "carries a name or password"),
        ("https://example.com/v1?key=hunter2", "carries key after the question mark"),
        ("https://example.com/v1?api-version=1&sig=hunter2", "carries sig after"),
        ("localhost:8000", "not the address of a server"),
        ("file:///etc/passwd", "not the address of a server"),
        ("http://", "not the address of a server"),
        ("http://localhost:99999", "not the address of a server"),
        ("http://local\nhost", "cannot be read"),
    ],
)
def test_addresses_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(VsreError, match=words) as caught:
        ServerEngine(url, "m")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/chat/completions", "http://localhost:8000/v1"),
        ("https://example.com/api/v1/", "https://example.com/api/v1"),
        ("https://a.example.com/openai/d?api-version=2", "https://a.example.com/openai/d?api-version=2"),
    ],
)
def test_addresses_in_records(url: str, base: str) -> None:
    assert ServerEngine(url, "m").notes()["base_url"] == base


def test_keys_that_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(VsreError, match="would cross the network unencrypted") as caught:
        ServerEngine("http://example.com/v1", "m").answer([(PICTURE, [Prompt("Is it?")])])
    assert KEY not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\nX-Other: 1")
    with FaultServer() as server:
        with pytest.raises(VsreError, match="characters that no key has") as caught:
            make(server).answer([(PICTURE, [Prompt("Is it?")])])
        assert "sk-1" not in str(caught.value)
        ask(make(server, key_env=None))
    assert len(server.requests) == len(PROMPTS) and "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"body": {"model": "other"}}, "body: model cannot be set here"),
        ({"body": {"headers": {"api_key": "x"}}}, "api_key looks like a secret"),
        ({"body": {"x": float("nan")}}, "not JSON"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"image_format": "gif"}, "expected png or jpeg"),
        ({"max_image_side": 0}, "at least 1 pixel"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(VsreError, match=words):
        ServerEngine("http://localhost:8000", "m", **options)
    with pytest.raises(VsreError, match="No model"):
        ServerEngine("http://localhost:8000", " ")
