"""How a triplet is said in English: statement, denial and question, and how a VSR caption is parsed.

VSR says every caption as "The X is REL the Y.", even for things with a plural name ("The scissors is on the book.").
Three relations are verbs and take no "is": contains, consists of, has as a part. All functions take class names as in
COCO ("dining table") and a relation as in VSR ("left of").
"""

from __future__ import annotations

import re
from functools import lru_cache

from vsre.relations.ontology import RELATIONS

_VERBS = {name: relation.base_form for name, relation in RELATIONS.items() if relation.verb}
_PART = "as a part"
_ARTICLES = ("the", "a", "an")


def is_relation(relation: str) -> str:
    """The relation with its verb, as a caption has it: "is left of", "contains"."""
    return relation if relation in _VERBS else f"is {relation}"


def caption(subject: str, relation: str, object: str) -> str:
    """ "The cat is left of the dog."; "The bowl contains the cake."; "The car has as a part the bed." """
    return f"The {subject} {is_relation(relation)} the {object}."


def negated(subject: str, relation: str, object: str) -> str:
    """ "The cat is not left of the dog."; "The bowl does not contain the cake." """
    if relation in _VERBS:
        return f"The {subject} does not {_verb_phrase(relation, object)}."
    return f"The {subject} is not {relation} the {object}."


def question(subject: str, relation: str, object: str) -> str:
    """ "Is the cat left of the dog?"; "Does the bowl contain the cake?" """
    if relation in _VERBS:
        return f"Does the {subject} {_verb_phrase(relation, object)}?"
    return f"Is the {subject} {relation} the {object}?"


def _verb_phrase(relation: str, object: str) -> str:
    base = _VERBS[relation]
    if base.endswith(_PART):  # English wants the thing before "as a part"; VSR's captions have it after
        return f"{base.removesuffix(_PART)}the {object} {_PART}"
    return f"{base} the {object}"


def parse_caption(caption: str, relation: str) -> tuple[str, str] | None:
    """The subject and the object of a caption whose relation is known; None if it is not of VSR's form.

    Case, runs of whitespace, a final period, "are" for "is" and "a"/"an" for "the" do not matter. The object must have
    its article: that is what distinguishes "on the cake" from "on top of the cake".
    """
    found = _pattern(" ".join(relation.split()).lower()).fullmatch(" ".join(caption.split()))
    return (found["subject"], found["object"]) if found and found["subject"].lower() not in _ARTICLES else None


@lru_cache(maxsize=256)
def _pattern(relation: str) -> re.Pattern[str]:
    verb = "" if relation in _VERBS else "(?:is|are) "
    article = f"(?:{'|'.join(_ARTICLES)}) "
    return re.compile(
        rf"(?:{article})?(?P<subject>\S.*?) {verb}{re.escape(relation)} {article}(?P<object>\S.*?) ?\.?",
        re.IGNORECASE,
    )
