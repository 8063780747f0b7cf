"""The server engine against a server that misbehaves: every answer arrives once, none is lost, none is invented."""

from __future__ import annotations

import asyncio
import io
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnose_data import picture
from fault_server import (
    FAULTS,
    HANG_UP,
    PICTURE,
    PROMPTS,
    FaultServer,
    Plan,
    Request,
    Send,
    ask,
    error,
    make,
    say,
    truth,
)
from PIL import Image, PngImagePlugin

from vsre.diagnose import Decoding, Prompt


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def first(send: Send, times: int = 1) -> Plan:
    """`send` for the first requests, the truth for the rest."""
    return lambda request: send if request.number < times else None


# Requests


def test_what_is_sent() -> None:
    with FaultServer() as server:
        engine = make(server, decoding=Decoding(5, 9), body={"chat_template_kwargs": {"enable_thinking": False}})
        asked = [
            (picture(i), [Prompt(f"{i}-{style}?", ("Yes", "No") if i else (), style) for style in ("short", "full")])
            for i in range(3)
        ]
        replies = engine.answer(asked)
    assert [[r.text for r in row] for row in replies] == [[truth(p.text) for p in prompts] for _, prompts in asked]
    assert len(server.requests) == 6
    for request in server.requests:
        body = dict(request.body)
        (message,) = body.pop("messages")
        assert message["role"] == "user" and [part["type"] for part in message["content"]] == ["image_url", "text"]
        number, style = request.prompt.rstrip("?").split("-")
        scored = {"logprobs": True, "top_logprobs": 20} if number != "0" else {}
        assert body == {
            "model": "m",
            "temperature": 0.0,
            "seed": 0,
            "max_tokens": {"short": 5, "full": 9}[style],
            "chat_template_kwargs": {"enable_thinking": False},
            **scored,
        }
        assert "authorization" not in request.headers
        sent, given = np.asarray(request.image), np.asarray(Image.open(io.BytesIO(picture(int(number)))))
        assert np.array_equal(sent, given)


def test_questions_alone() -> None:
    with FaultServer() as server:
        engine = make(server, pictures=False)
        ask(engine, ["Is it?"])
        assert engine.answer([(None, [Prompt("Is it?")])])[0][0].text == truth("Is it?")
    assert [part["type"] for part in server.requests[0].content] == ["text"]
    assert engine.settings()["image"]["sent"] is False


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_bytes_from_outside_are_not_forwarded() -> None:
    """Text chunks, colour profiles and what is appended to a picture stay here; the pixels arrive as they are shown."""
    image = Image.open(io.BytesIO(picture(3))).convert("RGB")
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "SMUGGLED")
    hidden = encoded(image, "PNG", pnginfo=notes, icc_profile=b"SMUGGLED" * 20) + b"SMUGGLED"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    turned = encoded(image, "PNG", exif=exif)
    told = encoded(image, "JPEG", comment=b"SMUGGLED", icc_profile=b"SMUGGLED")
    with FaultServer() as server:
        make(server, concurrency=1).answer([(data, [Prompt("Is it?")]) for data in (hidden, turned)])
        make(server, image_format="jpeg", max_image_side=32).answer([(told, [Prompt("Is it?")])])
    plain, upright, small = server.requests
    assert plain.image.info == {} and not {"comment", "icc_profile", "exif"} & small.image.info.keys()
    assert b"SMUGGLED" not in plain.image_bytes and np.array_equal(np.asarray(plain.image), np.asarray(image))
    assert upright.image.size == (48, 64) and upright.image.getexif() == {}
    assert b"SMUGGLED" not in small.image_bytes
    assert (small.image.format, small.image.mode, small.image.size) == ("JPEG", "RGB", (32, 24))


def test_bad_pictures_cost_only_their_own_prompts() -> None:
    cmyk = encoded(Image.new("CMYK", (20, 10), (0, 255, 255, 0)), "JPEG")
    asked = [
        (b"no picture", [Prompt("a?"), Prompt("b?")]),
        (None, [Prompt("c?")]),
        (b"http://example.com/cat.png", [Prompt("d?")]),
        (cmyk, [Prompt("e?")]),
        (PICTURE, []),
    ]
    with FaultServer() as server:
        replies = make(server).answer(asked)
    assert [[r.error is None for r in row] for row in replies] == [[False, False], [False], [False], [True], []]
    assert "not a picture" in replies[0][0].error and "holds no picture" in replies[1][0].error
    assert [request.prompt for request in server.requests] == ["e?"] and server.requests[0].image.mode == "RGB"


def test_concurrency_is_bounded_and_used() -> None:
    with FaultServer(lambda request: Send(say(truth(request.prompt)).body, after=0.03)) as server:
        assert ask(make(server, concurrency=3)) == [truth(p) for p in PROMPTS]
    assert server.most_at_once == 3


