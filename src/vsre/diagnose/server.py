"""An engine for any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama, hosted ones."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any, Literal

from vsre.diagnose.decoding import Decoding
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Interrupted, Reply
from vsre.diagnose.server_batch import Batch, Job, Patience, State
from vsre.diagnose.server_client import Client
from vsre.diagnose.server_endpoint import Endpoint
from vsre.diagnose.server_requests import Asking, Dialect, ImageFormat
from vsre.diagnose.server_tally import Tally
from vsre.errors import VsreError


class ServerEngine:
    """Asks a model on a server, `concurrency` prompts at a time, each with its picture.

    `base_url` is the server's address (http://localhost:8000/v1), `model` its name there. `timeout` is in seconds, for
    one request as a whole. Temporary failures (no connection, time-out, status 408, 409, 425, 429 or 5xx, a response
    without an answer) are retried up to `retries` times, after `backoff` seconds and twice as long each time, or as
    Retry-After says; a server that asks for more than `most_wait` seconds stops the run.

    The key comes from the environment variable `key_env` (None: no key) and goes into the header `key_header`, with
    "Bearer" before it in Authorization. Prices are per million tokens. `temperature` and `seed` None leave these to the
    server. `pictures` False sends only the questions. Pictures are re-encoded, losslessly as PNG or as JPEG, and scaled
    down to at most `max_image_side` pixels on their longer side; `image_detail` is OpenAI's ("low", "high"). `body`
    holds further fields of the request. `logprobs` "off" asks for no likelihoods.

    Scores are for the answer's first token only, and only if the server lists every option there as one token.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 6,
        backoff: float = 1.0,
        most_wait: float = 600.0,
        decoding: Decoding | None = None,
        temperature: float | None = 0.0,
        seed: int | None = 0,
        key_env: str | None = "OPENAI_API_KEY",
        key_header: str = "Authorization",
        price_in: float | None = None,
        price_out: float | None = None,
        pictures: bool = True,
        image_format: ImageFormat = "png",
        max_image_side: int | None = None,
        image_detail: str | None = None,
        body: Mapping[str, Any] | None = None,
        logprobs: Literal["auto", "off"] = "auto",
        batch_images: int | None = None,
    ) -> None:
        """Raises VsreError for an address with credentials in it and for settings that make no sense; asks nothing."""
        if not model.strip():
            raise VsreError("No model was named: give the name under which the server knows it.")
        if concurrency < 1 or timeout <= 0 or retries < 0 or backoff < 0 or (batch_images or 1) < 1:
            raise VsreError(
                "concurrency and batch_images must be 1 or more, timeout above 0, retries and backoff 0 or more."
            )
        try:
            extra = json.loads(json.dumps(dict(body or {}), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise VsreError(f"body: not JSON ({error}).") from None
        self.name = model
        self.batch_images = batch_images or concurrency
        self.endpoint = Endpoint.at(base_url, key_env, key_header)
        self.concurrency, self.timeout = concurrency, timeout
        self.patience = Patience(retries, backoff, most_wait=most_wait)
        self.asking = Asking(
            model=model,
            decoding=decoding or Decoding(),
            temperature=temperature,
            seed=seed,
            pictures=pictures,
            image_format=image_format,
            max_image_side=max_image_side,
            image_detail=image_detail,
            extra=extra,
        )
        self._wants_scores = logprobs == "auto"
        self._state = State(Dialect(top=20 if self._wants_scores else 0))
        self._tally = Tally(price_in, price_out)

    def without_picture(self) -> ServerEngine:
        """The same model asked the same questions without a picture; requests and costs are counted together."""
        blind = copy.copy(self)
        blind.asking = replace(self.asking, pictures=False)
        return blind

    @property
    def base_url(self) -> str:
        """The address, without anything secret."""
        return self.endpoint.base

    def settings(self) -> dict[str, Any]:
        """Which weights answer is up to the server: the model's name counts, not its weights or its address."""
        return {
            "engine": "server",
            "model": self.name,
            "decoding": {
                "greedy": self.asking.temperature == 0,
                "temperature": self.asking.temperature,
                "seed": self.asking.seed,
                **asdict(self.asking.decoding),
            },
            "logprobs": "auto" if self._wants_scores else "off",
            **self.asking.settings(),
        }

    def notes(self) -> dict[str, Any]:
        dialect, tally = self._state.dialect, self._tally
        if not self._wants_scores:
            scores = "no likelihoods: not asked for"
        elif not dialect.top:
            scores = f"no likelihoods: the server refuses logprobs ({dialect.lost})"
        elif tally.scores_asked and not tally.scores_listed:
            scores = "no likelihoods: the server sends none"
        else:
            scores = f"likelihoods of the first token, from the {dialect.top} that the server lists"
        return {
            "way": "chat completions of a server",
            "why": scores,
            "base_url": self.base_url,
            **tally.notes(),
            "sent": {
                "limit_as": dialect.limit,
                "seed": dialect.seed and self.asking.seed is not None,
                "top_logprobs": dialect.top,
            },
            "concurrency": self.concurrency,
            "timeout_s": self.timeout,
        }

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        """As in Engine. Raises Interrupted, with the replies so far, if the server refuses us or is gone, or on a
        keyboard interrupt (KeyboardInterrupt is then its cause)."""
        jobs = [Job(i, prompt) for i, (_, prompts) in enumerate(asked) for prompt in prompts]
        batches: list[Batch] = []

        async def work() -> None:
            client = Client(self.endpoint, concurrency=self.concurrency, seconds=self.timeout)
            try:
                client.heard = self._state.works
                batches.append(Batch(client, self.asking, self.patience, self._state, self._tally))
                await batches[0].run(jobs, [data for data, _ in asked], self.concurrency)
            finally:
                await client.close()

        def stop() -> None:
            for batch in batches:
                batch.stop_from_outside(interrupted)

        why, cause, interrupted = None, None, "was not asked further: interrupted from the keyboard."
        if jobs:
            try:
                _run(work, stop)
                why = batches[0].stopped
            except KeyboardInterrupt as error:
                why, cause = interrupted, error
        replies: list[list[Reply | None]] = [[] for _ in asked]
        for job in jobs:
            replies[job.image].append(job.reply)
        if why is not None:
            raise Interrupted(
                f"{self.base_url} {why} What was answered is kept: the same command resumes from there.",
                replies,
            ) from cause
        return [[reply or Reply(error="the engine gave no reply") for reply in row] for row in replies]


def _run(work: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], None]) -> None:
    """Run a coroutine function to its end, even if an event loop is already running (in a notebook): then in a thread,
    which `stop` ends."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
        return
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: asyncio.run(work()))
        try:
            future.result()
        except KeyboardInterrupt:
            stop()
            raise
