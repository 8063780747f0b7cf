"""`vsre diagnose --server`: what its options send, what it says on the console, and options that make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diagnose_data import make_triplets, write_data
from fault_server import KEY, FaultServer, Request, Send, error, say
from PIL import Image
from typer.testing import CliRunner, Result

from vsre.cli import app
from vsre.errors import VsreError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), make_triplets(4))


def command(data: Path, out: Path, server: FaultServer | None, *options: str) -> Result:
    place = ["--server", server.url] if server else []
    arguments = ["diagnose", "m", "-t", str(data), "-o", str(out), "--pack", "phase1", "--probes", "0", *place]
    return CliRunner().invoke(app, [*arguments, *options], env={"COLUMNS": "400"})


def test_what_the_options_send(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = {"chat_template_kwargs": {"enable_thinking": False}}
    options = ["--max-tokens", "2048", "--temperature", "none", "--no-logprobs", "--no-key", "--body", json.dumps(body)]
    with FaultServer() as server:
        assert command(data, tmp_path / "plain", server).exit_code == 0
        plain = server.requests[-1]
        assert plain.headers["authorization"] == f"Bearer {KEY}" and plain.body["temperature"] == 0
        assert {r.body["max_tokens"] for r in server.requests} == {16} and plain.body["logprobs"] is True
        server.requests.clear()
        result = command(data, tmp_path / "run", server, *options)
        assert result.exit_code == 0, result.output
        assert {r.body["max_tokens"] for r in server.requests} == {2048}
        for request in server.requests:
            assert not {"temperature", "logprobs", "top_logprobs"} & request.body.keys()
            assert "authorization" not in request.headers and request.body.items() >= body.items()
        server.requests.clear()
        result = command(data, tmp_path / "warm", server, "--temperature", "0.7")
        assert result.exit_code == 0 and {r.body["temperature"] for r in server.requests} == {0.7}
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["engine"]
    assert settings["decoding"]["full_tokens"] == 2048 and settings["decoding"]["greedy"] is False


def test_errors_and_cut_answers_on_the_console(data: Path, tmp_path: Path) -> None:
    def plan(request: Request) -> Send | None:
        if request.number % 10 == 3:
            return error(400, "out of memory")
        return say("Yes, the", finish_reason="length") if request.number % 10 == 4 else None

    with FaultServer(plan) as server:
        before = command(data, tmp_path, server, "--no-key", "--concurrency", "1")
        server.plan = lambda request: None
        asked = len(server.requests)
        after = command(data, tmp_path, server, "--no-key", "--retry-errors")
    assert before.exit_code == after.exit_code == 0
    assert (
        "warning: 12 questions ended in an error" in before.output and "vsre diagnose --retry-errors" in before.output
    )
    assert "12 of 108 answers (11.1 %) were cut at the token limit" in before.output
    assert "ended in an error" not in after.output and len(server.requests) == asked + 12


@pytest.mark.parametrize(
    ("server", "options", "words"),
    [
        (False, ["--body", "{}"], r"--body: only for a server, but none is named"),
        (False, ["--no-key", "--temperature", "0"], r"--temperature, --no-key: only for a server"),
        (False, ["--no-logprobs"], r"--no-logprobs: only for a server"),
        (False, ["--max-tokens", "0"], r"--max-tokens 0"),
        (True, ["--body", "{'a': 1}"], r"--body: not JSON \(.*in single quotes"),
        (True, ["--body", "[1]"], r"not an object of fields \(list\)"),
        (True, ["--body", '{"model": "x"}'], r"body: model cannot be set here"),
        (True, ["--temperature", "warm"], r"--temperature warm: give a number"),
        (True, ["--temperature", "-1"], r"--temperature -1"),
        (True, ["--temperature", "nan"], r"--temperature nan"),
        (True, ["--no-key", "--key-env", "MINE"], r"--no-key and --key-env MINE: give one"),
    ],
)
def test_options_that_make_no_sense(data: Path, tmp_path: Path, server: bool, options: list[str], words: str) -> None:
    unused = FaultServer()
    unused.port = 1
    result = command(data, tmp_path / "run", unused if server else None, *options)
    assert isinstance(result.exception, VsreError), result.output
    with pytest.raises(VsreError, match=words):
        raise result.exception
    assert not (tmp_path / "run").exists()


def test_one_picture_is_asked_with_the_same_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    with FaultServer() as server:
        options = ["--server", server.url, "--max-tokens", "99", "--no-key", "--temperature", "none"]
        result = CliRunner().invoke(app, ["ask", "m", str(tmp_path / "red.png"), "What colour is it?", *options])
        assert result.exit_code == 0, result.output
        for request in server.requests:
            assert request.body["max_tokens"] == 99 and not {"temperature"} & request.body.keys()
            assert "authorization" not in request.headers
        assert server.requests
