"""The plain way: whole prompts through the processor and the model's own `generate`; it works for every model.

Only `generate` knows how a model continues: where its decoder starts, what its positions and masks look like after a
picture, which inputs it needs again. So the likelihood of given words is taken from it too, by dictating them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from vsre.diagnose.decoding import until_end
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply
from vsre.diagnose.ways import Images, Job, Way
from vsre.errors import kind_and_line
from vsre.numerics import apart, tolerance


class Dictation(LogitsProcessor):
    """Make `generate` say `told` (B, k) first, and keep the model's own logits of the first `keep` steps.

    `logits` are (B, V) each, float32; `steps` counts the tokens generated.
    """

    def __init__(self, told: torch.Tensor, keep: int) -> None:
        self.told, self.keep = told, keep
        self.logits: list[torch.Tensor] = []
        self.steps = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self.steps < self.keep:
            self.logits.append(scores.float())
        if self.steps < self.told.shape[1]:
            forced = torch.full_like(scores, -math.inf).scatter(1, self.told[:, self.steps, None], 0.0)
            scores = cast(torch.FloatTensor, forced)
        self.steps += 1
        return scores


@dataclass(eq=False)
class Plain(Way):
    """Whole prompts through the processor and the model's own `generate`.

    Prompts of several lengths are padded to one batch. Not every model answers a padded prompt as it answers the prompt
    alone, so this is checked whenever a batch is padded more than any before; if it fails, a batch only holds prompts
    of one length. A checkpoint's generation settings (penalties, beams, forced or forbidden tokens) are dropped: the
    answers are the model's greedy ones.
    """

    name = "plain"
    alike: str = ""
    """Why batches hold prompts of one length only; empty if padding works."""
    _padding: int = 0  # up to how many padded positions batches have been compared
    lead: list[int] = field(default_factory=list)
    """Token ids that every answer begins with in the decoder."""

    def __post_init__(self) -> None:
        for part in self.model.modules():  # some models delegate generation to an inner language model
            stored = getattr(part, "generation_config", None)
            if isinstance(stored, GenerationConfig):
                part.generation_config = _bare(stored)

    def give_up(self, job: Job, reason: str) -> None:
        job.reply = Reply(error=reason)

    def answer(self, images: Images, jobs: Sequence[Job]) -> None:
        """Give every job its reply."""
        for chunk in self.in_batches(jobs, lambda job: len(job.rendered)):
            self.attempt(chunk, lambda part: self._answer_chunk(images, part))

    def inputs(self, images: Images, jobs: Sequence[Job]) -> dict[str, torch.Tensor]:
        pictures = [images[job.image] for job in jobs] if self.renderer.picture else None
        return self.to_model(self.renderer.whole(pictures, [job.rendered for job in jobs]))

    def why_not(self) -> str | None:
        """Why this model cannot answer prompts rendered this way, tried on the shortest one; None if it can."""
        try:
            self.logits({}, Job(0, Prompt(""), self.renderer.render(["?"])[0]))
        except Exception as error:  # whatever a processor or model raises for inputs it was not made for
            return kind_and_line(error)
        return None

    def logits(self, images: Images, job: Job, told: Sequence[int] = ()) -> torch.Tensor:
        """The model's logits after the whole prompt and after each token of `told`: (1 + len(told), V), float32.

        One prompt alone, without padding: the reference for every other way of answering.
        """
        return self._dictate(images, [job], [told])[0]

    def _dictate(self, images: Images, jobs: Sequence[Job], told: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits after the prompts and after each of their k dictated tokens: (jobs, 1 + k, V), float32."""
        kept, _ = self._generate(self.inputs(images, jobs), told, more=1, keep=1, end=None)
        return torch.stack(kept, dim=1)

    def _generate(
        self,
        inputs: dict[str, torch.Tensor],
        told: Sequence[Sequence[int]],
        *,
        more: int,
        keep: int,
        end: list[int] | None,
    ) -> tuple[list[torch.Tensor], list[list[int]]]:
        """Generate `more` tokens after the tokens `told` (k each). Returns the logits of the first k + keep steps, each
        (jobs, V), with step 0 right after the prompt, and the tokens generated after those told."""
        forced = torch.tensor([self.lead + list(ids) for ids in told], device=self.device, dtype=torch.long)
        dictation = Dictation(forced, forced.shape[1] + keep)
        sequences = self.model.generate(
            **inputs,
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                max_new_tokens=forced.shape[1] + more,
                eos_token_id=end,
                pad_token_id=self.renderer.tokenizer.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([dictation]),
        )
        # What comes before the new tokens differs by model: the prompt, a decoder's start token, or nothing at all.
        said = sequences[:, sequences.shape[1] - dictation.steps + forced.shape[1] :].tolist()
        return dictation.logits[len(self.lead) :], said

    def _answer_chunk(self, images: Images, jobs: Sequence[Job], *, alike: bool = False) -> None:
        """`alike`: the jobs' inputs have one shape, so what is masked in them is masked in each alone."""
        inputs = self.inputs(images, jobs)
        lengths = inputs["attention_mask"].sum(1).tolist()
        problems = [self.too_long(n, job.prompt.style) for n, job in zip(lengths, jobs, strict=True)]
        if any(problems):
            for job, problem in zip(jobs, problems, strict=True):
                job.reply = Reply(error=problem) if problem else None
            going = [job for job in jobs if job.reply is None]
            return self._answer_chunk(images, going, alike=alike) if going else None
        padded = _padded_places(inputs) * (not alike)  # (jobs,)
        if self.alike and padded.any():
            return self._answer_alike(images, jobs)
        limit = max(1, self.decoding.limit(jobs[0].prompt.style))
        kept, said = self._generate(inputs, [()] * len(jobs), more=limit, keep=2, end=sorted(self.end))
        if int(padded.max()) > self._padding:
            row = int(padded.argmax())
            if self._is_apart(images, jobs[row], torch.stack([step[row] for step in kept]), said[row][:1]):
                return self._answer_alike(images, jobs)
            self._padding = int(padded.max())
        answers = [until_end(tokens, self.end) for tokens in said]
        texts = self.renderer.texts(answers)
        scores = self.scores(jobs, kept[0], lambda rows, told: self._dictate(images, [jobs[i] for i in rows], told))
        for job, text, told, ids in zip(jobs, texts, scores, answers, strict=True):
            silent = job.prompt.style == "none"
            job.reply = Reply(None if silent else text, told, cut=None if silent else len(ids) >= limit)

    def _is_apart(self, images: Images, job: Job, padded: torch.Tensor, told: Sequence[int]) -> bool:
        """Whether a job's logits in a padded batch (1 or 2, V) differ from those of the job alone."""
        alone = self.logits(images, job, told)[: len(padded)]
        difference = apart(padded, alone)
        if difference <= tolerance(self.model.dtype):
            return False
        self.alike = f"padding changes this model's answers (logits lie {difference:.1e} apart)"
        return True

    def _answer_alike(self, images: Images, jobs: Sequence[Job]) -> None:
        """Answer in batches that need no padding."""
        groups: dict[Any, list[Job]] = {}
        for job in jobs:
            shapes = tuple(sorted((name, t.shape) for name, t in self.inputs(images, [job]).items() if t.ndim == 2))
            groups.setdefault(shapes, []).append(job)
        for group in groups.values():
            self.attempt(group, lambda part: self._answer_chunk(images, part, alike=True))


def _padded_places(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """How many positions of each prompt are padded, in all its masks (some models take the text twice): (prompts,)."""
    masks = [t for name, t in inputs.items() if name.endswith("attention_mask") and t.ndim == 2]
    return torch.stack([(mask == 0).sum(1) for mask in masks]).sum(0)


def _bare(stored: GenerationConfig) -> GenerationConfig:
    """The settings that say what a token id means, without those that would change greedy answers."""
    kept = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
    return GenerationConfig(**{name: getattr(stored, name) for name in kept})
