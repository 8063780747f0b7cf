"""What stops a run on a server, and what is in the folder then: whole runs that are lost halfway and taken up again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diagnose_data import make_triplets, write_data
from fault_server import FAULTS, KEY, PICTURE, PROMPTS, FaultServer, Request, Send, error, make, say, truth

from vsre.diagnose import Interrupted, Prompt, diagnose, load_run
from vsre.diagnose.server import ServerEngine
from vsre.errors import VsreError


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def stopped(engine: ServerEngine, texts: list[str] = PROMPTS) -> Interrupted:
    with pytest.raises(Interrupted) as caught:
        engine.answer([(PICTURE, [Prompt(text) for text in texts])])
    for text, reply in zip(texts, caught.value.replies[0], strict=True):
        assert reply is None or (reply.text, reply.error) == (truth(text), None)  # nothing invented
    return caught.value


@pytest.mark.parametrize(
    ("send", "key", "words"),
    [
        (error(401, "who are you"), None, r"401: who are you.*put it into the environment variable OPENAI_API_KEY"),
        (error(401, "wrong key"), KEY, r"The key in the environment variable OPENAI_API_KEY was not accepted"),
        (error(403, "not for you"), KEY, r"403: not for you.*OPENAI_API_KEY"),
        (error(404, "no such model"), None, r"has no model 'm'.*It has: llava-1, llava-2\..*ends in /v1"),
        (error(402, "no credit"), KEY, "wants to be paid"),
        (Send(b'{"error": {"code": "insufficient_quota", "message": "broke"}}', 429), KEY, r"paid \(429: broke\)"),
        (error(429, "come back tomorrow", retry_after="86400"), KEY, r"it asks to wait 86,400 s"),
        (Send(status=307, headers={"location": "http://127.0.0.1:1/v2?t=1"}), None, r"sends us on to http://127.0.0.1:1/v2:"),
        (Send(b"<h1>no</h1>", 405), None, "cannot be asked like this"),
    ],
)  # fmt: skip
def test_what_no_retry_helps(send: Send, key: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with FaultServer(lambda request: None if request.number < 4 else send, ["llava-1", "llava-2"]) as server:
        engine = make(server, concurrency=2)
        ended = stopped(engine)
    with pytest.raises(VsreError, match=words):
        raise ended
    assert sum(reply is not None for reply in ended.replies[0]) == 4
    ours = send.status == 403  # a 403 may be one prompt's alone: the engine's own question tells
    assert len(server.requests) <= 4 + 2 + ours and engine.notes()["retries"]["total"] == 0
    assert KEY not in str(ended)


def test_a_server_that_refuses_everything() -> None:
    with FaultServer(lambda request: error(400, "this model takes no images")) as server:
        engine = make(server)
        ended = stopped(engine)
    assert "refuses every request (400: this model takes no images)" in str(ended)
    assert ended.replies == [[None] * 12]
    assert len(server.requests) <= 8 + 1


@pytest.mark.parametrize(
    "said", ["your input was flagged for violence", "The chosen model requires moderation", "blocked by the firewall"]
)
def test_a_prompt_that_is_forbidden(said: str) -> None:
    """403 for one prompt of a server that answers others is that prompt's error."""
    bad = PROMPTS[5]
    with FaultServer(lambda r: error(403, said) if r.prompt == bad else None) as server:
        engine = make(server, concurrency=1)
        (replies,) = engine.answer([(PICTURE, [Prompt(p) for p in PROMPTS])])
    assert [r.text for r in replies] == [None if p == bad else truth(p) for p in PROMPTS]
    assert replies[5].error == f"the server gave no answer to this prompt (403: {said})"
    assert len(server.requests) == len(PROMPTS) + 1 and engine.notes()["refused"] == {"403": 1}


