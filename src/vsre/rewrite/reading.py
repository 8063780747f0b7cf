"""What a model's answer says: yes, no, or nothing that can be read. Nothing is ever guessed.

The rules, in the order they are tried (`read_answer` follows the same order):

1. The exact canonical answer.
2. Reasoning blocks and turns the model went on to write are cut off, decoration is removed (clean.py).
3. Of a JSON answer, the value of its answer field; of a text with a stated conclusion ("Final answer: no", a
   box, "so the answer is no"), what follows the last one.
4. Repeated options ("yes or no", "A. yes B. no") are erased.
5. A refusal anywhere, or a label in doubt ("maybe yes"), is no answer. A leaning ("probably yes") is.
6. Labels: all that any piece of any sentence gives must agree. Questions and "if" sentences give none.
7. Without a label, the statement repeated is a yes, its denial a no; after a label they must agree with it.

The words are data: lexicon.yaml for every format, formats.yaml for each one's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from vsre.relations.parsing import SAID_OTHERWISE
from vsre.rewrite.clean import LONGEST, Sentence, answer_part, plain, sentences, stated_conclusion
from vsre.rewrite.formats import AnswerFormat
from vsre.rewrite.labels import DOUBTS, REFUSALS, Labels, conditional, core, denies


@dataclass(frozen=True, slots=True)
class Reading:
    """`value` is True for yes, False for no, None for unanswered; `reason` says why in a few words."""

    value: bool | None
    reason: str


_EMPTY = Reading(None, "empty")
_BOTH = Reading(None, "says yes and no")
_NONE = Reading(None, "says neither yes nor no")

_JSON = re.compile(r"\s*(?:```\w*\s*)?[{\[]")
_JSON_ANSWER = re.compile(
    r"[\"'](?:final[_ ]?)?(?:answer|label|prediction|result|response|output|verdict)[\"']\s*:\s*"
    r"(?:\"([^\"\n]{0,500})|'([^'\n]{0,500})|([\w.-]{1,20}))",
    re.IGNORECASE,
)

_LETTER = re.compile(r"\(([A-Za-z])\)(?= ?\w)")
"""A letter in brackets before what is said about it, "(B) is not correct": brackets would cut the two apart."""


def read_answer(
    text: str, format: AnswerFormat, *, statement: str | None = None, negated: str | None = None
) -> Reading:
    """Read a raw answer under the format it was asked for; never raises, whatever the text.

    `statement` and `negated` are the question's sentence and its denial ("The cat is left of the dog.", "The cat is not
    left of the dog."): with them, an answer that only repeats one of them is read too.
    """
    bare = text.strip()
    if not bare:
        return _EMPTY
    for truth in (True, False):
        if bare in (format.short(truth), format.short(truth) + "."):
            return Reading(truth, "the label alone")
    answer = answer_part(text)
    if answer is None:
        return Reading(None, "the reasoning never ends")
    echoes = _echoes(statement, negated)
    if _JSON.match(answer) and (fields := _JSON_ANSWER.findall(answer[:LONGEST])):
        reading = _read(". ".join(plain("".join(field)) for field in fields), format, echoes)
        return Reading(reading.value, f"the answer field: {reading.reason}")
    clean = plain(_LETTER.sub(r"\1 ", answer[-LONGEST:]))
    conclusion = stated_conclusion(clean)
    if conclusion is not None and (reading := _read(conclusion, format, echoes)) != _NONE:
        return Reading(reading.value, f"the conclusion: {reading.reason}")
    if len(answer) > LONGEST:
        return Reading(None, f"longer than {LONGEST} characters without a conclusion")
    return _read(clean, format, echoes)


def _read(clean: str, format: AnswerFormat, echoes: dict[str, bool]) -> Reading:
    labels = Labels.of(format)
    if not any(c.isprintable() and not c.isspace() for c in clean):
        return _EMPTY
    found = sentences(labels.without_options(clean))
    if any(REFUSALS.search(" ".join(s.pieces)) for s in found):
        return Reading(None, "declines to answer")
    said: list[bool] = []
    echoed: list[bool] = []
    for sentence in found:
        if sentence.asks or conditional(sentence.pieces[0]):
            continue
        for value, is_label in _hear(sentence, labels, echoes, whole=len(found) == 1):
            if value is None:
                return _BOTH if is_label else Reading(None, "in doubt")
            if is_label:
                said.append(value)
            elif not said or value != said[-1]:
                echoed.append(value)
                if said:
                    return Reading(None, "the label and the sentence contradict each other")
    if said:
        return Reading(said[0], "the label") if len(set(said)) == 1 else _BOTH
    if echoed:
        return Reading(echoed[0], "the statement said over") if len(set(echoed)) == 1 else _BOTH
    return _NONE


def _hear(
    sentence: Sentence, labels: Labels, echoes: dict[str, bool], *, whole: bool
) -> list[tuple[bool | None, bool]]:
    """(value, whether it is a label) of each piece that says something; (None, False) is a doubt, (None, True) is both
    labels in one piece. `whole` is true if the answer is this sentence alone."""
    heard: list[tuple[bool | None, bool]] = []
    if len(sentence.pieces) == 1:
        alone = labels.alone(sentence.pieces[0], whole=whole)
        if alone is not None:
            return [(alone, True)]
    denied = withheld = False
    for at, piece in enumerate(sentence.pieces):
        echo = echoes.get(_words(core(piece)), echoes.get(_words(piece)))
        if echo is not None:
            # 'it is not "the cat is left of the dog"' and 'the caption "..." contradicts the picture' only mention it
            if not denied and not _mentioned(sentence.pieces, at):
                heard.append((echo, False))
            continue
        if DOUBTS.fullmatch(core(piece)):
            heard.append((None, False))
            continue
        values = labels.values(piece, lambda rest: echoes.get(_words(rest)))
        if values and (withheld or DOUBTS.search(piece)):  # 'I would not say "yes"'
            heard.append((None, False))
        elif values:
            heard.append((values.pop() if len(values) == 1 else None, True))
        else:
            denied = bool(re.search(r"\b(?:not|never)$", piece))
        withheld = not values and denies(piece) and bool(_LEADS.search(piece))
    return heard


def _mentioned(pieces: Sequence[str], at: int) -> bool:
    """Whether a piece is what its sentence is about: called a statement before it, or judged after it."""
    before, behind = pieces[at - 1] if at else "", pieces[at + 1] if at + 1 < len(pieces) else ""
    return bool(_CALLED.search(before) or _JUDGED.match(behind))


_CALLED = re.compile(
    r"\b(?:the|this|that|your)(?: \w+){0,2} (?:statement|caption|description|claim|sentence|assertion|proposition"
    r"|hypothesis|report|label|text)$|\b(?:says|said|states|stated|claims|claimed|asserts|asserted|reads)(?: that)?$"
)
_JUDGED = re.compile(
    r"(?:is|are|was|would|could|should|can|cannot|does|do|did|must|seems|appears|contradicts|conflicts|matches|fits"
    r"|describes|holds|fails)\b"
)
_LEADS = re.compile(r"\b(?:say|answer|reply|choose|pick|select|call it|is|be)$")


def _words(piece: str) -> str:
    """A piece as echoes are compared: without articles and emphasis."""
    return " ".join(word for word in piece.split() if word not in _UNSTRESSED)


_UNSTRESSED = {"the", "a", "an", "indeed", "clearly", "actually", "definitely", "certainly"}
_THIRD_PERSON = {"contain": "contains", "consist": "consists", "have": "has"}


@lru_cache(maxsize=4096)
def _echoes(statement: str | None, negated: str | None) -> dict[str, bool]:
    """The ways to repeat the statement or its denial, as `_words` leaves them."""
    said: dict[str, bool] = {}
    for sentence, value in ((statement, True), (negated, False)):
        for found in sentences(plain(sentence or "")):
            said[_words(" ".join(found.pieces))] = value
    for sentence, value in list(said.items()):  # "to the left of" for "left of"
        for otherwise, relation in SAID_OTHERWISE.items():
            if relation in sentence:
                said[_words(re.sub(rf"\b{relation}\b", otherwise, sentence))] = value
    for denial in [d for d, value in said.items() if not value]:
        said[re.sub(r"\b(is|are) not\b", r"\1", denial)] = True
        said[re.sub(r"\bdoes not (\w+)", lambda m: _THIRD_PERSON.get(m[1], m[1] + "s"), denial)] = True
        said[denial] = False
    for sentence, value in list(said.items()):  # "it is left of the dog", "it does not contain the cake"
        verb = re.search(r"\b(?:is|does not|contains|consists|has)\b", sentence)
        if verb:
            said["it " + sentence[verb.start() :]] = value
    return said
