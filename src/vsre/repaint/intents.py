"""What a repaint by a diffusion model means: what it is asked for, and what is true of the picture if it obeys.

- t2i, true: the caption is a positive.
- t2i, false: a relation that excludes the caption's is painted. What was painted is a positive and the caption
  relation-false, because of geometry: both things are there. If no relation excludes it, the job is refused, because a
  picture without one of the things would be false by absence.
- i2i: the photo's layout with other pixels, so the source's label stays: positive or relation-false.
- inpaint: another class in the subject's place. The old caption is object-absent; the new one keeps the source's label,
  since the positions have not changed: positive or relation-false.

A substitute is a class of the vocabulary that nobody could take for the subject or the object and whose caption may be
said: from the subject's COCO super-category (animals, vehicles ...) if there is one, else of about the same size in
life (hand-sized or not), else any. It depends on the job's seed, not on the painter's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from vsre.relations.algebra import Statement as Said
from vsre.relations.algebra import opposite, swapped
from vsre.relations.ontology import RELATIONS
from vsre.repaint.edits import alike
from vsre.repaint.painter import Kind, PaintJob, Statement, Vocabulary
from vsre.repaint.prompts import PromptSpec
from vsre.sources.coco import SUPERCATEGORY
from vsre.triplets import Triplet

NO_CONTRARY = "no relation that may be said excludes the caption's, so no picture can show it false"
NO_SUBSTITUTE = "no other class may take the subject's place"


class NoIntent(Exception):
    """The job cannot be done honestly; carries the reason, one of a few fixed sentences."""


_HAND_SIZED = frozenset(("accessory", "sports item", "kitchen item", "food", "electronic device", "indoor object"))


@dataclass(frozen=True)
class Intent:
    """The prompt, what is true of the picture if the model obeys, and the class that replaces the subject (inpaint)."""

    prompt: str
    statements: tuple[Statement, ...]
    substitute: str | None = None


def intent_of(job: PaintJob, vocabulary: Vocabulary, prompts: PromptSpec) -> Intent:
    """The intent of a job. Raises NoIntent if it cannot be done honestly."""
    source = job.triplet
    if job.setting == "t2i":
        return _from_words(source, job.truth is not False, vocabulary, prompts)
    if job.setting == "i2i":
        said = _said(source, source.subject, source.label, boxes=True)
        if source.label:
            return Intent(prompts.relation(source.subject, source.relation, source.object), (said,))
        return Intent(prompts.both(source.subject, source.object), (said,))
    name = substitute(source, vocabulary, Random(job.seed))
    prompt = prompts.one(name)
    if prompts.inpaint == "scene":
        words = (name, source.relation, source.object)
        prompt = prompts.relation(*words) if source.label else prompts.both(name, source.object)
    gone = Statement(source.subject, source.relation, source.object, "object-absent", None, source.object_box)
    return Intent(prompt, (_said(source, name, source.label, boxes=True), gone), name)


def contrary(source: Triplet, vocabulary: Vocabulary) -> tuple[str, str, str] | None:
    """A statement that excludes the caption and may be said: the relation's antonym, or the same relation the other way
    round if it holds one way only. None if there is neither."""
    if source.relation not in RELATIONS:
        return None
    said = Said(source.subject, source.relation, source.object)
    for derived in (opposite(said, True), swapped(said, True)):
        if derived is not None and derived.label is False and vocabulary.allows(*derived.statement):
            return derived.statement
    return None


def substitute(source: Triplet, vocabulary: Vocabulary, rng: Random) -> str:
    """A class to replace the subject. Raises NoIntent if there is none."""
    two = (source.subject, source.object)
    fit = [
        name
        for name in vocabulary.classes
        if name not in two
        and not any(alike(name, other) for other in two)
        and vocabulary.allows(name, source.relation, source.object)
    ]
    if not fit:
        raise NoIntent(NO_SUBSTITUTE)
    kind = SUPERCATEGORY.get(source.subject)
    if kind is None:
        return rng.choice(fit)
    same = [name for name in fit if SUPERCATEGORY.get(name) == kind]
    known = [name for name in fit if name in SUPERCATEGORY]
    alike_in_size = [name for name in known if (SUPERCATEGORY[name] in _HAND_SIZED) is (kind in _HAND_SIZED)]
    return rng.choice(same or alike_in_size or fit)


def _from_words(source: Triplet, true: bool, vocabulary: Vocabulary, prompts: PromptSpec) -> Intent:
    positive = _said(source, source.subject, True, boxes=False)
    if true:
        return Intent(prompts.relation(source.subject, source.relation, source.object), (positive,))
    other = contrary(source, vocabulary)
    if other is None:
        raise NoIntent(NO_CONTRARY)
    painted = Statement(*other, "positive", None, None)
    return Intent(prompts.relation(*other), (painted, _said(source, source.subject, False, boxes=False)))


def _said(source: Triplet, subject: str, label: bool, *, boxes: bool) -> Statement:
    """The source's statement with this subject; the boxes are the source's if its layout is kept."""
    kind: Kind = "positive" if label else "relation-false"
    two = (source.subject_box, source.object_box) if boxes else (None, None)
    return Statement(subject, source.relation, source.object, kind, *two)
