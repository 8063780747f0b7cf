"""What a painter is asked and what it answers: the interface of every painter.

Three settings (arXiv 2412.18224, section 2): "t2i" makes a picture from the caption alone, "i2i" redraws the source
picture in its own layout, "inpaint" replaces the subject inside its box and leaves the rest. A painter never just
returns pixels: it states what is true and what is false of them, and refuses a job that it cannot do honestly. A
painter that draws knows what it has drawn; a diffusion model was only told, so the statements about its pictures are
`intended` until a verifier has looked (`vsre.repaint.verify`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, Literal, Protocol, runtime_checkable

from vsre.relations.grammar import caption
from vsre.sources.protocols import SOURCE_IMAGE
from vsre.triplets import Box, Triplet, image_content_id

Setting = Literal["t2i", "i2i", "inpaint"]
SETTINGS: tuple[Setting, ...] = ("t2i", "i2i", "inpaint")

Kind = Literal["positive", "object-absent", "relation-false"]
"""positive: the relation holds. object-absent: false because the subject is gone. relation-false: both are there, but
the relation does not hold."""

KINDS: tuple[Kind, ...] = ("positive", "object-absent", "relation-false")

Truth = Literal["drawn", "intended", "verified"]
"""How the truth of statements about a picture is known. drawn: the painter drew what they say. intended: the model was
asked for it, nobody looked. verified: a verifier looked and agreed."""


@dataclass(frozen=True)
class Vocabulary:
    """What a painter may add to pictures and say about them beyond the captions it was given.

    Only classes and relations of the source triplets are used, and never two classes that a held-out caption names
    together, so a repainted set keeps disjoint captions and disjoint concepts as they were. `captions`, `pairs` (two
    classes in alphabetical order) and `images` (every name of a picture, as `vsre.sources.protocols.image_names` gives
    them) are the held-out ones.
    """

    classes: tuple[str, ...]
    relations: frozenset[str]
    captions: frozenset[str] = frozenset()
    pairs: frozenset[tuple[str, str]] = frozenset()
    images: frozenset[str] = frozenset()

    def allows(self, subject: str, relation: str, object: str) -> bool:
        """Whether "SUBJECT RELATION OBJECT" may be said although the source does not say it."""
        return relation in self.relations and class_pair(subject, object) not in self.pairs


def class_pair(a: str, b: str) -> tuple[str, str]:
    """Two classes in alphabetical order."""
    return (a, b) if a <= b else (b, a)


_json = json.JSONEncoder(sort_keys=True).encode


class Parameters(dict[str, Any]):
    """A painter's parameters, as JSON values that do not change: their text is made once, not for each of half a
    million jobs."""

    @cached_property
    def text(self) -> str:
        return _json(self)


@dataclass(frozen=True)
class PaintJob:
    """One picture to make: a source triplet, a setting, a seed, and the painter's revision and parameters.

    `truth` is what "t2i" should make of the caption: true or false; the other settings follow the source and have None.
    `noise` seeds a diffusion model in place of the job's id, so that jobs which differ only in a number start from the
    same noise.
    """

    triplet: Triplet
    setting: Setting
    seed: int
    painter: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    truth: bool | None = None
    noise: int | None = None

    @cached_property
    def id(self) -> str:
        """16 hex digits, the same wherever and in whatever order jobs run."""
        source = self.triplet
        asked = [source.caption, source.relation, source.label, self.setting, source.image_id, self.painter]
        given = [self.truth, self.seed, *([] if self.noise is None else [self.noise])]
        values = self.parameters
        text = values.text if isinstance(values, Parameters) else _json(dict(values))
        # Equals the JSON of a single list of everything.
        whole = f"{_json(asked)[:-1]}, {text}, {_json(given)[1:]}"
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def random(self) -> Random:
        """The job's own random number generator."""
        return Random(self.id)


@dataclass(frozen=True, slots=True)
class Statement:
    """A caption that is indisputably true (`kind` positive) or false of a picture."""

    subject: str
    relation: str
    object: str
    kind: Kind
    subject_box: Box | None
    object_box: Box | None

    @property
    def caption(self) -> str:
        return caption(self.subject, self.relation, self.object)

    @property
    def label(self) -> bool:
        return self.kind == "positive"


