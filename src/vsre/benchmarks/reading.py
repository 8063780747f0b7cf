"""Which option an answer in words names: vsre.rewrite's reader, and what multiple-choice questions need beyond it.

`read_choice` reads letters ("(B)", "The answer is b", "**B**", "Option C: on top"), the text of an option, refusals and
contradictions. If it finds no option named, two more things are tried here:

- options that are yes and no are read like any yes/no answer ("It is not.", "True");
- an answer of one short sentence without a denial, a doubt or a comparison, that contains exactly one option's text as
  whole words, names that option ("It is on the left." for left, right). Of options that contain one another ("left",
  "top left") the longest counts.

Nothing is guessed: whatever remains is unanswered.
"""

from __future__ import annotations

import re

from vsre.benchmarks.item import LETTERS, Item
from vsre.rewrite import FORMATS, read_answer, read_choice
from vsre.rewrite.clean import LONGEST, answer_part, plain, sentences
from vsre.rewrite.labels import DOUBTS, conditional, denies

_NAMES_NONE = "names no option"
_WORDS = 30
_DENIES = re.compile(
    r"\b(?:not|no|never|neither|nor|none|nothing|cannot|without|than|instead|except|unlike|but|or|if|whether|both|either"
    r"|same|opposite|unless|hardly|rather)\b"
)
_YES_NO = {"yes": True, "no": False}


def read_option(text: str, item: Item) -> int | None:
    """The index of the option that an answer names, None for unanswered; never raises, whatever the text."""
    if item.labels:
        return _yes_no(text, item.labels)
    choice = read_choice(text, dict(zip(LETTERS, item.options, strict=False)))
    if choice.letter is not None:
        return LETTERS.index(choice.letter)
    if choice.reason != _NAMES_NONE:
        return None
    if {option.strip().casefold() for option in item.options} == set(_YES_NO):
        return _yes_no(text, item.options)
    return _said(text, item.options)


def _yes_no(text: str, options: tuple[str, ...]) -> int | None:
    value = read_answer(text, FORMATS["yes-no"]).value
    if value is None:
        return None
    return [_YES_NO.get(option.strip().casefold()) for option in options].index(value)


def _said(text: str, options: tuple[str, ...]) -> int | None:
    """The only option whose text is contained in an answer of one short sentence."""
    answer = answer_part(text)
    if answer is None or len(answer) > LONGEST:
        return None
    found = [s for s in sentences(plain(answer)) if not s.asks and not conditional(s.pieces[0])]
    if len(found) != 1:
        return None
    sentence = _words(" ".join(found[0].pieces))
    if len(sentence.split()) > _WORDS or _DENIES.search(sentence) or denies(sentence) or DOUBTS.search(sentence):
        return None
    spans = [
        (match.start(), match.end(), index)
        for index, option in enumerate(options)
        if (said := _words(plain(option))) and len(said) > 1
        for match in re.finditer(rf"(?<!\S){re.escape(said)}(?!\S)", sentence)
    ]
    longest = {
        index
        for start, end, index in spans
        if not any(s <= start and end <= e and e - s > end - start for s, e, _ in spans)
    }
    return longest.pop() if len(longest) == 1 else None


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text))
