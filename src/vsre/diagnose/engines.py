"""Engines answer prompts about images, by greedy generation and by the likelihood of yes and no.

`TransformersEngine` encodes each image once: the prompts about it branch off one key-value cache. Before it
answers anything it compares that way with the model's plain forward on real prompts, and asks the plain way
(`generate` on whole prompts) where the two differ or the model does not allow it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from vsre.diagnose.decoding import Decoding
from vsre.diagnose.loading import load_model, weights_fingerprint
from vsre.diagnose.plain import Plain
from vsre.diagnose.prompts import Prompt, Renderer
from vsre.diagnose.replies import Reply
from vsre.diagnose.shared_prefix import SharedPrefix
from vsre.diagnose.ways import Images, Job, Way, first_line
from vsre.errors import VsreError
from vsre.sources.images import load_image

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
HALF_TOLERANCE = 3e-2
"""How far logits of the two ways may lie apart, as a share of the largest logit (at least 1)."""


class Engine(Protocol):
    """Anything that answers prompts about images."""

    name: str
    batch_images: int

    def settings(self) -> dict[str, Any]:
        """What decides the answers, as JSON: a run is resumed only under equal settings."""

    def notes(self) -> dict[str, Any]:
        """What else is worth recording, known after the first answers."""

    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        """Replies in the order of the prompts, for encoded images. Never raises for a bad image or prompt."""


class TransformersEngine:
    """Any image-text model that transformers can load, run in this process.

    `batch_images` images are read and encoded together, `batch_prompts` prompts answered together; memory is
    bounded by the two. `way` "auto" takes the shared prefix if it proves equal, "plain" never does.
    Running out of GPU memory halves the batch for good.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_images: int = 8,
        batch_prompts: int = 64,
        decoding: Decoding | None = None,
        way: Literal["auto", "plain"] = "auto",
    ) -> None:
        loaded = load_model(model, device=device, dtype=dtype)
        self.name, self.model, self.processor = loaded.name, loaded.model, loaded.processor
        self.device, self.dtype = loaded.device, loaded.dtype
        self.batch_images, self.batch_prompts = batch_images, batch_prompts
        self.decoding = decoding or Decoding()
        self.renderer = Renderer(self.processor, self.model.config)
        tokenizer = self.processor.tokenizer
        stops = self.model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        self._asked_way = way
        parts = (self.model, self.renderer, self.decoding, ends, context, batch_prompts)
        self._shared, self._plain = SharedPrefix(*parts), Plain(*parts)
        self._way: Way | None = self._plain if way == "plain" else None
        self._why = "asked for" if way == "plain" else ""
        self._apart: float | None = None

    def settings(self) -> dict[str, Any]:
        """The model counts by its weights, not by its path."""
        return {
            "engine": "transformers",
            "model_type": self.model.config.model_type,
            "weights": weights_fingerprint(self.model),
            "dtype": str(self.dtype).removeprefix("torch."),
            "decoding": {"greedy": True, **asdict(self.decoding)},
            "way": self._asked_way,
        }

    def notes(self) -> dict[str, Any]:
        return {
            "way": self._way.name if self._way else "not decided",
            "why": self._why,
            "largest_difference": self._apart,
            "device": str(self.device),
            "batch_images": self.batch_images,
            "batch_prompts": (self._way or self._shared).batch,
        }

    @torch.inference_mode()
    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        images: Images = {}
        broken: dict[int, str] = {}
        for i, (data, _) in enumerate(asked):
            try:
                if data is None:
                    raise VsreError("the triplet file holds no picture for this row")
                images[i] = load_image(data)
            except VsreError as error:
                broken[i] = str(error)
        flat = [(i, prompt) for i, (_, prompts) in enumerate(asked) for prompt in prompts]
        rendered = self.renderer.render([prompt.text for _, prompt in flat])
        jobs = [Job(i, prompt, text) for (i, prompt), text in zip(flat, rendered, strict=True)]
        for job in jobs:
            if job.image in broken:
                job.reply = Reply(error=broken[job.image])
        ready = [job for job in jobs if job.reply is None]
        if ready:
            if self._way is None:
                self._choose(images, ready)
            (self._way or self._plain).answer(images, ready)
        replies: list[list[Reply]] = [[] for _ in asked]
        for job in jobs:
            replies[job.image].append(job.reply or Reply(error="the engine gave no reply"))
        return replies

    def _choose(self, images: Images, jobs: list[Job]) -> None:
        """Compare the two ways on these jobs and settle on one; on none where nothing could be compared."""
        limit = TOLERANCE.get(self.dtype, HALF_TOLERANCE)
        probe = [Job(job.image, job.prompt, job.rendered) for job in jobs]
        try:
            self._apart = largest_difference(self._shared, self._plain, images, probe)
        # Whatever stops the faster way, the plain one may still work; only for want of memory is it tried smaller.
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) and len(images) > 1:
                fewer = dict(list(images.items())[: len(images) // 2])
                return self._choose(fewer, [job for job in jobs if job.image in fewer])
            self._way, self._why = self._plain, f"the shared prefix fails for this model ({first_line(error)})"
            return
        if self._apart is not None:
            self._way = self._shared if self._apart <= limit else self._plain
            self._why = f"logits of the two ways lie {self._apart:.1e} apart, {limit:.0e} is allowed"


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
    some = [ready[round(i * (len(ready) - 1) / (most - 1))] for i in range(most)] if len(ready) > most else ready
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
