"""Engines answer prompts about images, by greedy generation and by the likelihood of yes and no.

`TransformersEngine` encodes each image once: the prompts about it branch off one key-value cache. For every shape of
prefix that it meets, it first compares this way with the model's plain forward pass on real prompts. It uses branches
that read the prefix in place, else branches with a copy of it each, else whole prompts (`generate`) if both differ or
the model allows neither.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from vsre.diagnose.branches import Branches
from vsre.diagnose.decoding import Decoding
from vsre.diagnose.devices import DeviceMap, Quantization, devices
from vsre.diagnose.loading import load_model, processor_fingerprint, weights_fingerprint
from vsre.diagnose.plain import Plain
from vsre.diagnose.prompts import Prompt, Renderer
from vsre.diagnose.replies import Reply
from vsre.diagnose.shared_prefix import Group, SharedPrefix
from vsre.diagnose.split import SplitBranches
from vsre.diagnose.ways import Images, Job, free_memory
from vsre.errors import VsreError, kind_and_line
from vsre.numerics import apart, tolerance
from vsre.sources.images import load_image


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


def blind_engine(engine: Engine) -> Engine:
    """The engine that asks without pictures; raises VsreError if there is none."""
    made: Engine | None = getattr(engine, "without_picture", lambda: None)()
    if made is None:
        raise VsreError(f"{engine.name}: this engine cannot be asked without a picture.")
    return made


class TransformersEngine:
    """Any image-text model that transformers can load, run in this process.

    `batch_images` images are read and encoded together, `batch_prompts` prompts answered together; these two bound
    memory. `way` "auto" uses the shared prefix if it proves equal, "plain" never does. Running out of GPU memory halves
    the batch for good.

    `picture` "none" asks the same questions without the picture, for the answers of the model's language model alone;
    raises VsreError for a model that cannot do without one. The other options are those of `load_model`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        quantization: Quantization | None = None,
        device_map: DeviceMap | None = None,
        max_memory: Mapping[Any, Any] | None = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        batch_images: int = 8,
        batch_prompts: int = 64,
        decoding: Decoding | None = None,
        way: Literal["auto", "plain"] = "auto",
        picture: Literal["shown", "none"] = "shown",
    ) -> None:
        loaded = load_model(
            model,
            device=device,
            dtype=dtype,
            revision=revision,
            quantization=quantization,
            device_map=device_map,
            max_memory=max_memory,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
        )
        self.name, self.model, self.processor = loaded.name, loaded.model, loaded.processor
        self.device, self.dtype, self.revision = loaded.device, loaded.dtype, loaded.revision
        self.quantization, self.attn_implementation = quantization, attn_implementation
        self.batch_images, self.batch_prompts = batch_images, batch_prompts
        self.decoding = decoding or Decoding()
        # Read now: `Plain` removes a checkpoint's generation settings from the model.
        stored = self.model.generation_config
        self._stops = stored.eos_token_id if isinstance(stored.eos_token_id, list) else [stored.eos_token_id]
        self._forced = stored.forced_bos_token_id
        self._prepare(picture, way)

    def without_picture(self) -> TransformersEngine:
        """The same weights asked the same questions without a picture, as `picture="none"` does."""
        blind = copy.copy(self)
        blind._prepare("none", self._asked_way)
        return blind

    def _prepare(self, picture: Literal["shown", "none"], way: Literal["auto", "plain"]) -> None:
        self.picture: Literal["shown", "none"] = picture
        self.renderer = Renderer(self.processor, self.model.config, name=self.name, picture=picture == "shown")
        tokenizer = self.processor.tokenizer
        ends = {tokenizer.eos_token_id, *self._stops} - {None}
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        # Text alone has no prefix worth sharing.
        self._asked_way: Literal["auto", "plain"] = way if picture == "shown" else "plain"
        parts = (self.model, self.renderer, self.decoding, ends, context, self.batch_prompts)
        lead = [self._forced] if self.renderer.encoder_decoder and self._forced is not None else []
        self._shared, self._plain = SharedPrefix(*parts), Plain(*parts, lead=lead)
        self._proofs: dict[Any, Proof] = {}  # by shape of prefix
        self._prompts = self._plain_prompts = 0
        if picture == "none" and (reason := self._plain.why_not()):
            raise VsreError(f"{self.name}: cannot be asked without a picture ({reason}).")

    def settings(self) -> dict[str, Any]:
        """The model is identified by its weights, not by its path."""
        return {
            "engine": "transformers",
            "model_type": self.model.config.model_type,
            "weights": weights_fingerprint(self.model),
            "dtype": str(self.dtype).removeprefix("torch."),
            "decoding": {"greedy": True, **asdict(self.decoding)},
            "way": self._asked_way,
            "picture": self.picture,
            "image_processor": type(self.processor.image_processor).__name__,
            "processor": processor_fingerprint(self.processor),
            "quantization": self.quantization,
            "attn_implementation": self.attn_implementation,
            **({"vision": self.model.vision_settings()} if hasattr(self.model, "vision_settings") else {}),
        }

    def notes(self) -> dict[str, Any]:
        proofs = list(self._proofs.values())
        compared = [p.apart for p in proofs if p.apart is not None]
        shared = sum(p.kind is not None for p in proofs)
        if self._asked_way == "plain":
            way, why = "plain", "asked for" if self.picture == "shown" else "asked without the picture"
        elif not proofs or self._plain_prompts == self._prompts:
            way = "plain" if self._plain_prompts else "not decided"
            why = next((p.why for p in proofs if not p.kind), f"no prefix can be shared ({self._shared.no_prefix})")
        elif shared in (0, len(proofs)):
            way = (self._shared if shared else self._plain).name
            why = max(proofs, key=lambda p: p.apart or 0.0).why
        else:
            way = f"shared prefix for {shared} of {len(proofs)} shapes of prefix, plain for the others"
            why = next(p.why for p in proofs if not p.kind)
        return {
            "way": way,
            "why": why,
            "prefix_shapes": {
                "shared": shared,
                "of_these_copied": sum(p.kind is Branches for p in proofs),
                "plain": len(proofs) - shared,
            },
            "largest_difference": max(compared, default=None),
            "revision": self.revision,
            "device": str(self.device),
            "devices": devices(self.model),
            "batch_images": self.batch_images,
            "plain_batches": self._plain.alike or None,
            "plain_prompts": self._plain_prompts,
            "plain_prompts_why": self._shared.no_prefix or None,
            "batch_prompts": (self._shared if shared or not proofs else self._plain).batch,
        }

    @torch.inference_mode()
    def answer(self, asked: Sequence[tuple[bytes | None, Sequence[Prompt]]]) -> list[list[Reply]]:
        images: Images = {}
        broken: dict[int, str] = {}
        for i, (data, _) in enumerate(asked if self.picture == "shown" else ()):
            try:
                if data is None:
                    raise VsreError("the triplet file holds no picture for this row")
                images[i] = load_image(data)
            except VsreError as error:
                broken[i] = str(error)
        flat = [(i, prompt) for i, (_, prompts) in enumerate(asked) for prompt in prompts]
        rendered = self.renderer.render_each([prompt.text for _, prompt in flat])
        jobs = [Job(i, prompt, str(text)) for (i, prompt), text in zip(flat, rendered, strict=True)]
        for job, text in zip(jobs, rendered, strict=True):
            if problem := broken.get(job.image) or (isinstance(text, VsreError) and str(text)):
                job.reply = Reply(error=problem)
        ready = [job for job in jobs if job.reply is None]
        if ready:
            if self._asked_way == "auto":
                for group in self._shared.prepare(images, ready):
                    if group.jobs and (kind := self._proof(images, group).kind):
                        self._shared.answer_group(group, kind)
            rest = [job for job in ready if job.reply is None]
            self._prompts, self._plain_prompts = self._prompts + len(ready), self._plain_prompts + len(rest)
            self._plain.answer(images, rest)
        replies: list[list[Reply]] = [[] for _ in asked]
        for job in jobs:
            replies[job.image].append(job.reply or Reply(error="the engine gave no reply"))
        return replies

    def _proof(self, images: Images, group: Group) -> Proof:
        """How prompts after prefixes of this shape may branch: compared once, on this group's own prompts."""
        like = group.like
        if like not in self._proofs:
            most = 2 if self._proofs else 6
            proof = self._compare(SplitBranches, images, group, most)
            self._proofs[like] = proof if proof.kind else self._compare(Branches, images, group, most)
        return self._proofs[like]

    def _compare(self, kind: type[Branches], images: Images, group: Group, most: int) -> Proof:
        limit = tolerance(self.dtype)
        difference = None
        try:
            difference = largest_difference(self._shared, self._plain, kind, images, group, most=most)
        except torch.OutOfMemoryError as error:
            problem, smaller = kind_and_line(error), len(group.numbers) > 1
        except Exception as error:  # whatever stops the faster way, the plain one may still work
            problem, smaller = kind_and_line(error), False
        if difference is None:
            free_memory()  # outside the handler, whose traceback keeps the failed call's tensors alive
            if smaller:
                some = group.about(group.numbers[: len(group.numbers) // 2])
                return self._compare(kind, images, some if some.jobs else group.about([group.jobs[0].image]), most)
            return Proof(None, None, f"the shared prefix fails for this model ({problem})")
        if not math.isfinite(difference):
            return Proof(None, None, "logits behind the shared prefix, or plain ones, are not finite numbers")
        why = f"logits of the two ways lie {difference:.1e} apart, {limit:.0e} is allowed"
        return Proof(kind if difference <= limit else None, difference, why)


@dataclass(frozen=True)
class Proof:
    """The result of comparing the two ways for one shape of prefix.

    `kind` is how its prompts may branch, None for not at all; `apart` is None if one of the ways failed.
    """

    kind: type[Branches] | None
    apart: float | None
    why: str


def largest_difference(
    shared: SharedPrefix, plain: Plain, kind: type[Branches], images: Images, group: Group, *, most: int = 6
) -> float:
    """The largest difference between the logits of the two ways on `most` of a group's jobs, as `apart` measures it.

    The answer's first and second tokens are compared. The prompts range from short to long, are about several images,
    and are padded to one batch, as they may be later on.
    """
    ready = sorted(group.jobs, key=lambda job: len(job.suffix))
    some = [ready[round(i * (len(ready) - 1) / (most - 1))] for i in range(most)] if len(ready) > most else ready
    some = sorted(some, key=lambda job: group.numbers.index(job.image))
    branches = shared.branch(kind, group.numbers, shared.prefill(group.prefixes), some, padded=True)
    first = branches.logits
    told = first.argmax(-1)  # (jobs,)
    second = branches.extend(told[:, None])[:, -1]
    found = []
    for i, job in enumerate(some):
        whole = plain.logits(images, job, [int(told[i])])  # (2, V)
        found.append(apart(torch.stack([first[i], second[i]]), whole))
    return max(found) if all(map(math.isfinite, found)) else math.inf
