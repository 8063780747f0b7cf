"""One question about one picture, asked in all wordings and with every probe: does the answer hold?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from statistics import fmean
from typing import Any

from vsre.diagnose.blank import blank_picture
from vsre.diagnose.engines import Engine
from vsre.diagnose.probes import BASE, BLANK, MIRROR, MIRROR_SWAP, mirror_picture, probe_templates, statement_probes
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply
from vsre.errors import VsreError
from vsre.relations import algebra, grammar
from vsre.relations.ontology import RELATIONS
from vsre.relations.parsing import parse_statement
from vsre.rewrite import Template, load_pack
from vsre.rewrite.asking import slot_values
from vsre.rewrite.reading import read_answer
from vsre.sources.images import load_image
from vsre.triplets import Triplet


@dataclass(frozen=True)
class Answer:
    """What was asked and said. `reading`: True for yes, False for no, None if neither can be read from `text`."""

    prompt: str
    text: str
    reading: bool | None
    p_yes: float | None
    template: str = ""


@dataclass(frozen=True)
class Probed:
    """A probe's answers (one per probe template), and what a consistent model would say: None if that is open."""

    name: str
    about: str
    answers: tuple[Answer, ...]
    expected: bool | None

    @property
    def reading(self) -> bool | None:
        """What the readable answers agree on; None if they do not."""
        return agreed([a.reading for a in self.answers])


@dataclass(frozen=True)
class OneQuestion:
    """A question's answers. `statement` is None for a question that is not about a relation: it is asked as is, and
    there is nothing to probe."""

    question: str
    statement: algebra.Statement | None
    answers: tuple[Answer, ...]
    probes: tuple[Probed, ...] = ()

    @property
    def says(self) -> bool | None:
        """The majority of the readable answers; None for a tie or if none is readable."""
        told = [a.reading for a in self.answers if a.reading is not None]
        return None if 2 * sum(told) == len(told) else 2 * sum(told) > len(told)

    @property
    def agreement(self) -> float | None:
        """The share of all wordings that say what the majority says."""
        return None if self.says is None else fmean(a.reading is self.says for a in self.answers)

    @property
    def p_yes(self) -> float | None:
        """The mean over wordings."""
        known = [a.p_yes for a in self.answers if a.p_yes is not None]
        return fmean(known) if known else None

    def to_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "statement": None if self.statement is None else self.statement._asdict(),
            "says": self.says,
            "agreement": self.agreement,
            "p_yes": self.p_yes,
            "answers": [vars(a) for a in self.answers],
            "probes": [
                {"name": p.name, "about": p.about, "expected": p.expected, "answers": [vars(a) for a in p.answers]}
                for p in self.probes
            ],
        }


def agreed(readings: Sequence[bool | None]) -> bool | None:
    told = {r for r in readings if r is not None}
    return told.pop() if len(told) == 1 else None


def ask_picture(engine: Engine, image: bytes, question: str, *, packs: Sequence[str] = ("pool",)) -> OneQuestion:
    """Ask about a picture (an encoded file). Raises VsreError if it is not a picture or the engine fails.

    What a probe should answer follows from the majority over the wordings: the model is held to its own word.
    """
    load_image(image)
    said = parse_statement(question)
    if said is None:
        ((reply,),) = _replies(engine, [(image, [Prompt(question, ("Yes", "No"), "full")])])
        return OneQuestion(question, None, (Answer(question, reply.text or "", None, reply.p_yes),))
    wordings = _Asked("", said, False, [t for name in packs for t in load_pack(name).templates if not t.needs_boxes])
    # What is asked depends on no label, so each picture is asked once; what would be consistent does, below.
    shown = [
        (blank_picture(image), [_Asked(BLANK, said, False, probe_templates())]),
        (image, [wordings, *_probes_of_the_picture(said)]),
        (mirror_picture(image), _probes_of_the_mirror(said)),
    ]
    replies = _replies(engine, [(picture, [p for one in asked for p in one.prompts()]) for picture, asked in shown])
    told: dict[str, tuple[Answer, ...]] = {}
    statements: dict[str, _Asked] = {}
    for (_, asked), row in zip(shown, replies, strict=True):
        rest = iter(row)
        for one in asked:
            told[one.probe], statements[one.probe] = one.read(islice(rest, len(one.templates))), one
    whole = OneQuestion(question, said, told.pop(""))
    wanted = _consistent(said, whole.says)
    probes = tuple(Probed(name, statements[name].sentence, answers, wanted.get(name)) for name, answers in told.items())
    return OneQuestion(question, said, whole.answers, probes)


@dataclass(frozen=True)
class _Asked:
    """A statement (or its denial) asked about a picture with some templates; `probe` is "" for the question itself."""

    probe: str
    statement: algebra.Statement
    denied: bool
    templates: Sequence[Template]

    @property
    def sentence(self) -> str:
        return (grammar.negated if self.denied else grammar.caption)(*self.statement)

    def prompts(self) -> list[Prompt]:
        row = Triplet("", "", *self.statement, caption=self.sentence, label=True, split="", origin="asked")
        values = slot_values(row) | ({"caption": self.sentence} if self.denied else {})
        return [Prompt(t.text.format_map(values), t.format.options, t.style) for t in self.templates]

    def read(self, replies: Iterable[Reply]) -> tuple[Answer, ...]:
        contrary = (grammar.caption if self.denied else grammar.negated)(*self.statement)
        answers = []
        for template, prompt, reply in zip(self.templates, self.prompts(), replies, strict=True):
            text = (reply.text or "").strip()
            told = read_answer(text, template.format, statement=self.sentence, negated=contrary).value
            answers.append(Answer(prompt.text, text, told, reply.p_yes, template.id))
        return tuple(answers)


def _probes_of_the_picture(said: algebra.Statement) -> list[_Asked]:
    templates = probe_templates()
    return [
        _Asked(name, statement, denied, [t for t in templates if not denied or "{caption}" in t.text])
        for name, statement, _, denied in statement_probes(said)
        if name != BASE
    ]


def _probes_of_the_mirror(said: algebra.Statement) -> list[_Asked]:
    asked = {MIRROR: said}
    if RELATIONS[said.relation].mirror != said.relation:
        asked[MIRROR_SWAP] = algebra.mirrored(said, True).statement
    return [_Asked(name, statement, False, probe_templates()) for name, statement in asked.items()]


def _consistent(said: algebra.Statement, label: bool | None) -> dict[str, bool | None]:
    """What each probe's answer must be if the statement is given this label."""
    if label is None:
        return {}
    wanted = {name: truth for name, _, truth, _ in statement_probes(said, label)}
    return wanted | {MIRROR: algebra.in_mirror(said, label).label, MIRROR_SWAP: label}


def _replies(engine: Engine, asked: Sequence[tuple[bytes, Sequence[Prompt]]]) -> list[list[Reply]]:
    replies = engine.answer(asked)
    for reply in chain(*replies):
        if reply.error is not None:
            raise VsreError(f"{engine.name} gave no answer: {reply.error}")
    return replies