def test_in_a_running_event_loop() -> None:
    """As in a notebook."""

    async def cell() -> list[str | None]:
        return ask(make(server))

    with FaultServer() as server:
        assert asyncio.run(cell()) == [truth(p) for p in PROMPTS]


# Faults that pass


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_asked_again(fault: str) -> None:
    send, cause = FAULTS[fault]
    with FaultServer(first(send, 2)) as server:
        engine = make(server, timeout=0.3 if cause == "timeout" else 5.0)
        assert ask(engine) == [truth(p) for p in PROMPTS]
    assert engine.notes()["retries"] == {"total": 2, cause: 2}
    assert len(server.requests) == len(PROMPTS) + 2 == engine.notes()["requests"]


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured_by_all(as_date: bool) -> None:
    """The server asks one request to wait: no other is sent meanwhile either."""
    wait = 2 if as_date else 1  # a date has no fractions of a second

    def plan(request: Request) -> Send | None:
        if request.number == 0:
            value = formatdate(time.time() + wait, usegmt=True) if as_date else str(wait)
            return error(429, "slow down", retry_after=value)
        return Send(say(truth(request.prompt)).body, after=0.5) if request.number == 1 else None  # under way meanwhile

    with FaultServer(plan) as server:
        engine = make(server, concurrency=2, most_wait=5)
        assert ask(engine, PROMPTS[:6]) == [truth(p) for p in PROMPTS[:6]]
    told, _, *later = server.requests
    assert min(request.at - told.at for request in later) >= wait - (1.0 if as_date else 0.02)


def test_busy_server_that_goes_on_answering_others() -> None:
    """429 for two of three requests: each prompt may be told many times, as long as there is progress."""
    with FaultServer(lambda request: error(429, "busy") if request.number % 3 else None) as server:
        engine = make(server, retries=2)
        assert ask(engine, PROMPTS * 3) == [truth(p) for p in PROMPTS * 3]


# Faults that are a prompt's own


def test_refused_prompt(tmp_path: Path) -> None:
    """Status 400 is that prompt's error, at once, wherever it comes."""
    for bad in (0, 5, 11):
        with FaultServer(lambda r, bad=bad: error(400, "too long") if r.prompt == PROMPTS[bad] else None) as server:
            engine = make(server, concurrency=1)
            (replies,) = engine.answer([(PICTURE, [Prompt(p) for p in PROMPTS])])
        assert [r.text for r in replies] == [None if i == bad else truth(p) for i, p in enumerate(PROMPTS)]
        assert replies[bad].error == "the server gave no answer to this prompt (400: too long)"
        assert sum(r.prompt == PROMPTS[bad] for r in server.requests) == 1
        assert engine.notes()["refused"] == {"400": 1}


@pytest.mark.parametrize("send", [Send(b"", 500), HANG_UP], ids=["500", "cut"])
@pytest.mark.parametrize("bad", [{0, 1, 2, 3}, {8, 9, 10, 11}])
def test_prompts_that_break_the_server(send: Send, bad: set[int]) -> None:
    """The server is well, and each time these come it fails: their errors, and all others have their answers."""
    broken = {PROMPTS[i] for i in bad}
    with FaultServer(lambda request: send if request.prompt in broken else None) as server:
        (replies,) = make(server, concurrency=2, retries=1).answer([(PICTURE, [Prompt(p) for p in PROMPTS])])
    assert [r.text for r in replies] == [None if i in bad else truth(p) for i, p in enumerate(PROMPTS)]
    assert all("no answer to this prompt" in replies[i].error for i in bad)


def test_back_just_in_time() -> None:
    """Gone until the retries are used up, back when the engine asks whether it is: no prompt is to blame."""

    def plan(request: Request) -> Send | None:
        back = any(other.prompt not in PROMPTS for other in server.requests)
        return None if back or request.number < 3 else Send(status=502)

    with FaultServer(plan) as server:
        engine = make(server, retries=1, concurrency=4)
        assert ask(engine) == [truth(p) for p in PROMPTS]
    assert engine.notes()["refused"] == {}


def test_ten_megabytes() -> None:
    """A response is read up to a limit and is that prompt's error; a long answer is kept in part, and counted."""

    def plan(request: Request) -> Send | None:
        return {
            "huge": say("Yes " * 2_500_000),
            "endless": Send(b"x" * 65536, endless=True),
            "long": say("Yes " * 25_000),
        }.get(request.prompt)

    with FaultServer(plan) as server:
        engine = make(server)
        began = time.monotonic()
        (replies,) = engine.answer([(PICTURE, [Prompt(text) for text in ("huge", "endless", "long", "Is it?")])])
        assert time.monotonic() - began < 4
    assert "larger than 4 MB" in replies[0].error and "larger than 4 MB" in replies[1].error
    assert server.sent < 64 * 2**20
    assert replies[2].text == "Yes " * 5_000 and replies[3].text == truth("Is it?")
    assert engine.notes()["odd_answers"] == {"cut_for_storage": 1}
