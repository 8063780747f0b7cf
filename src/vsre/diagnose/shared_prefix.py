"""The fast way: an image and the words before it are run once, and every prompt about it goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vsre.diagnose.branches import Branches, branch, prefill
from vsre.diagnose.decoding import decode
from vsre.diagnose.prompts import Prefix
from vsre.diagnose.replies import Reply
from vsre.diagnose.ways import Images, Job, Way, first_line, free_memory


@dataclass(eq=False)
class SharedPrefix(Way):
    """Encodes each image once, with the words before it; every prompt about it branches off that cache."""

    name = "shared prefix"

    def answer(self, images: Images, jobs: Sequence[Job]) -> None:
        for numbers, prefixes, ready in self.prepare(images, jobs):
            self._answer_group(numbers, prefixes, ready)

    def prepare(self, images: Images, jobs: Sequence[Job]) -> list[tuple[list[int], list[Prefix], list[Job]]]:
        """Groups of images whose prefixes can run as one batch, each with its jobs; hopeless jobs get error replies."""
        groups: dict[Any, dict[int, Prefix]] = {}
        lengths = {}
        for number, image in images.items():
            try:
                prefix = self.renderer.prefix(image)
            except Exception as error:  # an image processor may raise anything on an odd picture
                for job in jobs:
                    if job.image == number:
                        job.reply = Reply(error=first_line(error))
                continue
            groups.setdefault(prefix.like, {})[number] = prefix
            lengths[number] = prefix.ids.shape[1]
        waiting = [job for job in jobs if job.reply is None]
        if waiting:
            for job, suffix in zip(waiting, self.renderer.suffixes([job.rendered for job in waiting]), strict=True):
                job.suffix = suffix or []
                problem = self.too_long(lengths[job.image] + len(job.suffix), job.prompt.style)
                if not suffix:
                    problem = "the prompt holds the model's image placeholder, or none of its own text"
                if problem:
                    job.reply = Reply(error=problem)
        return [
            (list(group), list(group.values()), [job for job in waiting if job.image in group])
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
                self._answer_group(numbers[part], prefixes[part], [job for job in jobs if job.image in numbers[part]])
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
        return branch(self.model, cache, length, rows, [job.suffix for job in jobs], pad=min(self.end, default=0))

    def _answer_chunk(self, numbers: Sequence[int], cache: Any, length: int, jobs: Sequence[Job]) -> None:
        branches = self.branch(numbers, cache, length, jobs)
        scores = self.likelihoods(branches, jobs)
        tokens = decode(branches, self.decoding.limit(jobs[0].prompt.style), self.end)
        for job, text, (yes, no) in zip(jobs, self.renderer.texts(tokens), scores, strict=True):
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
