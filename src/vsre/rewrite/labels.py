"""The labels of an answer format, and how a piece of a sentence may give one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from itertools import takewhile
from typing import Any

import yaml

from vsre.rewrite.formats import AnswerFormat


def _read_lexicon() -> dict[str, Any]:
    # BaseLoader keeps every scalar a string: other loaders read "yes" and "no" as booleans.
    return yaml.load(files("vsre.rewrite").joinpath("lexicon.yaml").read_text("utf-8"), Loader=yaml.BaseLoader)


def _pattern(text: str) -> str:
    return text.replace("| ", "|")  # a folded YAML line leaves a space after the bar where it was broken


_LEXICON = _read_lexicon()
REFUSALS = re.compile("|".join(_pattern(r) for r in _LEXICON["refusal"]))
DOUBTS = re.compile(rf"\b(?:{_pattern(_LEXICON['doubt'])})\b")
_OPENER = re.compile(rf"(?:{_pattern(_LEXICON['opener'])})\b ?")
_CLOSER = re.compile(rf" (?:{_pattern(_LEXICON['closer'])})$")
_CONDITIONAL = re.compile(_LEXICON["conditional"])
_FOLLOWERS = frozenset(_LEXICON["followers"].split())
_WITHHELD = re.compile(r"\b(?:if|whether|unless|neither|never|nor|cannot|both|either|wish|which|opposite)\b|^to ")
_ADVERBS = (
    r"(?:(?:simply|clearly|definitely|certainly|likely|probably|most|also|actually|therefore|thus|indeed"
    r"|in fact|a|an) )*"
)
# What comes before a label at the end of a piece; the group is its negation.
_ANSWER_IS = (
    r"(?:answer|response|reply|verdict|conclusion|judge?ment|result|output|choice|decision|option|letter)\b"
    rf".{{0,80}}? (?:is|be|as) {_ADVERBS}(not )?(?:option |letter |choice )?"
)
_SAY = (
    r"(?:say|(?:answer|respond|reply)(?: with)?|conclude|choose|select|pick|go with|vote|type|write|mark|put)"
    r" (?:a |for |option |letter |with )*()"
)
_STATEMENT_IS = rf"(?:is|are|was|(?:seems|appears)(?: to be)?|as) {_ADVERBS}(not (?:an? )?)?"
# What negates a label that comes after it: "I do not think it is true", "no evidence that", "the reverse is true".
_WRONG = "incorrect|wrong|false|inaccurate|untrue"
_DENIAL = re.compile(
    r"\b(?:not|no|never|cannot|nothing|nobody|none|hardly|scarcely|barely|seldom|rarely|unlikely|improbable|impossible"
    r"|doubt(?:s|ed|ful|fully|ing)?|disagree[sd]?|den(?:y|ies|ied|ying)|disput(?:e|es|ed|ing)|refus(?:e|es|ed|ing)"
    r"|hesitat(?:e|es|ed|ing)|hesitant|reluctant|rejects?|contradicts?|disproves?|refutes?|far from|fail(?:s|ed)? to"
    r"|(?<!on )the (?:\w+ )?(?:reverse|opposite|contrary|converse|inverse|negation|other way a?round)"
    r"|(?:must|might|need|had)nt)\b"
    rf"|\b(?:{_WRONG}|mistaken|mistake|error|lie|misleading|too \w+) to\b"
    rf"|\bthat .{{0,80}}\b(?:is|are|was) (?:{_WRONG})\b"
    r"|n[^\w\s]t\b"  # contractions that clean.py leaves
)
# ... but "no doubt it is true" and "it is not wrong to say yes" negate nothing.
_NO_DENIAL = re.compile(
    r"\b(?:no|not|never|cannot|without|beyond)(?: (?:a|any|all|be|in|the|room for|reason to|need to|reasonable"
    r"|slightest|shadow of))* (?:doubt|doubted|deny|denied|denying|dispute|disputed|question|hesitate|hesitation"
    rf"|disagree|matter|only|just|merely|(?:{_WRONG}) to)\b"
)
# A negation ends where the next clause draws a conclusion: "there is no cat so the answer is no".
_CONCLUDES = re.compile(
    r"\b(?:(?:and )?(?:but|so|therefore|thus|hence|consequently|then)"
    r"(?= (?:the|this|it|i|my|we|our|you|your|answer|in|clearly|that is)\b)"
    r"|and (?=(?:the|my) (?:\w+ )?(?:answer|statement|caption|description|claim|sentence)\b|(?:this|that|it) means\b))"
)
_FAULTED = re.compile(  # after a label: "yes is not the answer", "B cannot be right", but not "is not right of it"
    r"(?:which )?(?=(?:is|are|was|would|could|should|can|cannot|does|did|must|seems|appears)\b).*"
    rf"\b(?:(?<!not )(?:{_WRONG})|(?:not|cannot|never) (?:\w+ ){{0,3}}(?:correct|right(?! (?:of|side)\b)|true|accurate"
    r"|answer|option|choice|letter|apply|appropriate|valid|possible|acceptable|what|case|fit|match|work))\b"
)
_IS_RIGHT = re.compile(r"is (?:the )?(?:correct|right|best|true|my answer|answer)\b")
_SAID_OF = re.compile(r"that (?!(?:is|was|are|does|did)\b)")
_QUOTE = r"[\"'“”‘’«»()]*"


def conditional(piece: str) -> bool:
    """Whether a sentence that starts with this piece is hypothetical."""
    return bool(_CONDITIONAL.match(piece))


def denies(lead: str) -> bool:
    """Whether words before a label, or an option, negate it or take it back: "I would not say", "I doubt it is"."""
    return bool(_DENIAL.search(_NO_DENIAL.sub(" ", _CONCLUDES.split(lead)[-1])))


def faulted(behind: str) -> bool:
    """Whether words after a label, or an option, call it wrong: "is not correct", "cannot be the answer"."""
    return bool(_FAULTED.match(behind))


def core(piece: str) -> str:
    """A piece without the words that lead to a label ("the answer is") or follow it ("in this image")."""
    while len(piece) < 500:  # nothing longer is a label with words around it
        shorter = _CLOSER.sub("", _OPENER.sub("", piece, count=1) if _OPENER.match(piece) else piece).strip()
        if not shorter or shorter == piece:
            return piece
        piece = shorter
    return piece


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


def _said(yes: str, no: str) -> dict[str, bool]:
    """Two entries of the lexicon as word -> meaning."""
    return {word: value for key, value in ((yes, True), (no, False)) for word in _words(_LEXICON[key])}


def _words(entry: list[Any]) -> Iterator[str]:
    for word in entry:
        yield from [word] if isinstance(word, str) else word


def _end(before: str, labels: Mapping[str, bool]) -> re.Pattern[str]:
    return re.compile(rf"\b{before}({_any(labels)})(?: (?:to say )?that .*)?$")


_ALONE = _said("yes_alone", "no_alone")
_SENTENCES = _said("yes_sentence", "no_sentence")


class Labels:
    """The yes and no words of one format: the lexicon's and its own. Letters count only under a lettered format, and an
    article is not a letter."""

    def __init__(self, format: AnswerFormat) -> None:
        own = {format.yes.casefold(): True, format.no.casefold(): False}
        meanings = dict.fromkeys(format.yes_words, True) | dict.fromkeys(format.no_words, False)
        self.letters = own if format.lettered else {}
        named = {} if format.lettered else own
        verbal = {w: v for w, v in named.items() if w.isalpha() and w != "not"}  # "there is 1", "it is not"

        self.phrases = _said("yes", "no") | meanings | named  # whole pieces
        self.starts = _said("truth_start", "no_start") | verbal  # before a follower
        self.adjectives = _said("yes_adjectives", "no_adjectives") | verbal  # after "is"
        self.short = {
            "yes": True,
            "no": False,
            "true": True,
            "false": False,
            **meanings,
            **self.letters,
            **named,
        }
        self.short.pop("not", None)

        self._words = {*self.starts, *_LEXICON["yes_start"], *self.short}

        self._ends = [  # "the answer to this is no", "I would say yes", "the caption is not accurate"
            (_end(_ANSWER_IS, self.short), self.short),
            (_end(_SAY, self.short), self.short),
            (_end(_STATEMENT_IS, self.adjectives), self.adjectives),
        ]

        label = rf"\b({_any({*self.short, *self.starts, 'not', 'not true'})})\b"
        self._either = re.compile(  # "yes or no", "true/false", "(yes) or (no)"
            rf"(?:\beither )?{label}[.)]?{_QUOTE}(?:,? ?-?\bor\b-?| ?[/|]) ?"
            rf"{_QUOTE}{label}(?:[.)](?=\s|$))?{_QUOTE}"
        )
        self._lettered: list[re.Pattern[str]] = []  # "A. yes B. no", in either order
        if format.lettered:
            yes, no = (
                rf"\b{letter.casefold()}\)?[.):]? *(?:{_any(words)})\b"
                for letter, words in ((format.yes, format.yes_words), (format.no, format.no_words))
            )
            between = r"\W{1,4}(?:or )?\(?"
            self._lettered = [re.compile(yes + between + no), re.compile(no + between + yes)]

    @staticmethod
    @lru_cache
    def of(format: AnswerFormat) -> Labels:
        return Labels(format)

    def without_options(self, clean: str) -> str:
        """The text without repeated options: those are the question's words, not an answer."""
        clean = self._either.sub(lambda m: " " if self._meaning(m[1]) != self._meaning(m[2]) else m[0], clean)
        for pattern in self._lettered:
            clean = pattern.sub(" ", clean)
        return clean

    def _meaning(self, word: str) -> bool | None:
        return self.short.get(word, self.phrases.get(word))

    def alone(self, piece: str, *, whole: bool) -> bool | None:
        """What a piece says if it is a whole sentence or, with `whole`, the whole answer."""
        return _ALONE.get(piece) if whole and piece in _ALONE else _SENTENCES.get(piece)

    def values(self, piece: str, echo: Callable[[str], bool | None]) -> set[bool]:
        """The labels a piece gives: none, one or both. `echo` reads a statement after a letter."""
        bare = core(piece)
        for words in (piece, bare):
            if words in self.phrases:
                return {self.phrases[words]}
            if words in self.letters:
                return {self.letters[words]}
        if set(bare.split()) <= self.short.keys() | {"and", "both"}:  # "yes yes", "both a and b"
            return {self.short[w] for w in bare.split() if w in self.short}
        if _WITHHELD.search(piece):
            return set()
        if len([*takewhile(self._words.__contains__, bare.split())]) > 50:
            return set()  # a model that is stuck: below, each label would be one more call
        first, _, rest = bare.partition(" ")
        if first in self.letters:
            if _IS_RIGHT.match(rest):
                return {self.letters[first]}
            if faulted(rest):
                return set()
            behind = self.values(rest, echo) or {v for v in [echo(rest)] if v is not None}
            if behind:
                return {self.letters[first]} | behind
        if first in self.short and faulted(rest):
            return set()
        if first in self.adjectives and _SAID_OF.match(rest) and denies(rest):  # "true that it is not left of it"
            return set()
        if first in _LEXICON["yes_start"]:
            return {True} | self.values(rest, echo)
        if first in self.starts and rest.split(" ", 1)[0] in _FOLLOWERS | self.starts.keys():
            return {self.starts[first]} | self.values(rest, echo)
        if first == "not" and rest in self.adjectives:
            return {not self.adjectives[rest]}
        for pattern, meaning in self._ends:
            if found := pattern.search(piece):
                return self._ending(piece, found, meaning)
        return set()

    def _ending(self, piece: str, found: re.Match[str], meaning: Mapping[str, bool]) -> set[bool]:
        """The label that `found` matches at the end of a piece, unless other words of the piece negate it."""
        lead = piece[: found.start(2)]
        if found[1]:
            lead = lead.removesuffix(found[1])
        value = meaning[found[2]] != bool(found[1])
        judges = meaning is self.adjectives
        if denies(lead):
            return set()
        if judges and piece[: found.start()].rstrip().rpartition(" ")[2] in self.short:
            return set()  # "option B is wrong", "saying no is correct": the judgement is on a label
        behind = piece[found.end(2) :].strip()
        if (value or judges) and (denies(behind) or False in self.values(behind, lambda _: None)):
            return set()  # "it is true that the cat is not left of the dog"
        return {value}
