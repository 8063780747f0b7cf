"""The two ways to have a batch of prompts answered: off a shared prefix, or each prompt whole.

Both give the same replies; the second is slower and works for every model. An error in a batch costs only the prompts
that cause it: the batch is halved until they stand alone.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from transformers import GenerationConfig, StoppingCriteriaList

from vsre.diagnose.branches import Branches, branch, prefill
from vsre.diagnose.decoding import Answers, Decoding, StopWhenDone, decode
from vsre.diagnose.prompts import Prefix, Prompt, Renderer
from vsre.diagnose.replies import Reply

Images = dict[int, Image.Image]


@dataclass(eq=False)
class Job:
    """A prompt on its way: `image` is its image's number, `reply` what has come of it."""

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
    def answer(self, images: Images, jobs: Sequence[Job]) -> None:
        """Give every job its reply."""

    def to_model(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """On the model's device; floating-point ones in its dtype."""
        place, dtype = self.model.device, self.model.dtype
        return {n: t.to(place, dtype) if t.is_floating_point() else t.to(place) for n, t in tensors.items()}

    def too_long(self, tokens: int, style: str) -> str | None:
        limit = self.decoding.limit(style)
        if tokens + limit <= self.context:
            return None
        return f"the prompt has {tokens} tokens; with {limit} for the answer that is beyond the model's {self.context:.0f}"

    def in_batches(self, jobs: Sequence[Job], length: Any) -> Iterable[list[Job]]:
        """Jobs of one answer style and like length together, `batch` at a time."""
        waiting = sorted(
            (job for job in jobs if job.reply is None), key=lambda job: (job.prompt.style, length(job))
        )
        while waiting:
            style = waiting[0].prompt.style
            chunk = [job for job in waiting[: self.batch] if job.prompt.style == style]
            yield chunk
            waiting = waiting[len(chunk) :]

    def attempt(self, jobs: Sequence[Job], run: Any) -> None:
        """run(jobs); on an error each half alone, and an error reply for a single job that fails."""
        try:
            return run(jobs)
        except torch.OutOfMemoryError as error:
            reason = f"out of memory: {first_line(error)}"
            self.batch = max(1, min(self.batch, len(jobs) // 2))
        # Models raise anything; whatever it is, it must cost these prompts only.
        except Exception as error:
            reason = first_line(error)
        free_memory()
        if len(jobs) == 1:
            jobs[0].reply = Reply(error=reason)
            return
        for half in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            self.attempt(half, run)


@dataclass(eq=False)
class SharedPrefix(Way):
    """Encodes each image once, with the words before it; every prompt about it branches off that cache."""

    name = "shared prefix"

    def answer(self, images: Images, jobs: Sequence[Job]) -> None:
        for numbers, prefixes, ready in self.prepare(images, jobs):
            self._answer_group(numbers, prefixes, ready)

    def prepare(self, images: Images, jobs: Sequence[Job]) -> list[tuple[list[int], list[Prefix], list[Job]]]:
        """Groups of images whose prefixes can run as one batch, each with its jobs; hopeless jobs get error replies."""
        groups: dict[Any, list[tuple[int, Prefix]]] = {}
        lengths = {}
        for number, image in images.items():
            try:
                prefix = self.renderer.prefix(image)
            except Exception as error:  # an image processor may raise anything on an odd picture
                for job in jobs:
                    if job.image == number:
                        job.reply = Reply(error=first_line(error))
                continue
            groups.setdefault(prefix.like, []).append((number, prefix))
            lengths[number] = prefix.ids.shape[1]
        waiting = [job for job in jobs if job.reply is None]
        if waiting:
            for job, suffix in zip(
                waiting, self.renderer.suffixes([job.rendered for job in waiting]), strict=True
            ):
                job.suffix = suffix or []
                problem = self.too_long(lengths[job.image] + len(job.suffix), job.prompt.style)
                if not suffix:
                    problem = "the prompt holds the model's image placeholder, or none of its own text"
                if problem:
                    job.reply = Reply(error=problem)
        return [
            (
                [n for n, _ in group],
                [p for _, p in group],
                [job for job in waiting if job.image in dict(group)],
            )
            for group in groups.values()
        ]

    def _answer_group(self, numbers: list[int], prefixes: list[Prefix], jobs: list[Job]) -> None:
        try:
            cache = self.prefill(prefixes)
        except Exception as error:  # as in `attempt`: halve until the image at fault stands alone
            free_memory()
            if len(numbers) == 1:
                for job in jobs:
                    job.reply = job.reply or Reply(error=first_line(error))
                return
            middle = len(numbers) // 2
            for part in (slice(middle), slice(middle, None)):
                self._answer_group(
                    numbers[part], prefixes[part], [job for job in jobs if job.image in numbers[part]]
                )
            return
        length = prefixes[0].ids.shape[1]
        for chunk in self.in_batches(jobs, lambda job: len(job.suffix)):
            self.attempt(chunk, lambda part: self._answer_chunk(numbers, cache, length, part))

    def prefill(self, prefixes: Sequence[Prefix]) -> Any:
        """The cache behind prefixes of equal length."""
        tensors = {name: torch.cat([p.tensors[name] for p in prefixes]) for name in prefixes[0].tensors}
        ids = torch.cat([p.ids for p in prefixes]).to(self.model.device)
        return prefill(self.model, ids, self.to_model(tensors))

    def branch(self, numbers: Sequence[int], cache: Any, length: int, jobs: Sequence[Job]) -> Branches:
        rows = [numbers.index(job.image) for job in jobs]
        return branch(
            self.model, cache, length, rows, [job.suffix for job in jobs], pad=min(self.end, default=0)
        )

    def _answer_chunk(self, numbers: Sequence[int], cache: Any, length: int, jobs: Sequence[Job]) -> None:
        branches = self.branch(numbers, cache, length, jobs)
        scores = self.likelihoods(branches, jobs)
        forms = [job.prompt.format for job in jobs]
        answers = Answers(self.renderer.tokenizer, self.decoding, forms, jobs[0].prompt.style, self.end)
        for job, text, (yes, no) in zip(jobs, decode(branches, answers), scores, strict=True):
            job.reply = Reply(text, yes, no)

    def likelihoods(self, branches: Branches, jobs: Sequence[Job]) -> list[tuple[float, float]]:
        """(log P of yes, log P of no) for each job, by the options of its own format."""
        told: list[tuple[float, float]] = [(0.0, 0.0)] * len(jobs)
        for name in {job.prompt.format.name for job in jobs}:
            places = [i for i, job in enumerate(jobs) if job.prompt.format.name == name]
            rows = torch.tensor(places, device=self.model.device)
            options = self.renderer.options(jobs[places[0]].prompt.format)
            yes, no = (branches.log_probability(ids, rows).tolist() for ids in options)
            for i, both in zip(places, zip(yes, no, strict=True), strict=True):
                told[i] = both
        return told


@dataclass(eq=False)
class Plain(Way):
    """Whole prompts through the processor and the model's own `generate`, padded on the left."""

    name = "plain"

    def answer(self, images: Images, jobs: Sequence[Job]) -> None:
        for chunk in self.in_batches(jobs, lambda job: len(job.rendered)):
            self.attempt(chunk, lambda part: self._answer_chunk(images, part))

    def inputs(self, images: Images, jobs: Sequence[Job]) -> dict[str, torch.Tensor]:
        whole = self.renderer.whole([images[job.image] for job in jobs], [job.rendered for job in jobs])
        return self.to_model(whole)

    def _answer_chunk(self, images: Images, jobs: Sequence[Job]) -> None:
        inputs = self.inputs(images, jobs)
        lengths = inputs["attention_mask"].sum(1).tolist()
        problems = [self.too_long(n, job.prompt.style) for n, job in zip(lengths, jobs, strict=True)]
        if any(problems):
            for job, problem in zip(jobs, problems, strict=True):
                job.reply = Reply(error=problem) if problem else None
            going = [job for job in jobs if job.reply is None]
            return self._answer_chunk(images, going) if going else None
        style = jobs[0].prompt.style
        forms = [job.prompt.format for job in jobs]
        answers = Answers(self.renderer.tokenizer, self.decoding, forms, style, self.end)
        pad = self.renderer.tokenizer.pad_token_id
        out = self.model.generate(
            **inputs,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=self.decoding.limit(style),
                eos_token_id=sorted(self.end),
                pad_token_id=pad,
                output_logits=True,
                return_dict_in_generate=True,
            ),
            stopping_criteria=StoppingCriteriaList([StopWhenDone(answers)]),
        )
        first = out.logits[0].float().log_softmax(-1)  # (jobs, V)
        for i, (job, text) in enumerate(zip(jobs, answers.texts(), strict=True)):
            options = self.renderer.options(job.prompt.format)
            yes, no = (self.log_probability(images, job, ids, first[i]) for ids in options)
            job.reply = Reply(text, yes, no)

    def log_probability(self, images: Images, job: Job, ids: Sequence[int], first: torch.Tensor) -> float:
        """log P of `ids` as the job's next tokens; `first` (V,) holds the log-probabilities of the first of them."""
        if len(ids) == 1:
            return float(first[ids[0]])
        logs = self.logits(images, job, ids[:-1]).log_softmax(-1)  # (len(ids), V)
        return float(logs.gather(-1, torch.tensor(ids, device=logs.device)[:, None]).sum())

    def logits(self, images: Images, job: Job, told: Sequence[int] = ()) -> torch.Tensor:
        """The model's logits behind the whole prompt and behind each token of `told`: (1 + len(told), V), float32.

        One sequence, one forward, nothing kept or padded: what every other way of answering is measured against.
        """
        inputs = self.inputs(images, [job])
        shape = inputs["input_ids"].shape
        ids = torch.tensor([list(told)], device=self.model.device, dtype=torch.long)  # (1, k)
        fill = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        grown = {
            name: torch.cat([t, fill.get(name, torch.zeros_like(ids)).to(t.dtype)], dim=1)
            if t.shape == shape
            else t
            for name, t in inputs.items()
        }
        return self.model(**grown).logits[0, -1 - len(told) :].float()


def largest_difference(
    shared: SharedPrefix, plain: Plain, images: Images, jobs: Sequence[Job], *, most: int = 6
) -> float | None:
    """How far the logits of the two ways lie apart on some of these jobs, as a share of the largest logit (at least 1).

    Both the answer's first token and its second are compared; prompts are taken from short to long, of several images.
    None where nothing could be compared.
    """
    group = next((g for g in shared.prepare(images, jobs) if any(job.reply is None for job in g[2])), None)
    if group is None:
        return None
    numbers, prefixes, waiting = group
    ready = sorted((job for job in waiting if job.reply is None), key=lambda job: len(job.suffix))
    some = (
        [ready[round(i * (len(ready) - 1) / (most - 1))] for i in range(most)] if len(ready) > most else ready
    )
    branches = shared.branch(numbers, shared.prefill(prefixes), prefixes[0].ids.shape[1], some)
    first = branches.logits
    told = first.argmax(-1)  # (jobs,)
    second = branches.extend(told[:, None])[:, -1]
    apart = 0.0
    for i, job in enumerate(some):
        whole = plain.logits(images, job, [int(told[i])])  # (2, V)
        scale = max(1.0, float(whole.abs().max()))
        apart = max(apart, float((whole - torch.stack([first[i], second[i]])).abs().max()) / scale)
    return apart


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