@pytest.mark.parametrize("said", ["key disabled", "this account was flagged and closed"])
@pytest.mark.parametrize("works", [0, 3])
def test_a_key_that_is_withdrawn(said: str, works: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the words: when our own question is forbidden too, no prompt is to blame."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer(lambda r: None if r.number < works else error(403, said)) as server:
        ended = stopped(make(server, concurrency=1))
    assert said in str(ended) and "OPENAI_API_KEY was not accepted" in str(ended)
    assert sum(reply is not None for reply in ended.replies[0]) == works and len(server.requests) <= works + 2


def test_nobody_there() -> None:
    server = FaultServer().start()
    server.die()
    began = time.monotonic()
    ended = stopped(make(server, retries=6))
    assert "cannot be reached" in str(ended) and server.url in str(ended)
    assert time.monotonic() - began < 2 and ended.replies == [[None] * 12]


def test_a_server_that_worked_before_is_waited_for() -> None:
    """A first address may be wrong, so it is given up soon; a server that has answered has its whole patience."""
    with FaultServer() as server:
        engine = make(server, retries=5, concurrency=1)
        assert engine.answer([(PICTURE, [Prompt("Is it?")])])[0][0].text == truth("Is it?")
    stopped(engine, ["Is it?"])
    assert engine.notes()["retries"] == {"total": 7, "connection": 7}  # five, and two of the engine's own question
    strange = make(server, retries=5, concurrency=1)
    stopped(strange, ["Is it?"])
    assert strange.notes()["retries"] == {"total": 4, "connection": 4}


def test_no_new_requests_once_it_is_over() -> None:
    """What is being asked again ends with the run, too."""

    def plan(request: Request) -> Send:
        return error(500, "oops") if request.prompt == PROMPTS[0] else Send(b"", 401, after=0.1)

    with FaultServer(plan) as server:
        stopped(make(server, retries=60, concurrency=2))
    assert len(server.requests) < 20


@pytest.mark.parametrize("notebook", [False, True])
def test_interrupted_from_the_keyboard(notebook: bool) -> None:
    # A shell's background jobs ignore the interrupt, and this may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupt(notebook)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(notebook: bool) -> None:
    def plan(request: Request) -> Send | None:
        if request.number == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return None if request.number < 6 else Send(b"", after=1)

    with FaultServer(plan) as server:
        engine = make(server, concurrency=2)

        async def cell() -> Interrupted:
            return stopped(engine)

        loop = asyncio.new_event_loop()  # asyncio.run would take the interrupt for itself
        ended = loop.run_until_complete(cell()) if notebook else stopped(engine)
        loop.close()
        assert isinstance(ended.__cause__, KeyboardInterrupt)
        assert sum(reply is not None for reply in ended.replies[0]) in (5, 6)


# Whole runs

PACKS = ["phase1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), make_triplets(8))


def samples(folder: Path) -> list[dict[str, Any]]:
    return sorted(load_run(folder).samples.to_pylist(), key=lambda row: (row["key"], row["template"]))


def dies_at(server: FaultServer, number: int) -> Callable[[Request], Send | None]:
    def plan(request: Request) -> Send | None:
        if request.number == number:
            server.die()
        return None

    return plan


def test_a_server_that_dies_halfway(data: Path, tmp_path: Path) -> None:
    """Dead for good: the run stops with what it has. Back again: the run ends as one that nothing disturbed."""
    with FaultServer() as server:
        whole = diagnose(make(server), data, PACKS, tmp_path / "whole", progress=False)
    server.plan = dies_at(server, len(server.requests) + 100)
    with server:
        with pytest.raises(Interrupted, match="gives no answers"):
            diagnose(make(server), data, PACKS, tmp_path / "run", progress=False)
        with pytest.raises(VsreError, match="not finished"):
            load_run(tmp_path / "run")
        server.plan = lambda request: None
        server.start()
        engine = make(server)
        resumed = diagnose(engine, data, PACKS, tmp_path / "run", progress=False)
    assert resumed == whole and resumed["errors"] == 0
    assert samples(tmp_path / "run") == samples(tmp_path / "whole")
    assert all(row["answer"] == truth(row["prompt"]) for row in samples(tmp_path / "run"))
    keys = [(row["key"], row["pack"], row["template"]) for row in samples(tmp_path / "run")]
    assert len(set(keys)) == len(keys) == whole["n_samples"] == 8 * 2 * 15
    # What had an answer was not asked again: only the requests that were under way when it died.
    assert engine.notes()["answers"] <= whole["n_samples"] - 100 + 8
    assert 2 * whole["n_samples"] <= len(server.requests) <= 2 * whole["n_samples"] + 8


def test_a_server_that_is_restarted(data: Path, tmp_path: Path) -> None:
    """Gone for less than the retries last: nothing is to be seen of it."""
    with FaultServer() as server:

        def plan(request: Request) -> Send | None:
            if request.number == 60:
                server.die()
                time.sleep(0.3)
                server.plan = lambda request: None
                server.start()
            return None

        server.plan = plan
        engine = make(server, backoff=0.1, retries=5)
        metrics = diagnose(engine, data, PACKS, tmp_path, progress=False)
    assert metrics["errors"] == 0 and engine.notes()["retries"]["connection"] > 0
    assert [row["answer"] for row in samples(tmp_path)] == [truth(row["prompt"]) for row in samples(tmp_path)]
    assert len(samples(tmp_path)) == 240


def test_faults_of_every_kind_in_one_run(data: Path, tmp_path: Path) -> None:
    faults = [send for send, cause in FAULTS.values() if cause != "timeout"]
    with FaultServer(lambda r: faults[r.number // 3 % len(faults)] if r.number % 3 == 1 else None) as server:
        metrics = diagnose(make(server, retries=8), data, PACKS, tmp_path, progress=False)
    assert metrics["errors"] == 0
    assert [row["answer"] for row in samples(tmp_path)] == [truth(row["prompt"]) for row in samples(tmp_path)]
    assert len(samples(tmp_path)) == 240


def test_another_address_is_the_same_run(data: Path, tmp_path: Path) -> None:
    """A tunnel, or a job that gets a new port: the run goes on, and its record and figures tell."""
    with FaultServer() as first:
        first.plan = dies_at(first, 10)
        with pytest.raises(Interrupted):
            diagnose(make(first, retries=1), data, ["test-s"], tmp_path, progress=False)
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    assert "base_url" not in record["settings"]["engine"]
    assert record["sessions"][0]["engine"]["base_url"] == first.url
    # As earlier versions wrote it: the address among the settings, versions once.
    record["settings"]["engine"]["base_url"] = record["sessions"][0]["engine"].pop("base_url")
    for name in ("vsre", "versions", "answered"):
        del record["sessions"][0][name]
    path.write_text(json.dumps(record))
    with FaultServer() as second:
        metrics = diagnose(make(second), data, ["test-s"], tmp_path, progress=False)
        again = diagnose(make(second), data, ["test-s"], tmp_path, progress=False)
    assert first.port != second.port and 0 < len(second.requests) < 16
    told = [warning for warning in metrics["warnings"] if "addresses" in warning]
    assert len(told) == 1 and f"({first.url}, {second.url})" in told[0] and again == metrics
    found = load_run(tmp_path).run
    assert "base_url" not in found["settings"]["engine"]
    assert [s.get("engine", {}).get("base_url") for s in found["sessions"]] == [first.url, second.url, None]


def test_errors_are_asked_again_where_that_is_wanted(data: Path, tmp_path: Path) -> None:
    sick = error(400, "out of memory")
    with FaultServer(lambda r: sick if r.number % 4 == 1 else None) as server:
        before = diagnose(make(server, concurrency=1), data, ["test-s"], tmp_path, progress=False)
        assert before["errors"] == 4 and "--retry-errors" in " ".join(before["warnings"])
        server.plan = lambda request: None
        assert diagnose(make(server), data, ["test-s"], tmp_path, progress=False)["errors"] == 4
        engine = make(server)
        after = diagnose(engine, data, ["test-s"], tmp_path, progress=False, retry_errors=True)
        whole = diagnose(make(server), data, ["test-s"], tmp_path / "whole", progress=False)
    assert after == whole and after["errors"] == 0 and engine.notes()["answers"] == 4
    assert samples(tmp_path) == samples(tmp_path / "whole")


def test_answers_cut_at_the_limit_are_told(data: Path, tmp_path: Path) -> None:
    with FaultServer(lambda r: say("Yes, as the", finish_reason="length") if r.number % 4 == 1 else None) as server:
        cut = diagnose(make(server, concurrency=1), data, ["test-s"], tmp_path / "a", progress=False)
        server.plan = lambda request: say("Yes, as the", finish_reason="length") if request.number == 20 else None
        few = diagnose(make(server), data, ["phase1"], tmp_path / "b", progress=False)
    assert any("4 of 16 answers (25.0 %) were cut" in w and "--max-tokens" in w for w in cut["warnings"])
    assert sum(row["cut"] for row in samples(tmp_path / "b")) == 1 and not few["warnings"]


def test_other_settings_are_another_run(data: Path, tmp_path: Path) -> None:
    with FaultServer() as server:
        diagnose(make(server), data, ["test-s"], tmp_path, progress=False)
        for options in ({"temperature": None}, {"image_format": "jpeg"}, {"body": {"top_k": 1}}, {"logprobs": "off"}):
            with pytest.raises(VsreError, match="other settings"):
                diagnose(make(server, **options), data, ["test-s"], tmp_path, progress=False)
        again = make(server, concurrency=1, timeout=9, retries=0, price_in=1.0, price_out=2.0)  # decide no answer
        diagnose(again, data, ["test-s"], tmp_path, progress=False)
    assert again.notes()["requests"] == 0
