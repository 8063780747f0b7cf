"""Probes: the same statements with the picture or the words changed, to show what the answers depend on.

base         the statement about its picture
blank        a grey frame in the picture's place
words        no picture at all: the model's own language model, if the engine can ask it
other        the picture of another row
mirror       the mirrored picture: left and right change sides, nothing else
mirror-swap  the mirrored picture with left and right exchanged in the words (for these relations only)
swap         subject and object exchanged in the words
inverse      the same fact from the object's side (unless that is the swap already, as for symmetric relations)
opposite     a relation that excludes this one
negated      the denied statement

`vsre.relations.algebra` derives the label by logic; if the truth stays open, an answer is neither right nor wrong.
Every probe is asked with two shipped templates, a question and a statement; a denial only as a statement. Mirroring
also mirrors text in a picture.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageOps

from vsre.diagnose.answering import Group
from vsre.diagnose.blank import blank_picture
from vsre.diagnose.plan import by_image, picked_images
from vsre.diagnose.samples import Asked
from vsre.errors import VsreError
from vsre.relations import algebra, grammar
from vsre.relations.ontology import RELATIONS
from vsre.rewrite import Question, Template, load_pack
from vsre.rewrite.asking import answer, slot_values
from vsre.sources.images import load_image
from vsre.triplets import Triplet, read_triplets

BASE, BLANK, OTHER, MIRROR, MIRROR_SWAP = "base", "blank", "other", "mirror", "mirror-swap"
WORDS = "words"
SWAP, INVERSE, OPPOSITE, NEGATED = "swap", "inverse", "opposite", "negated"
PROBES = (BASE, BLANK, OTHER, WORDS, MIRROR, MIRROR_SWAP, SWAP, INVERSE, OPPOSITE, NEGATED)

_TEMPLATES = (("test-s", "test-s"), ("pool", "pool-08"))
"""A yes/no question and a true/false statement."""

_ON_PICTURE: dict[str, Callable[[algebra.Statement, bool], algebra.Derived | None]] = {
    SWAP: algebra.swapped,
    INVERSE: algebra.inverse,
    OPPOSITE: algebra.opposite,
}


@dataclass(frozen=True)
class ProbePlan:
    """Which triplets are probed: those of images drawn by a seed, at most `per_image` of each."""

    triplets_path: Path
    images: tuple[str, ...]
    questions: int
    per_image: int | None = None

    def groups(self) -> Iterator[Group]:
        """The pictures, changed and unchanged, with what is asked about each."""
        templates = probe_templates()
        triplets = list(self._triplets())  # a sample, held in memory so that any picture can stand in for another
        pictures = {t.image_id: t.image for t in triplets}
        following = dict(zip(self.images, (*self.images[1:], self.images[0]), strict=True))
        for ts in by_image(triplets, None, per_image=self.per_image):
            image = ts[0].image
            yield image, [a for t in ts for a in _about_the_picture(t, templates)]
            mirrored = None if image is None else mirror_picture(image)
            yield mirrored, [a for t in ts for a in _about_the_mirror(t, templates)]
            shown = {BLANK: None if image is None else blank_picture(image), OTHER: pictures[following[ts[0].image_id]]}
            for probe, other in shown.items():
                yield other, [_asked(t, probe, template, _said(t), t.label) for t in ts for template in templates]

    def without_pictures(self) -> list[Group]:
        """The statements for an engine that shows no picture."""
        templates = probe_templates()
        return [
            (None, [_asked(t, WORDS, template, _said(t), t.label) for t in ts for template in templates])
            for ts in by_image(self._triplets(images=False), None, per_image=self.per_image)
        ]

    def _triplets(self, *, images: bool = True) -> Iterator[Triplet]:
        wanted = frozenset(self.images)
        return (
            t
            for t in read_triplets(self.triplets_path, images=images)
            if t.image_id in wanted and t.relation in RELATIONS
        )


def plan_probes(
    triplets_path: Path | str,
    *,
    triplets: int,
    seed: int = 0,
    per_image: int | None = None,
    among: Collection[str] | None = None,
) -> ProbePlan:
    """Draw the images, from all or from `among`, in random order, so that the next one's picture is a random other one.

    Raises VsreError if fewer than two images have statements with VSR's relations.
    """
    path = Path(triplets_path)
    known = (
        t
        for t in read_triplets(path, images=False)
        if t.relation in RELATIONS and (among is None or t.image_id in among)
    )
    picked = sorted(picked_images(known, triplets, seed, per_image))
    if len(picked) < 2:
        raise VsreError(
            f"{path}: probes need at least two pictures with relations of VSR, and there are {len(picked)}. "
            "Leave the probes out (--probes 0)."
        )
    random.Random(seed).shuffle(picked)
    templates = probe_templates()
    asked = 0
    chosen = frozenset(picked)
    rows = (t for t in read_triplets(path, images=False) if t.image_id in chosen and t.relation in RELATIONS)
    for ts in by_image(rows, None, per_image=per_image):
        for t in ts:
            asked += len(_about_the_picture(t, templates)) + len(_about_the_mirror(t, templates)) + 2 * len(templates)
    return ProbePlan(path, tuple(picked), asked, per_image)


def probe_templates() -> list[Template]:
    """The templates every probe is asked with."""
    return [next(t for t in load_pack(pack).templates if t.id == name) for pack, name in _TEMPLATES]


def mirror_picture(image: bytes) -> bytes:
    """The picture with left and right exchanged, as PNG; a file that cannot be opened is returned as is."""
    try:
        opened = load_image(image)
    except VsreError:
        return image  # the engine says what is wrong with it
    buffer = io.BytesIO()
    ImageOps.mirror(opened).save(buffer, "PNG")
    return buffer.getvalue()


def statement_probes(
    said: algebra.Statement, label: bool = True
) -> list[tuple[str, algebra.Statement, bool | None, bool]]:
    """The probes that change words about the unchanged picture: (probe, statement, truth, denied)."""
    found: list[tuple[str, algebra.Statement, bool | None, bool]] = [(BASE, said, label, False)]
    for probe, derive in _ON_PICTURE.items():
        derived = derive(said, label)
        if derived is not None and all(derived.statement != statement for _, statement, _, _ in found):
            found.append((probe, derived.statement, derived.label, False))
    return [*found, (NEGATED, said, not label, True)]


def _about_the_picture(t: Triplet, templates: Sequence[Template]) -> list[Asked]:
    return [
        _asked(t, probe, template, statement, truth, denied=denied)
        for probe, statement, truth, denied in statement_probes(_said(t), t.label)
        for template in templates
        if not denied or "{caption}" in template.text
    ]


def _about_the_mirror(t: Triplet, templates: Sequence[Template]) -> list[Asked]:
    said = _said(t)
    probes = [(MIRROR, algebra.in_mirror(said, t.label))]
    if RELATIONS[t.relation].mirror != t.relation:
        probes.append((MIRROR_SWAP, algebra.mirrored(said, t.label)))
    return [_asked(t, probe, template, *derived) for probe, derived in probes for template in templates]


def _said(t: Triplet) -> algebra.Statement:
    return algebra.Statement(t.subject, t.relation, t.object)


def _asked(
    t: Triplet,
    probe: str,
    template: Template,
    said: algebra.Statement,
    truth: bool | None,
    *,
    denied: bool = False,
) -> Asked:
    """`key` stays the original triplet's, so that probes can be paired; `pack` is the probe."""
    changed = t.replace(subject=said.subject, relation=said.relation, object=said.object)
    values = slot_values(changed)
    if denied:
        values["caption"] = grammar.negated(*said)
    changed = changed.replace(caption=values["caption"])
    question = Question(
        key=t.key,
        image_id=t.image_id,
        template=template.id,
        pack=probe,
        prompt=template.text.format_map(values),
        answer=answer(template, values, bool(truth)),
        truth=bool(truth),
        format=template.format.name,
        split=t.split,
    )
    return Asked(changed, template, question, denied=denied, unknown=truth is None)
