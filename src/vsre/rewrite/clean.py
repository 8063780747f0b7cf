"""A model's raw answer reduced to plain words: decoration removed, cut into sentences and their pieces."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from vsre.rewrite.labels import denies

LONGEST = 20_000
"""Maximum number of characters read as an answer; of a longer text only the end is read, for a stated conclusion."""

# A base model goes on after its answer and writes the next turn too.
_END_OF_TURN = re.compile(
    r"</s>|<\|(?:im_end|endoftext|eot_id|end|eos)\|>|<end_of_turn>|<eos>|<\|im_start\|>|\[INST\]"
    r"|\b(?:USER|Human|User) ?:|\n[ \t]*(?:Question|Q|### ?\w{1,20}) ?:"
)
_REWRITES = [
    (re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"), ""),
    (re.compile(r"~~[^~]*~~"), " "),  # struck-through text is taken back
    (re.compile(r"\\boxed\s*\{"), "\nfinal answer: "),
    (re.compile(r"<answer>", re.IGNORECASE), "\nfinal answer: "),
    (re.compile(r"(?m)^[ \t]*####(?!#)"), "\nfinal answer: "),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathsf|rm|bf)\b|\\[()\[\]]"), " "),
    (re.compile(r"<[^<>\n]{1,40}>"), " | "),  # tags and special tokens
    (re.compile(r"[\[(]\s*-?[\d.]+(?:\s*,\s*-?[\d.]+)+\s*[\])]"), " "),  # boxes: their decimal points end no sentence
    (re.compile(r"\.(?=\d)"), ""),
    (re.compile(r"[*`#]|(?<![^\W_])_+|_+(?![^\W_])"), ""),
    (re.compile(r"['’‘‛`´ʼ]"), "'"),
]
_CONTRACTIONS = [
    (re.compile(r"\bn/a\b"), "not applicable"),
    (re.compile(r"\b(?:can'?t|can not)\b"), "cannot"),
    (re.compile(r"\bwon'?t\b"), "will not"),
    (re.compile(r"\bain'?t\b"), "is not"),
    (re.compile(r"\b(is|are|does|do|did|was|were|would|could|should|has|have)n'?t\b"), r"\1 not"),
    (re.compile(r"\b(it|that|there|he|she|this)'s\b"), r"\1 is"),
    (re.compile(r"\bi'd\b"), "i would"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\bthey're\b"), "they are"),
]
_INVISIBLE = {"Cf", "Cs", "Co"}

_SENTENCE = re.compile(r"([^.!?。！？؟।…\n]*)([.!?。！？؟।…\n]*)")
_PIECE = re.compile(
    r"[,;:()\[\]{}\"“”„‟«»‹›「」『』<>|/\\=&+~→—–、،؛•·¿¡$]|\b(?:because|since)\b|(?:^|\s)-+(?:\s|$)|(?<!\w)'|'(?!\w)"
)


_CONCLUSION = re.compile(
    r"\bfinal (?:answer|verdict|conclusion)\b[^\n.:]{0,40}?(?::|\bis\b)|"
    r"\b(?:so|thus|therefore|hence|consequently|overall|in conclusion|to conclude)\b,? (?:\w+ ){0,4}?"
    r"(?:answer|conclusion|verdict)\b[^\n.:]{0,60}?(?::|\bis\b|\bwould be\b)"
)
_LAST_LINE = re.compile(r"(?m)^[ \t]*(?:the |my )?answer ?(?::|is\b)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """The pieces of one sentence (the text between punctuation marks), and whether it is a question."""

    pieces: tuple[str, ...]
    asks: bool


def answer_part(text: str) -> str | None:
    """The text without the model's reasoning block and without turns it went on to write; None if the reasoning never
    ended."""
    if "</think>" in text:
        text = text.rsplit("</think>", 1)[1]
    elif "<think>" in text:
        return None
    text = text.strip()
    end = _END_OF_TURN.search(text, 1)
    return text[: end.start()] if end and any(c.isalnum() for c in text[: end.start()]) else text


def _visible(character: str) -> str:
    """Empty for an invisible character; a pictograph becomes a piece of its own."""
    category = unicodedata.category(character)
    if category == "So":
        return f", {character}, "
    return "" if category in _INVISIBLE or character == "\ufe0f" else character


def plain(text: str) -> str:
    """Lower case, letters in standard form, contractions written out, no markdown, LaTeX or tags."""
    if not text.isascii():
        text = "".join(_visible(c) for c in unicodedata.normalize("NFKC", text))
    for pattern, instead in _REWRITES:
        text = pattern.sub(instead, text)
    text = text.casefold()
    for pattern, instead in _CONTRACTIONS:
        text = pattern.sub(instead, text)
    return text.strip()


def sentences(text: str) -> list[Sentence]:
    """The sentences of a plain text that say anything."""
    found = []
    for body, end in _SENTENCE.findall(text):
        pieces = tuple(words for piece in _PIECE.split(body) if (words := " ".join(piece.split())))
        if pieces:
            found.append(Sentence(pieces, "?" in end or "؟" in end or "？" in end))
    return found


def stated_conclusion(text: str) -> str | None:
    """What follows the last "final answer:", "so the answer is" or box in a plain text; None if there is none.

    One that its own sentence denies, "I do not say the final answer is", does not count.
    """
    markers = [m for m in _CONCLUSION.finditer(text) if not denies(re.split(r"[.!?\n]", text[: m.start()])[-1])]
    last_line = [*_LAST_LINE.finditer(text)]
    if len(last_line) == 1:  # several "Answer:" lines are several answers, not one conclusion
        markers += last_line
    return text[max(m.end() for m in markers) :] if markers else None
