"""A person's question or statement parsed into subject, relation and object."""

from __future__ import annotations

import re

from vsre.relations.algebra import Statement
from vsre.relations.grammar import parse_caption
from vsre.relations.ontology import RELATIONS

SAID_OTHERWISE = {
    "to the left of": "left of",
    "on the left of": "left of",
    "to the right of": "right of",
    "on the right of": "right of",
    "on the left side of": "at the left side of",
    "on the right side of": "at the right side of",
    "on the left-hand side of": "at the left side of",
    "on the right-hand side of": "at the right side of",
    "in the front of": "in front of",
    "in back of": "behind",
    "in between": "between",
    "inside of": "inside",
    "underneath": "beneath",
    "on the top of": "on top of",
    "close by": "close to",
    "nearby": "near",
}
"""Other words for VSR's relations, as people say them."""

_LONGEST_FIRST = sorted((*RELATIONS, *SAID_OTHERWISE), key=len, reverse=True)
_NO_SUBJECT = re.compile(r".* (not|at|by|from|in|of|off|on|out|to|up|down)")
_NO_OBJECT = re.compile(r"(.* )?(left|right|front|back|side)\b.* of (the|an?) .*")
"""Names that still contain a denial, or a relation in words that are not known here."""

_ASKED = re.compile(r"(is|are|does|do) (the|a|an) (.+?)\??", re.IGNORECASE)


def parse_statement(text: str) -> Statement | None:
    """ "Is the cup to the left of the laptop?" and "The cup is left of the laptop." -> (cup, left of, laptop).

    None if the text is not of this form, is a denial, or its relation is not one of VSR's.
    """
    words = " ".join(text.split())
    if "?" in words:  # an instruction may follow: "... Answer yes or no."
        words = words[: words.index("?") + 1]
    asked = _ASKED.fullmatch(words)
    if asked is None and words.endswith("?"):
        return None
    for said in _LONGEST_FIRST:
        name = SAID_OTHERWISE.get(said, said)
        found = _question(asked[3], said, name) if asked else _statement(words, said, name)
        if found is not None:
            subject, object = (thing.lower() for thing in found)
            misread = _NO_SUBJECT.fullmatch(subject) or _NO_OBJECT.fullmatch(object)
            return None if misread else Statement(subject, name, object)
    return None


def _statement(words: str, said: str, name: str) -> tuple[str, str] | None:
    at = words.lower().find(f" {said} ")
    return parse_caption(f"{words[:at]} {name} {words[at + len(said) + 2 :]}", name) if at >= 0 else None


def _question(words: str, said: str, name: str) -> tuple[str, str] | None:
    """`words`: what follows "Is the": "cup left of the laptop"."""
    said = RELATIONS[name].base_form if RELATIONS[name].verb and said == name else said
    tail = "as a part"
    if said.endswith(tail):  # "have the bed as a part"
        said, words = said.removesuffix(tail).strip(), words.lower().removesuffix(tail).strip()
        if name == "has as a part" and "have" not in words:
            return None
    found = re.fullmatch(rf"(.+?) {re.escape(said)} (?:the|a|an) (.+)", words, re.IGNORECASE)
    return (found[1], found[2]) if found else None
