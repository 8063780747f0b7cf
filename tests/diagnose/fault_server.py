"""A chat completions server on loopback that misbehaves as told: a plan says what comes back for each request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from diagnose_data import picture
from PIL import Image

from vsre.diagnose import Prompt, Reply
from vsre.diagnose.server import ServerEngine


def truth(prompt: str) -> str:
    """What the server answers to a prompt: always the same, and not the same to all."""
    return "Yes" if hashlib.sha256(prompt.encode()).digest()[0] % 2 else "No"


@dataclass(frozen=True)
class Request:
    """A request as it came: `number` counts the chat requests from 0."""

    number: int
    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def content(self) -> list[dict[str, Any]]:
        return self.body["messages"][0]["content"]

    @property
    def prompt(self) -> str:
        return self.content[-1]["text"]

    @property
    def image_bytes(self) -> bytes:
        return base64.b64decode(self.content[0]["image_url"]["url"].split(",", 1)[1], validate=True)

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.image_bytes))


@dataclass(frozen=True)
class Send:
    """A response. `cut`: hang up after so many bytes of the body. `after`: seconds before anything is sent. `drip`: one
    byte at a time with so many seconds between. `endless`: the body is repeated for as long as someone reads."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    after: float = 0.0
    drip: float = 0.0
    endless: bool = False


HANG_UP = Send(cut=-1)
"""Not a byte comes back."""


def completion(content: Any, *, message: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The JSON of a completion; `fields` go into its choice, except usage, model and system_fingerprint."""
    outer = {name: fields.pop(name) for name in ("usage", "model", "system_fingerprint") if name in fields}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **(message or {})},
        "finish_reason": fields.pop("finish_reason", "stop"),
        **fields,
    }
    return {
        "object": "chat.completion",
        "model": "fault-1",
        "usage": {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102},
        "choices": [choice],
        **outer,
    }


def say(content: Any, **fields: Any) -> Send:
    return Send(json.dumps(completion(content, **fields)).encode())


def error(status: int, message: str, **headers: str) -> Send:
    body = json.dumps({"error": {"message": message}}).encode()
    return Send(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


_YES = completion("Yes")
FAULTS: dict[str, tuple[Send, str]] = {
    "429": (error(429, "slow down", retry_after="0"), "429"),
    "429 without a word": (Send(status=429), "429"),
    "500": (Send(b"<html>oops</html>", 500), "500"),
    "502": (Send(status=502), "502"),
    "503": (error(503, "loading the model", retry_after="0"), "503"),
    "504": (Send(status=504), "504"),
    "529": (error(529, "overloaded"), "529"),
    "cut in mid-body": (Send(json.dumps(_YES).encode(), cut=40), "connection"),
    "cut before the body": (Send(json.dumps(_YES).encode(), cut=0), "connection"),
    "no byte at all": (HANG_UP, "connection"),
    "slow": (Send(json.dumps(_YES).encode(), after=0.6), "timeout"),
    "dripping": (Send(json.dumps(_YES).encode(), drip=0.05), "timeout"),
    "invalid JSON": (Send(b'{"choices": [{"message": {"content": "Ye'), "unreadable"),
    "not UTF-8": (Send(b'{"choices": "\xff\xfe"}'), "unreadable"),
    "nothing": (Send(b""), "unreadable"),
    "too deep": (Send(b"[" * 200_000), "unreadable"),
    "a list": (Send(b"[]"), "unreadable"),
    "no choices": (Send(b'{"choices": []}'), "unreadable"),
    "choices null": (Send(b'{"choices": null}'), "unreadable"),
    "no message": (Send(b'{"choices": [{"text": "Yes"}]}'), "unreadable"),
    "content a number": (say(7), "unreadable"),
    "an error with status 200": (Send(b'{"error": {"message": "upstream is gone", "code": 502}}'), "unreadable"),
    "ended in an error": (say("Y", finish_reason="error"), "unreadable"),
}
"""What goes away when it is asked again, by name, with what it is counted as."""


Plan = Callable[[Request], "Send | None"]
"""What to send; None for the true answer."""


class FaultServer:
    """Listens from `with` on; `die` closes it with every connection, `start` brings it back at the same port."""

    def __init__(self, plan: Plan = lambda request: None, models: list[str] | None = None) -> None:
        self.plan, self.models = plan, models
        self.requests: list[Request] = []
        self.sent = 0  # bytes of endless bodies
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> FaultServer:
        outer = self

        class Handler(_Handler):
            owner = outer

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def die(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> FaultServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.die()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # connections beyond the default of 5 would wait a second for their turn


class _Handler(BaseHTTPRequestHandler):
    owner: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.owner._open.add(self.connection)

    def finish(self) -> None:
        self.owner._open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        models = self.owner.models
        found = {"data": [{"id": name} for name in models or []]}
        self._send(Send(json.dumps(found).encode(), 404 if models is None else 200))

    def do_POST(self) -> None:
        owner = self.owner
        length = int(self.headers["content-length"])
        raw = self.rfile.read(length)
        if len(raw) < length:  # we died, or the other side gave up
            self.close_connection = True
            return
        body = json.loads(raw)
        with owner._lock:
            names = {name.lower(): value for name, value in self.headers.items()}
            request = Request(len(owner.requests), body, names, time.monotonic())
            owner.requests.append(request)
            owner._at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner._at_once)
        send = owner.plan(request) or say(truth(request.prompt))
        time.sleep(send.after)
        with owner._lock:  # before the answer is out: the next request may come at once
            owner._at_once -= 1
        self._send(send)

    def _send(self, send: Send) -> None:
        with contextlib.suppress(OSError):
            if send.cut is not None and send.cut < 0:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(send.status)
            for name, value in send.headers.items():
                self.send_header(name, value)
            if send.endless:
                self.close_connection = True
                self.end_headers()
                while True:
                    self.wfile.write(send.body)
                    self.owner.sent += len(send.body)
            self.send_header("content-length", str(len(send.body)))
            self.end_headers()
            if send.drip:
                for byte in send.body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(send.drip)
                return
            self.wfile.write(send.body[: send.cut])
            if send.cut is not None:
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)


KEY = "sk-test-9f8e7d6c5b4a"
PICTURE = picture(0)
PROMPTS = [f"Question {i}?" for i in range(12)]


def make(server: FaultServer, **options: Any) -> ServerEngine:
    return ServerEngine(server.url, "m", **{"backoff": 0.01, "timeout": 5.0, "retries": 3, **options})


def ask(engine: ServerEngine, texts: list[str] = PROMPTS) -> list[str | None]:
    """The answers to prompts about one picture, none of which may be an error."""
    (replies,) = engine.answer([(PICTURE, [Prompt(text) for text in texts])])
    assert [reply.error for reply in replies] == [None] * len(texts)
    return [reply.text for reply in replies]


YES_NO = Prompt("Is it?", ("Yes", "No"))


def ask_under(plan: Plan, *prompts: Prompt, **options: Any) -> tuple[list[Reply], ServerEngine, list[Request]]:
    """Replies to prompts (by default YES_NO), one after the other, the engine, and what the server got."""
    with FaultServer(plan) as server:
        engine = make(server, **{"concurrency": 1, "key_env": None, **options})
        (replies,) = engine.answer([(PICTURE, prompts or [YES_NO])])
    return replies, engine, server.requests
