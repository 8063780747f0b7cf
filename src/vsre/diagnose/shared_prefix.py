"""The fast way: an image and the words before it are run once, and every prompt about it continues from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vsre.diagnose.branches import Branches, Prefilled, prefill
from vsre.diagnose.decoding import decode
from vsre.diagnose.prompts import Prefix
from vsre.diagnose.replies import Reply
from vsre.diagnose.ways import Images, Job, Way, free_memory
from vsre.errors import VsreError, kind_and_line


@dataclass(eq=False)
class Group:
    """Images (by their numbers) whose prefixes run as one batch, and the jobs about them that await a reply."""

    numbers: list[int]
    prefixes: list[Prefix]
    jobs: list[Job]

    @property
    def like(self) -> Any:
        return self.prefixes[0].like

    def about(self, numbers: Sequence[int]) -> Group:
        """The part about some of the images."""
        kept = [i for i, n in enumerate(self.numbers) if n in numbers]
        jobs = [job for job in self.jobs if job.image in numbers]
        return Group([self.numbers[i] for i in kept], [self.prefixes[i] for i in kept], jobs)


@dataclass(eq=False)
class SharedPrefix(Way):
    """Encodes each image once, with the words before it; every prompt about it branches off that cache."""

    name = "shared prefix"
    no_prefix: str = ""
    """Why an image had no prefix of its own, or a prompt could not branch off it, the last time that happened."""
    most_images: float = math.inf
    """How many prefixes to run at once, after more did not fit into memory."""

    def give_up(self, job: Job, reason: str) -> None:
        """The job stays without a reply: the plain way may still have one."""
        self.no_prefix = reason

    def prepare(self, images: Images, jobs: Sequence[Job]) -> list[Group]:
        """Groups of images with prefixes of one shape. Jobs that no way could answer get error replies; jobs about an
        image that has no prefix, and prompts that do not begin with it, are in no group."""
        prefixes: dict[int, Prefix] = {}
        for number, image in images.items():
            try:
                prefixes[number] = self.renderer.prefix(image)
            except Exception as error:  # an image processor may raise anything on an odd picture
                self.no_prefix = kind_and_line(error)
        waiting = []
        asked = [job for job in jobs if job.image in prefixes]
        suffixes = self.renderer.suffixes([job.rendered for job in asked]) if asked else []
        for job, suffix in zip(asked, suffixes, strict=True):
            if suffix is None:  # it can only be asked whole
                continue
            job.suffix = suffix
            problem = self.too_long(prefixes[job.image].ids.shape[1] + len(suffix), job.prompt.style)
            if not suffix:
                problem = "the prompt holds the model's image placeholder, or none of its own text"
            if problem:
                job.reply = Reply(error=problem)
            else:
                waiting.append(job)
        groups: dict[Any, Group] = {}
        for number, prefix in prefixes.items():
            group = groups.setdefault(prefix.like, Group([], [], []))
            group.numbers.append(number)
            group.prefixes.append(prefix)
        for job in waiting:
            groups[prefixes[job.image].like].jobs.append(job)
        return list(groups.values())

    def answer_group(self, group: Group, kind: type[Branches]) -> None:
        """Give the group's jobs their replies; those that cannot branch get none."""
        problem = "too many prefixes at once"
        if len(group.numbers) <= self.most_images:
            try:
                return self._branch_off(group, kind, self.prefill(group.prefixes))
            except torch.OutOfMemoryError as error:
                problem, self.most_images = kind_and_line(error), max(1, len(group.numbers) // 2)
            except Exception as error:  # as in `attempt`
                problem = kind_and_line(error)
            free_memory()  # outside the handler, whose traceback keeps the failed call's tensors alive
        if len(group.numbers) == 1:
            self.no_prefix = problem
            return
        middle = len(group.numbers) // 2
        for part in (group.numbers[:middle], group.numbers[middle:]):
            self.answer_group(group.about(part), kind)

    def _branch_off(self, group: Group, kind: type[Branches], prefilled: Prefilled) -> None:
        longest = max(len(job.suffix) for job in group.jobs)  # what all are padded to at most
        fitting = [
            job
            for job in group.jobs
            if prefilled.length + longest + self.decoding.limit(job.prompt.style) <= prefilled.window
        ]
        if len(fitting) < len(group.jobs):
            self.no_prefix = f"prompts with their answers go beyond the model's window of {prefilled.window:.0f}"
        for chunk in self.in_batches(fitting, lambda job: len(job.suffix)):
            self.attempt(chunk, lambda part: self._answer_chunk(kind, group.numbers, prefilled, part))

    def prefill(self, prefixes: Sequence[Prefix]) -> Prefilled:
        """Run prefixes of one shape together."""
        tensors = {name: torch.cat([p.tensors[name] for p in prefixes]) for name in prefixes[0].tensors}
        behind = {name: torch.cat([p.behind[name] for p in prefixes]) for name in prefixes[0].behind}
        ids = torch.cat([p.ids for p in prefixes]).to(self.device)
        return prefill(self.model, ids, self.to_model(tensors), self.to_model(behind))

    def branch(
        self,
        kind: type[Branches],
        numbers: Sequence[int],
        prefilled: Prefilled,
        jobs: Sequence[Job],
        *,
        padded: bool = False,
    ) -> Branches:
        """One branch per job; jobs about one image must be adjacent, in the images' order.

        `padded`: with one more branch at the end, longer than all, so that every job's own is padded.
        """
        rows = [numbers.index(job.image) for job in jobs]
        suffixes = [job.suffix for job in jobs]
        if padded:
            longest = max(suffixes, key=len)
            rows, suffixes = [*rows, rows[-1]], [*suffixes, longest + longest[:4]]
        return kind(self.model, prefilled, rows, suffixes, pad=min(self.end, default=0))

    def _answer_chunk(
        self, kind: type[Branches], numbers: Sequence[int], prefilled: Prefilled, jobs: Sequence[Job]
    ) -> None:
        jobs = sorted(jobs, key=lambda job: numbers.index(job.image))
        branches = self.branch(kind, numbers, prefilled, jobs)
        scores = self.scores(
            jobs,
            branches.logits,
            lambda rows, told: branches.dictate(torch.tensor(rows, device=self.device), told),
        )
        if not all(math.isfinite(score.logp) for row in scores for score in row):
            raise VsreError("logits behind the shared prefix are not finite numbers")
        style = jobs[0].prompt.style
        limit = self.decoding.limit(style)
        answers = decode(branches, limit, self.end)
        texts = self.renderer.texts(answers)
        for job, text, told, ids in zip(jobs, texts, scores, answers, strict=True):
            silent = style == "none"
            job.reply = Reply(None if silent else text, told, cut=None if silent else len(ids) >= limit)
