"""One request to a server and its outcome: an answer, or one of three kinds of failure."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from vsre.diagnose.server_answers import Answer, Unreadable, clean, error_text, read_completion
from vsre.diagnose.server_endpoint import Endpoint

MOST_BYTES = 4 * 1024 * 1024
"""A longer response is not read to its end: no answer that was asked for is that long."""

_ERROR_BYTES = 64 * 1024
_PASSING = {408, 409, 425, 429}
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached"}
"""Sent with status 429, but waiting does not help."""

_NOT_THIS = re.compile("log_?prob|moderation|flagged", re.IGNORECASE)
"""What a 403 says if it is about one request: OpenAI's reasoning models give no logprobs, OpenRouter moderates."""

_FINAL = {401, 402, 403, 404, 405}


class Failed(Exception):
    """A failed request. `cause` is a short name to count by; the message, the server's or transport's, is safe to
    show."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Passing(Failed):
    """A temporary failure: ask again, after `wait` seconds if the server says so."""

    def __init__(self, cause: str, message: str, wait: float | None = None) -> None:
        super().__init__(cause, message)
        self.wait = wait


class Refused(Failed):
    """The server rejects this particular request."""


class Final(Failed):
    """No request of ours will be answered: a wrong key, a wrong model, no money left. A 403 may concern one prompt."""


class Client:
    """Sends requests over one pool of connections. `seconds` limits each whole request, even if bytes trickle in."""

    def __init__(self, endpoint: Endpoint, *, concurrency: int, seconds: float) -> None:
        self.endpoint, self.seconds = endpoint, seconds
        self.heard = False  # whether anything ever came back
        self._http = httpx2.AsyncClient(
            # identity: so that bytes read are bytes sent
            headers={"content-type": "application/json", "accept-encoding": "identity", **endpoint.headers()},
            timeout=httpx2.Timeout(seconds, connect=min(10.0, seconds)),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            follow_redirects=False,  # the key goes nowhere else
            trust_env=not endpoint.loopback,  # no proxy on the way to this machine itself
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, body: dict[str, Any]) -> tuple[Answer, float]:
        """The answer and the seconds it took. Raises Passing, Refused or Final."""
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(self.seconds),
                self._http.stream("POST", self.endpoint.chat(), content=json.dumps(body)) as response,
            ):
                self.heard = True
                if not response.is_success:
                    raise self._failure(response, await _read(response, _ERROR_BYTES))
                raw = await _read(response, MOST_BYTES)
        except TimeoutError:
            raise Passing("timeout", f"no whole answer within {self.seconds:g} s") from None
        except httpx2.TimeoutException as error:
            raise Passing("timeout", f"no answer in time ({type(error).__name__})") from None
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise Passing("connection", self._said(str(error)) or type(error).__name__) from None
        if len(raw) > MOST_BYTES:
            raise Refused("too large", f"the response is larger than {MOST_BYTES / 2**20:.0f} MB, so it was not read")
        try:
            answer = read_completion(raw)
        except Unreadable as error:
            raise Passing("unreadable", self._said(str(error))) from None
        redact = self.endpoint.redact  # these two go into records
        named: dict[str, Any] = {
            name: redact(value) for name in ("model", "fingerprint") if (value := getattr(answer, name))
        }
        return replace(answer, **named), time.monotonic() - began

    async def models(self) -> list[str]:
        """The names of the models that the server lists; [] if it lists none."""
        try:
            async with asyncio.timeout(min(10.0, self.seconds)):
                response = await self._http.get(self.endpoint.route("/models"))
            found = response.json()["data"]
            return [name for name in (clean(self._said(model["id"])) for model in found) if name]
        except (TimeoutError, httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return []

    def _failure(self, response: httpx2.Response, raw: bytes) -> Failed:
        status = response.status_code
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = raw.decode("utf-8", "replace")
        said = found if isinstance(found, str) else error_text(found)
        said = f"{status}: {self._said(said) or response.reason_phrase or 'no reason given'}"
        if _codes(found) & _NO_MONEY:
            return Final("402", said)
        if status == 403 and _NOT_THIS.search(said):
            return Refused(str(status), said)
        if status in _FINAL:
            return Final(str(status), said)
        if status in _PASSING or status >= 500:
            return Passing(str(status), said, retry_after(response.headers))
        if response.is_redirect:
            place = self._said(response.headers.get("location", "").split("?")[0])
            return Final(str(status), f"{status}: the server sends us on to {place or 'nowhere'}: use that address")
        return Refused(str(status), said)

    def _said(self, text: str) -> str:
        return clean(self.endpoint.redact(text), 300) or ""


async def _read(response: httpx2.Response, most: int) -> bytes:
    """The body, read until it is at least one byte longer than `most`."""
    parts, size = [], 0
    async for part in response.aiter_bytes(65536):
        parts.append(part)
        size += len(part)
        if size > most:
            break
    return b"".join(parts)


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait by Retry-After (RFC 9110, 10.2.3: seconds or a date) or retry-after-ms; None if unusable.

    A date is taken relative to the server's own clock if the response has a Date.
    """
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = _date(value)
        if until is None:
            return None
        seconds = (until - (_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None  # not for NaN


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _codes(found: Any) -> set[str]:
    error = found.get("error") if isinstance(found, dict) else None
    named = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return {name for name in named if isinstance(name, str)}
