"""The diffusion painter: SDXL and its fast relatives behind the painter interface.

A job is refused before the model sees it if there is nothing honest to ask for (`intents`), no honest mask (`masks`),
no usable photo (`canvas`), or a prompt that the text encoders would cut off; and afterwards if the model gave values
that are not finite or a picture of one colour. What is painted is `intended`: nobody has looked yet.

Repainted photos come at the size of the model's canvas, 1152 x 864 for 640 x 480. Inpainted ones come at the photo's
own size, and every pixel outside the mask is the photo's.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vsre.errors import VsreError
from vsre.repaint.canvas import NoCanvas, as_picture, canvas_size, is_blank, on_canvas
from vsre.repaint.intents import Intent, NoIntent, intent_of
from vsre.repaint.masks import Mask, NoMask, make_mask
from vsre.repaint.painter import Painted, PaintJob, Refused, Setting, Vocabulary
from vsre.repaint.pipelines import Pipelines
from vsre.repaint.presets import DiffusionConfig
from vsre.repaint.weights import identity
from vsre.sources.images import load_image

REVISION = "diffusion/1"

NO_PICTURE = "the source triplet has no picture with it"
BAD_PICTURE = "the source picture cannot be opened"
TOO_LONG = "the prompt is longer than the text encoders read"
UNKNOWN = "the model does not know a class or relation that it would be asked for"
NO_NUMBERS = "the model gave no numbers (NaN or infinite)"
BLANK = "the model gave a picture of one colour"


@dataclass(frozen=True)
class _Request:
    """A job that can be painted: what to ask for, at which size, and from which photo with which mask."""

    job: PaintJob
    intent: Intent
    size: tuple[int, int]
    photo: Image.Image | None = None
    mask: Mask | None = None

    @property
    def seed(self) -> int:
        """63 bits: from the job's id, or the noise that it asks for."""
        return int(self.job.id, 16) >> 1 if self.job.noise is None else self.job.noise


