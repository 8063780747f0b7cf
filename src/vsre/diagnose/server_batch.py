"""Ask a batch of prompts concurrently until each has its reply, or the server is found to be gone.

Temporary failures are retried, after a wait that doubles. When the retries are used up, the server has to answer a
question of our own. If it does, the prompt fails once more and the server answers again, the prompt is to blame and its
reply is an error. If the server does not answer, the batch stops, and the rest stays unanswered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass

from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply
from vsre.diagnose.server_answers import LEAST_MASS, Answer, option_scores
from vsre.diagnose.server_client import Client, Failed, Final, Passing, Refused
from vsre.diagnose.server_requests import Asking, Dialect
from vsre.diagnose.server_tally import Tally
from vsre.errors import VsreError

MOST_TEXT = 20_000
"""Characters of an answer that are kept."""

_BEFORE_CONTACT = 2
"""Retries before the server has ever responded: a wrong address is likelier than a server that is starting."""

_NO_SCORES = "the server offers no likelihoods"
_UNLIKELY = (
    f"the options are not all among the first tokens that it lists, or together are less likely than {LEAST_MASS:.0%}"
)


@dataclass
class Patience:
    """How failed requests are retried: `retries` times, first after `backoff` seconds, then twice as long each time up
    to `longest`; a server that asks for more than `most_wait` seconds stops the run."""

    retries: int = 6
    backoff: float = 1.0
    longest: float = 60.0
    most_wait: float = 600.0

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds before the next try, never fewer than the server asked for; jittered, to spread requests."""
        own = min(self.longest, self.backoff * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)
        return own if asked is None else max(own, asked + 0.1 * own)


@dataclass
class State:
    """What is learned over an engine's lifetime. `works`: the server has answered at least once."""

    dialect: Dialect
    works: bool = False


@dataclass
class Job:
    """One prompt about one picture."""

    image: int
    prompt: Prompt
    reply: Reply | None = None


