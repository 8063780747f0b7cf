"""The plain way: whole prompts through the processor and the model's own `generate`; it works for every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from vsre.diagnose.decoding import until_end
from vsre.diagnose.replies import Reply
from vsre.diagnose.ways import Images, Job, Way


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
        out = self.model.generate(
            **inputs,
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                max_new_tokens=self.decoding.limit(jobs[0].prompt.style),
                eos_token_id=sorted(self.end),
                pad_token_id=self.renderer.tokenizer.pad_token_id,
                output_logits=True,
                return_dict_in_generate=True,
            ),
        )
        first = out.logits[0].float().log_softmax(-1)  # (jobs, V)
        said = out.sequences[:, inputs["input_ids"].shape[1] :].tolist()
        texts = self.renderer.texts([until_end(tokens, self.end) for tokens in said])
        for i, (job, text) in enumerate(zip(jobs, texts, strict=True)):
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
            name: torch.cat([t, fill.get(name, torch.zeros_like(ids)).to(t.dtype)], dim=1) if t.shape == shape else t
            for name, t in inputs.items()
        }
        return self.model(**grown).logits[0, -1 - len(told) :].float()
