"""Which of several lettered options a model's answer names, as benchmarks with options need it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vsre.rewrite.clean import LONGEST, answer_part, plain, sentences, stated_conclusion
from vsre.rewrite.labels import DOUBTS, REFUSALS, conditional, core, denies, faulted


@dataclass(frozen=True, slots=True)
class Choice:
    """`letter` is a key of the options, or None if unanswered; `reason` says why in a few words."""

    letter: str | None
    reason: str


_NONE = Choice(None, "names no option")
# A piece that goes on after the punctuation that cuts it off: "I would not choose (B)", "the answer is not: B".
_OPEN = re.compile(
    r"\b(?:not|never|is|be|are|as|to|for|with|that|than|say|answer|choose|select|pick|option|choice|letter|think|believe)$"
)
_REJECTED = re.compile(
    r"(?:the |an? )?(?:incorrect|wrong|false|not (?:correct|right|true))(?: (?:answer|option|choice|letter)s?)?$"
)


def read_choice(text: str, options: Mapping[str, str]) -> Choice:
    """Read a raw answer to a question with lettered options, {"A": "left of the dog", "B": "above", ...}.

    An option is named by its letter standing alone or after words like "the answer is", or by its whole text. Several
    different ones are no answer; an article "A" is not a letter; nothing is guessed. Never raises.
    """
    answer = answer_part(text)
    if answer is None:
        return Choice(None, "the reasoning never ends")
    clean = plain(answer[-LONGEST:])
    if not clean:
        return Choice(None, "empty")
    names = {letter.casefold(): letter for letter in options}
    texts: dict[str, str | None] = {}
    for letter, option in options.items():
        said = _words(plain(option))
        texts[said] = None if said in texts else letter  # options that read alike cannot be told apart by their text
    conclusion = stated_conclusion(clean)
    if conclusion is not None and (choice := _choose(conclusion, names, texts)) != _NONE:
        return choice
    if len(answer) > LONGEST:
        return Choice(None, f"longer than {LONGEST} characters without a conclusion")
    return _choose(clean, names, texts)


def _choose(clean: str, names: Mapping[str, str], texts: Mapping[str, str | None]) -> Choice:
    if letter := texts.get(_words(clean)):
        return Choice(letter, "the option's text")
    found = sentences(clean)
    if any(REFUSALS.search(" ".join(s.pieces)) for s in found):
        return Choice(None, "declines to answer")
    named: set[str] = set()
    for sentence in found:
        if sentence.asks or conditional(sentence.pieces[0]):
            continue
        whole = texts.get(_words(" ".join(sentence.pieces)))
        heard = {whole} if whole else _heard(sentence.pieces, names, texts)
        if heard and any(DOUBTS.search(p) for p in sentence.pieces):
            return Choice(None, "in doubt")
        named |= heard
    if len(named) > 1:
        return Choice(None, f"names {' and '.join(sorted(named))}")
    return Choice(named.pop(), "the option named") if named else _NONE


def _heard(pieces: tuple[str, ...], names: Mapping[str, str], texts: Mapping[str, str | None]) -> set[str]:
    """The letters that the pieces of one sentence name, less those that a neighbouring piece takes back."""
    heard: set[str] = set()
    before, last = "", set[str]()  # the piece before, and what it named
    for piece in pieces:
        letters = _letters(piece, names, texts)
        alone = piece in names or _words(piece) in texts
        open_denial = denies(before) and (_OPEN.search(before) or (alone and _chosen(before, names)))
        if letters and (open_denial or (alone and _REJECTED.fullmatch(before))):
            letters = set()
        elif not letters and (faulted(piece) or (last and _REJECTED.fullmatch(piece))):
            heard -= last
            piece = ""  # it refers to the piece before it
        elif not letters:
            heard -= {letter for text, letter in texts.items() if text and faulted(_behind(text, piece))}
        heard |= letters
        before, last = piece, letters | (last if letters else set())
    return heard


def _behind(text: str, piece: str) -> str:
    said = _words(piece)
    return said.removeprefix(text).strip() if said.startswith(text) else ""


def _letters(piece: str, names: Mapping[str, str], texts: Mapping[str, str | None]) -> set[str]:
    bare = core(piece)
    for said in (piece, bare):
        if said in names:
            return {names[said]}
        if letter := texts.get(_words(said)):
            return {letter}
    words = bare.split()
    if set(words) <= names.keys() | {"both", "and", "or"}:
        return {names[w] for w in words if w in names}
    first, _, rest = bare.partition(" ")
    if first in names:
        behind = texts.get(_words(rest))
        if behind or re.match(r"is (?:the )?(?:correct|right|best|true|my answer|answer)\b", rest):
            return {names[first]} | ({behind} if behind else set())
    found = _chosen(piece, names)
    return {names[found[1]]} if found and not denies(piece[: found.start(1)]) else set()


def _chosen(piece: str, names: Mapping[str, str]) -> re.Match[str] | None:
    letter = "|".join(map(re.escape, names))
    pattern = rf"\b(?:answer|option|choice|letter)\b.{{0,80}}? (?:is|be) (?:option |letter |choice )?({letter})$"
    return re.search(pattern, piece) or re.search(
        rf"\b(?:choose|select|pick|say|answer|go with) (?:option |letter |choice )?({letter})$", piece
    )


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text))