class Batch:
    """One call's jobs. After `run`, `stopped` says why nothing more will come, None if all jobs have replies."""

    def __init__(self, client: Client, asking: Asking, patience: Patience, state: State, tally: Tally) -> None:
        self.client, self.asking, self.patience, self.state, self.tally = client, asking, patience, state, tally
        self.stopped: str | None = None
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._answered_at = -1.0  # when the server last answered anything
        self._not_before = 0.0
        self._judging = asyncio.Lock()

    async def run(self, jobs: list[Job], pictures: list[bytes | None], workers: int) -> None:
        encoded = [asyncio.ensure_future(asyncio.to_thread(self._encode, data)) for data in pictures]
        waiting = deque(jobs)

        async def work() -> None:
            while waiting and not self.stopped:
                job = waiting.popleft()
                await self._answer(job, encoded[job.image])

        try:
            await asyncio.gather(*(work() for _ in range(min(workers, len(jobs)))))
        finally:
            for future in encoded:
                future.cancel()

    def stop(self, why: str) -> None:
        """Send no new requests; those under way are still awaited."""
        self.stopped = self.stopped or why
        self._stop.set()

    def stop_from_outside(self, why: str) -> None:
        """`stop` from a thread other than the one that runs the batch."""
        self._loop.call_soon_threadsafe(self.stop, why)

    def _encode(self, data: bytes | None) -> str | VsreError | None:
        try:
            return self.asking.picture(data)
        except VsreError as error:
            return error

    async def _answer(self, job: Job, encoded: Awaitable[str | VsreError | None]) -> None:
        picture = await asyncio.shield(encoded)
        prompt = job.prompt
        if isinstance(picture, VsreError):
            job.reply = Reply(error=str(picture))
        elif prompt.style == "none" and (prompt.end or not prompt.options or not self.state.dialect.top):
            # The first token's list says nothing about how an answer ends.
            job.reply = Reply(error=_NO_SCORES + (" of ending an answer" if prompt.end else ""))
        else:
            job.reply = await self._settle(prompt, picture)

    async def _settle(self, prompt: Prompt, picture: str | None) -> Reply | None:
        """The reply; None if the batch stops before there is one."""
        found: Failed
        for retries in (self.patience.retries, min(1, self.patience.retries)):  # once more after the server proved well
            try:
                return self._reply(prompt, await self._ask(prompt, picture, retries))
            except Final as fault:
                if fault.cause != "403" or not self.state.works:
                    self.stop(await self._final(fault))
                    return None
                found = fault  # about this prompt or all that we ask: our own question tells
            except (Refused, Passing) as fault:
                found = fault
            if not await self._is_well(found, prompt):
                return None
            if not isinstance(found, Passing):
                break
        self.tally.refused[found.cause] += 1
        return Reply(error=f"the server gave no answer to this prompt ({found})")

    async def _ask(self, prompt: Prompt, picture: str | None, retries: int) -> Answer:
        """The answer, tried as often as `retries` allow and in every dialect. Raises Failed."""
        dialect, failures, last = self.state.dialect, 0, time.monotonic()
        while True:
            while (left := self._not_before - time.monotonic()) > 0 and not self.stopped:
                await self._pause(left)
            if self.stopped:
                raise Passing("stopped", self.stopped)
            began = time.monotonic()
            self.tally.requests += 1
            try:
                answer, seconds = await self.client.ask(self.asking.body(prompt, picture, dialect))
            except Refused as fault:
                plainer = dialect.plainer(str(fault))
                if plainer is None:
                    raise
                dialect = plainer
                continue
            except Passing as fault:
                # Being rate-limited is no failure, as long as the server answers other requests.
                failures = 1 if fault.cause == "429" and self._answered_at > last else failures + 1
                last = began
                if fault.wait is not None and fault.wait > self.patience.most_wait:
                    raise Final("wait", f"{fault}; it asks to wait {fault.wait:,.0f} s") from None
                if failures > (retries if self.client.heard else min(retries, _BEFORE_CONTACT)):
                    raise
                self.tally.retries[fault.cause] += 1
                wait = self.patience.wait(failures, fault.wait)
                if fault.wait is not None:  # it is about the server, not this prompt
                    self._not_before = max(self._not_before, time.monotonic() + fault.wait)
                await self._pause(wait)
                continue
            self._answered_at = time.monotonic()
            self.state.works = True
            self.state.dialect = self.state.dialect.and_(dialect)
            self.tally.answered(answer, seconds)
            return answer

    def _reply(self, prompt: Prompt, answer: Answer) -> Reply:
        if answer.filtered:
            self.tally.refused["content filter"] += 1
            return Reply(error="the server's content filter withheld the answer")
        scores = () if prompt.end else option_scores(answer.first, prompt.options)
        if prompt.options:
            self.tally.scores_asked += 1
            self.tally.scores_listed += bool(answer.first)
            self.tally.scores_given += bool(scores)
        if prompt.style == "none":
            why = _UNLIKELY if answer.first else _NO_SCORES
            return Reply(scores=scores) if scores else Reply(error=why)
        if len(answer.text) > MOST_TEXT:
            self.tally.odd["cut_for_storage"] += 1
        return Reply(answer.text[:MOST_TEXT], scores, cut=answer.finish == "length" if answer.finish else None)

    async def _is_well(self, fault: Failed, prompt: Prompt) -> bool:
        """Whether the server answers other requests after a prompt's failure. If not, everything stops here."""
        failed_at = time.monotonic()
        async with self._judging:
            if self.stopped:
                return False
            # After a 403 nothing else may come (a key that was withdrawn), so earlier answers prove nothing.
            if fault.cause != "403" and (
                (isinstance(fault, Refused) and self.state.works) or self._answered_at > failed_at
            ):
                return True
            try:
                await self._ask(*self.asking.canary(), retries=min(2, self.patience.retries))
                return True
            except Final as final:
                self.stop(await self._final(final))
            except Refused as other:
                if self.state.works and other.cause != "403":
                    return True
                hint = f" {self.client.endpoint.key_hint()}" if other.cause == "403" else _hint(str(other))
                self.stop(f"refuses every request ({other}).{hint}")
            except Passing as other:
                self.stop(
                    f"gives no answers ({other}). The first prompt without one: {prompt.text[:80]!r}."
                    if self.client.heard
                    else f"cannot be reached ({other}). Is the server running, and is this its address?"
                )
            return False

    async def _final(self, fault: Final) -> str:
        if fault.cause in ("401", "403"):
            return f"refuses us ({fault}). {self.client.endpoint.key_hint()}"
        if fault.cause == "404":
            known = await self.client.models()
            shown = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
            has = f"It has: {shown}." if known else "It does not list its models."
            return (
                f"has no model {self.asking.model!r}, or no chat completions at this address ({fault}). {has} "
                "Check the model's name, and the address, which for most servers ends in /v1."
            )
        if fault.cause == "402":
            return f"wants to be paid ({fault}). Settle the account, then run again."
        if fault.cause == "wait":
            return f"asks for a long pause ({fault}). Run again after it."
        return f"cannot be asked like this ({fault})."

    async def _pause(self, seconds: float) -> None:
        """Sleep, but only until the batch stops."""
        if seconds > 0 and not self.stopped:
            try:
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
            except TimeoutError:
                pass


def _hint(said: str) -> str:
    if "temperature" in said:
        return (
            " If the model does not take temperature 0, use --temperature none (in Python temperature=None): its "
            "answers are then not greedy."
        )
    return " Does this model take pictures, and is this its name on the server?"
