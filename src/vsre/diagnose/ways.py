"""The two ways to have a batch of prompts answered: from a shared prefix, or each prompt whole.

Both give the same replies; the second is slower and works for every model. An error in a batch costs only the prompts
that cause it: the batch is halved until they are alone.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image

from vsre.diagnose.decoding import Decoding
from vsre.diagnose.devices import input_device
from vsre.diagnose.prompts import Prompt, Renderer
from vsre.diagnose.replies import Reply, Score
from vsre.errors import kind_and_line

Images = dict[int, Image.Image]


@dataclass(eq=False)
class Job:
    """A prompt to answer: `image` is its image's number, `reply` its reply once there is one."""

    image: int
    prompt: Prompt
    rendered: str
    reply: Reply | None = None
    suffix: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Way(ABC):
    """What both ways need. `context` is the model's longest sequence, `batch` the most prompts at once."""

    name: ClassVar[str]

    model: Any
    renderer: Renderer
    decoding: Decoding
    end: set[int]
    context: float
    batch: int

    @abstractmethod
    def give_up(self, job: Job, reason: str) -> None:
        """Handle a job that this way cannot answer."""

    @cached_property
    def device(self) -> torch.device:
        return input_device(self.model)

    def to_model(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors on the device that takes the model's inputs; floating-point ones in its dtype."""
        place, dtype = self.device, self.model.dtype
        return {n: t.to(place, dtype) if t.is_floating_point() else t.to(place) for n, t in tensors.items()}

    def too_long(self, tokens: int, style: str) -> str | None:
        limit = self.decoding.limit(style)
        apart = self.renderer.encoder_decoder  # the answer's positions are the decoder's own
        if (max(tokens, limit) if apart else tokens + limit) <= self.context:
            return None
        return (
            f"the prompt has {tokens} tokens; with {limit} for the answer that is beyond the model's {self.context:.0f}"
        )

    def scores(
        self, jobs: Sequence[Job], first: torch.Tensor, dictate: Callable[[list[int], list[list[int]]], torch.Tensor]
    ) -> list[tuple[Score, ...]]:
        """How likely each job's options are; () for one with an option that the tokenizer cannot write.

        `first` (jobs, V) are the logits of the next token. `dictate(rows, told)` gives the logits after the prompts
        `rows` and after each of the k tokens told to each of them: (rows, 1 + k, V).
        """
        options = [[self.renderer.option(o) for o in job.prompt.options] for job in jobs]
        options = [ids if all(ids) else [] for ids in options]
        logs, ends = first.log_softmax(-1), sorted(self.end)
        found: list[list[Score]] = [[] for _ in jobs]
        for which in range(max(map(len, options))):
            rows = [i for i, ids in enumerate(options) if which < len(ids)]
            ahead = {i: len(options[i][which]) - 1 + jobs[i].prompt.end for i in rows}
            further = [i for i in rows if ahead[i]]
            width = max(ahead.values())
            # Shorter ones are padded after their end, where nothing is read.
            told = [(options[i][which] + options[i][which][-1:] * width)[:width] for i in further]
            steps = dict(zip(further, dictate(further, told).log_softmax(-1), strict=True)) if further else {}
            for i in rows:
                ids, behind = options[i][which], steps.get(i, logs[i, None])
                logp = behind[range(len(ids)), ids].sum()
                end = behind[len(ids), ends].logsumexp(-1) if jobs[i].prompt.end else None
                found[i].append(Score(float(logp), len(ids), None if end is None else float(end)))
        return [tuple(scores) for scores in found]

    def in_batches(self, jobs: Sequence[Job], length: Any) -> Iterable[list[Job]]:
        """Jobs of one answer style and similar length together, `batch` at a time."""
        waiting = sorted((job for job in jobs if job.reply is None), key=lambda job: (job.prompt.style, length(job)))
        while waiting:
            style = waiting[0].prompt.style
            chunk = [job for job in waiting[: self.batch] if job.prompt.style == style]
            yield chunk
            waiting = waiting[len(chunk) :]

    def attempt(self, jobs: Sequence[Job], run: Any) -> None:
        """Call run(jobs); on an error, each half alone; a single job that fails is given up."""
        try:
            return run(jobs)
        except torch.OutOfMemoryError as error:
            reason = f"out of memory: {kind_and_line(error)}"
            self.batch = max(1, min(self.batch, len(jobs) // 2))
        # Models raise anything; whatever it is, it must cost these prompts only.
        except Exception as error:
            reason = kind_and_line(error)
        free_memory()
        if len(jobs) == 1:
            self.give_up(jobs[0], reason)
            return
        for half in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            self.attempt(half, run)


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
