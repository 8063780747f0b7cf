"""From a triplet and a template to a question with its expected answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vsre.errors import VsreError
from vsre.relations import grammar
from vsre.rewrite.formats import AnswerFormat
from vsre.triplets import Box, Triplet

RELATION_SLOTS = frozenset({"caption", "statement", "negated", "question", "whether", "relation", "is_relation"})
"""Slots that say the relation; a template has at least one."""

SENTENCE_SLOTS = RELATION_SLOTS - {"relation", "is_relation"}
"""Slots that say the whole triplet."""

BOX_SLOTS = frozenset({"subject_box", "object_box"})

SLOTS = RELATION_SLOTS | BOX_SLOTS | {"subject", "object"}


@dataclass(frozen=True, slots=True)
class Template:
    """One wording of the question. `text` is a format string over SLOTS; `tags` are the pack's own labels ("plain",
    "paraphrase"); `pack` names the pack file that the template is in."""

    id: str
    text: str
    format: AnswerFormat
    style: Literal["short", "full"]
    needs_boxes: bool
    pack: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TemplatePack:
    """A named set of templates, in the order of the file."""

    name: str
    templates: tuple[Template, ...]
    purpose: str = ""

    @property
    def digest(self) -> str:
        """A digest of how the pack asks and how its answers are read."""
        told = "".join(f"{template!r}\n" for template in self.templates)
        return f"sha256:{hashlib.sha256(told.encode()).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class Question:
    """A triplet asked through one template. `key` and `image_id` are the triplet's; `template`, `pack` and `format` are
    names; `truth` is the triplet's label, `answer` what a correct answer looks like."""

    key: str
    image_id: str
    template: str
    pack: str
    prompt: str
    answer: str
    truth: bool
    format: str
    split: str

    @property
    def id(self) -> str:
        return f"{self.key}/{self.template}"


def box_text(box: Box) -> str:
    """ "[0.12, 0.30, 0.55, 0.80]": x0, y0, x1, y1 as fractions of width and height."""
    return "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]".format(*box)


def has_boxes(triplet: Triplet) -> bool:
    return triplet.subject_box is not None and triplet.object_box is not None


def slot_values(triplet: Triplet) -> dict[str, str]:
    """The value of each slot for this triplet. Besides SLOTS, `boxed_statement` and `boxed_negated` hold the sentences
    with a box after each thing; they and the box slots are present only if both boxes are known."""
    subject, relation, object = triplet.subject, triplet.relation, triplet.object
    caption = grammar.caption(subject, relation, object)
    question = grammar.question(subject, relation, object)
    values = {
        "caption": caption,
        "statement": _inside(caption),
        "negated": _inside(grammar.negated(subject, relation, object)),
        "question": question,
        "whether": "whether " + _inside(caption),
        "subject": subject,
        "object": object,
        "relation": relation,
        "is_relation": grammar.is_relation(relation),
    }
    if triplet.subject_box is not None and triplet.object_box is not None:
        values["subject_box"] = box_text(triplet.subject_box)
        values["object_box"] = box_text(triplet.object_box)
        boxed_subject, boxed_object = f"{subject} {values['subject_box']}", f"{object} {values['object_box']}"
        values["boxed_statement"] = _inside(grammar.caption(boxed_subject, relation, boxed_object))
        values["boxed_negated"] = _inside(grammar.negated(boxed_subject, relation, boxed_object))
    return values


def _inside(sentence: str) -> str:
    """A sentence as it appears inside another one: lower-case start, no period."""
    return sentence[0].lower() + sentence[1:].removesuffix(".")


def answer(template: Template, values: Mapping[str, str], truth: bool) -> str:
    """The expected answer in the template's style, with boxes if the question gave them."""
    if template.style == "short":
        return template.format.short(truth)
    boxed = "boxed_" if template.needs_boxes else ""
    pattern = template.format.full_yes if truth else template.format.full_no
    return pattern.format(statement=values[boxed + "statement"], negated=values[boxed + "negated"])


def ask(template: Template, triplet: Triplet) -> Question:
    """The triplet asked through the template. Raises VsreError if the template gives boxes and the triplet lacks
    one."""
    if template.needs_boxes and not has_boxes(triplet):
        raise VsreError(
            f"Template {template.id} gives the boxes of both things, and triplet {triplet.key} "
            f"({triplet.image_name}: {triplet.caption!r}) has none. "
            "Use a pack without boxes or a source that has them."
        )
    values = slot_values(triplet)
    return Question(
        key=triplet.key,
        image_id=triplet.image_id,
        template=template.id,
        pack=template.pack,
        prompt=template.text.format_map(values),
        answer=answer(template, values, triplet.label),
        truth=triplet.label,
        format=template.format.name,
        split=triplet.split,
    )