@dataclass(frozen=True)
class Painted:
    """A picture with what is true and false of it.

    `image` is an encoded file, `width` and `height` its pixels. `statements` are what the job asked for, `others` what
    else is known about the picture, for whoever balances the set to choose from. Boxes are fractions of the new
    picture. `truth` is how `statements` are known; `others` of a verified picture were drawn.
    """

    job: PaintJob
    image: bytes
    width: int
    height: int
    statements: tuple[Statement, ...]
    others: tuple[Statement, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    truth: Truth = "drawn"

    def triplets(self, statements: Sequence[Statement] | None = None) -> list[Triplet]:
        """Rows for these statements (default: those the job asked for), with full provenance."""
        source, image_id = self.job.triplet, image_content_id(self.image)
        provenance = {
            SOURCE_IMAGE: made_from(source) or source.image_id,
            "source_key": source.key,
            "painter": self.job.painter,
            "setting": self.job.setting,
            "job": self.job.id,
            "seed": self.job.seed,
            **self.notes,
        }
        # A verifier checks `statements` alone; anything else said about a verified picture is what was drawn.
        beside: Truth = "drawn" if self.truth == "verified" else self.truth
        return [
            Triplet(
                image_id=image_id,
                image_name=f"{self.job.id}.{_extension(self.image)}",
                subject=s.subject,
                relation=s.relation,
                object=s.object,
                caption=s.caption,
                label=s.label,
                split=source.split,
                origin=f"repaint:{self.job.setting}",
                image=self.image,
                width=self.width,
                height=self.height,
                subject_box=s.subject_box,
                object_box=s.object_box,
                provenance=provenance | {"truth": self.truth if s in self.statements else beside, "kind": s.kind},
            )
            for s in (self.statements if statements is None else statements)
        ]


Pixels = Literal["ok", "one colour", "no numbers"]
"""What a picture's values show: a picture, a single colour (nothing was painted), or NaN or infinite values."""


@dataclass(frozen=True)
class Refused:
    """A job that cannot be done honestly. `reason` is one of a few short sentences, so that reasons can be counted;
    `pixels` says what was wrong with a picture that was painted and thrown away, None if none was."""

    job: PaintJob
    reason: str
    pixels: Pixels | None = None


class Painter(Protocol):
    """Makes pictures. The same job gives the same picture; painters are pickled to worker processes."""

    @property
    def name(self) -> str:
        """Name and revision; changes with anything that changes its pictures."""
        ...

    @property
    def settings(self) -> tuple[Setting, ...]: ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything that its pictures depend on, as JSON values."""
        ...

    def parameters_for(self, setting: Setting) -> Mapping[str, Any]:
        """Those that the pictures of one setting depend on; they enter the ids of its jobs."""
        ...

    @property
    def reads_images(self) -> bool:
        """Whether jobs must carry the source picture's bytes."""
        ...

    def paint(self, job: PaintJob) -> Painted | Refused: ...


@runtime_checkable
class BatchPainter(Painter, Protocol):
    """A painter that makes several pictures at once faster than one by one.

    The rest of its batch may change a picture by a grey level, so batches must depend on the jobs alone.
    """

    @property
    def batch_size(self) -> int:
        """Maximum number of pictures of one setting painted at once."""
        ...

    def paint_many(self, jobs: Sequence[PaintJob]) -> list[Painted | Refused]:
        """One result per job, in their order."""
        ...


def made_from(source: Triplet) -> str | None:
    """The image id of the first picture that the source's own was made from (mirrored, repainted); None if it was made
    from none. Protocols must see the first of a chain."""
    first = source.provenance.get(SOURCE_IMAGE)
    return first if isinstance(first, str) else None


def paint_all(painter: Painter, jobs: Sequence[PaintJob]) -> list[Painted | Refused]:
    """One result per job, in their order, in batches if the painter has them."""
    return painter.paint_many(jobs) if isinstance(painter, BatchPainter) else [painter.paint(job) for job in jobs]


def _extension(image: bytes) -> str:
    return "png" if image.startswith(b"\x89PNG") else "jpg"