class DiffusionPainter:
    """Paints with a diffusion model, which is loaded when the first picture is painted.

    `pipelines` lets painters share what is in memory; by default a painter has its own. Raises VsreError if diffusers
    is missing, or if the configuration names files that do not exist.
    """

    name = REVISION
    reads_images = True

    def __init__(self, vocabulary: Vocabulary, config: DiffusionConfig, *, pipelines: Pipelines | None = None) -> None:
        known = config.classes or vocabulary.classes
        self.vocabulary = replace(vocabulary, classes=tuple(name for name in vocabulary.classes if name in known))
        self.config = config
        self.pipelines = pipelines or Pipelines(config)
        self._identity = identity(config)
        self._made_by: dict[Setting, dict[str, Any]] = {}

    @property
    def settings(self) -> tuple[Setting, ...]:
        return self.config.settings

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {setting: self.parameters_for(setting) for setting in self.settings}

    def parameters_for(self, setting: Setting) -> Mapping[str, Any]:
        config = self.config
        scheduler = config.scheduler.model_dump() if config.scheduler is not None else None
        found: dict[str, Any] = {
            "weights": {k: v for k, v in self._identity.items() if setting == "inpaint" or k != "inpaint_unet"},
            "scheduler": scheduler,
            "dtype": config.dtype,
            **config.numbers(setting).model_dump(),
            "prompts": config.prompts.model_dump(),
            "encoding": config.encoding,
            # Rarely set; leaving them out when unset keeps the job ids of earlier versions.
            **{name: getattr(config, name) for name in ("variant", "vae_tiling") if getattr(config, name)},
            **{name: sorted(getattr(config, name)) for name in ("classes", "relations") if getattr(config, name)},
        }
        if setting == "t2i":
            return found | {"size": list(config.size), "vocabulary": self._words()}
        found["pixels"] = config.size[0] * config.size[1]
        if setting == "i2i":
            return found
        return found | {"mask": config.mask.model_dump(), "vocabulary": self._words()}

    def paint(self, job: PaintJob) -> Painted | Refused:
        return self.paint_many([job])[0]

    def paint_many(self, jobs: Sequence[PaintJob]) -> list[Painted | Refused]:
        """One result per job, in their order. Jobs of one setting and size are painted together, up to `batch_size`."""
        results: dict[int, Painted | Refused] = {}
        groups: defaultdict[tuple[Setting, tuple[int, int]], list[tuple[int, _Request]]] = defaultdict(list)
        for index, job in enumerate(jobs):
            prepared = self._prepare(job)
            if isinstance(prepared, Refused):
                results[index] = prepared
            else:
                groups[job.setting, prepared.size].append((index, prepared))
        for members in groups.values():
            for at in range(0, len(members), self.batch_size):
                batch = members[at : at + self.batch_size]
                painted = self._paint_batch([request for _, request in batch])
                results.update(zip((index for index, _ in batch), painted, strict=True))
        return [results[index] for index in range(len(jobs))]

    def release(self) -> None:
        """Drop the model if it is loaded; the next picture loads it again."""
        self.pipelines.release()

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes get the configuration and load the model themselves."""
        return self.__dict__ | {"pipelines": Pipelines(self.pipelines.config), "_made_by": {}}

    def _prepare(self, job: PaintJob) -> _Request | Refused:
        try:
            intent = intent_of(job, self.vocabulary, self.config.prompts)
            if not self._knows(intent):
                return Refused(job, UNKNOWN)
            if job.setting == "t2i":
                request = _Request(job, intent, self.config.size)
            else:
                mask = None
                if job.setting == "inpaint":
                    mask = make_mask(job.triplet.subject_box, job.triplet.object_box, self.config.mask)
                photo = _photo(job)
                size = canvas_size(*photo.size, pixels=self.config.size[0] * self.config.size[1])
                if mask is not None:
                    for width, height in (photo.size, size):
                        mask.hard(width, height)
                request = _Request(job, intent, size, photo, mask)
            if self.pipelines.too_long(intent.prompt):
                return Refused(job, TOO_LONG)
            return request
        except (NoIntent, NoMask, NoCanvas, _NoPhoto) as reason:
            return Refused(job, str(reason))

    def _knows(self, intent: Intent) -> bool:
        """Whether the model knows what the prompt may name; when inpainting, only the substitute is painted."""
        classes, relations = self.config.classes, self.config.relations
        if intent.substitute is not None:
            return not classes or intent.substitute in classes
        asked = [s for s in intent.statements if s.kind == "positive"] or intent.statements
        return all(
            (not classes or {s.subject, s.object} <= set(classes))
            and (not relations or s.kind != "positive" or s.relation in relations)
            for s in asked
        )

    def _paint_batch(self, requests: Sequence[_Request]) -> Iterator[Painted | Refused]:
        setting, size = requests[0].job.setting, requests[0].size
        if setting not in self._made_by:
            if self.pipelines.too_long(self.config.prompts.negative):
                raise VsreError("The negative prompt is longer than the text encoders read. Shorten it.")
            self._made_by[setting] = self.pipelines.describe(setting)
        pictures, *ran = self.pipelines.paint(
            setting,
            [request.intent.prompt for request in requests],
            [request.seed for request in requests],
            size,
            self.config.numbers(setting),
            negative=self.config.prompts.negative,
            images=[on_canvas(r.photo, size) for r in requests if r.photo is not None],
            masks=[r.mask.hard(*size) for r in requests if r.mask is not None],
        )
        for index, request in enumerate(requests):
            notes = self._notes(request, ran, {"size": len(requests), "place": index})
            yield self._finished(request, pictures[index], notes)

    def _finished(self, request: _Request, values: NDArray[np.floating], notes: dict[str, Any]) -> Painted | Refused:
        picture = as_picture(values)
        if picture is None:
            return Refused(request.job, NO_NUMBERS, "no numbers")
        if is_blank(picture):
            return Refused(request.job, BLANK, "one colour")
        if request.mask is not None and request.photo is not None:
            share = request.mask.soft(*request.photo.size)
            picture = Image.composite(on_canvas(picture, request.photo.size), request.photo, share)
        return Painted(
            request.job,
            _encoded(picture, self.config.encoding),
            *picture.size,
            request.intent.statements,
            notes=notes,
            truth="intended",
        )

    def _notes(self, request: _Request, ran: Sequence[Any], batch: dict[str, int]) -> dict[str, Any]:
        """The provenance of a picture: together with the source, all that is needed to paint it again."""
        config, setting = self.config, request.job.setting
        steps, strength = ran
        notes: dict[str, Any] = {
            "prompt": request.intent.prompt,
            "negative_prompt": config.prompts.negative,
            "generator_seed": request.seed,
            **config.numbers(setting).model_dump(),
            "steps_run": steps,
            **({} if strength is None else {"strength_run": strength}),
            "canvas": list(request.size),
            "batch": batch,
            "model": self._identity["model"],
            "licence": config.licence,
            **self._made_by[setting],
        }
        if request.photo is not None:
            notes["source_size"] = list(request.photo.size)
        if request.mask is not None:
            notes["mask"] = {
                **config.mask.model_dump(),
                "mode": request.mask.mode,
                "box": [round(x, 5) for x in request.mask.dilated],
                "painted": [round(x, 5) for x in request.mask.painted],
            }
            notes["replaced_by"] = request.intent.substitute
        return notes

    def _words(self) -> str:
        """A digest of the vocabulary, from which substitutes and contrary statements are chosen."""
        words = [self.vocabulary.classes, sorted(self.vocabulary.relations), sorted(self.vocabulary.pairs)]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]


class _NoPhoto(Exception):
    """Carries the reason for a refusal."""


def _photo(job: PaintJob) -> Image.Image:
    if job.triplet.image is None:
        raise _NoPhoto(NO_PICTURE)
    try:
        return load_image(job.triplet.image, name=job.triplet.image_name)
    except VsreError as error:
        raise _NoPhoto(BAD_PICTURE) from error


def _encoded(picture: Image.Image, encoding: str) -> bytes:
    out = io.BytesIO()
    if encoding == "jpeg":
        picture.save(out, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(out, "PNG")
    return out.getvalue()
