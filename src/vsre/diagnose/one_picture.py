"""One question about one picture, asked in all wordings and with every probe: does the answer hold?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """What was asked and said. `reading`: True for yes, False for no, None where neither can be read from `text`."""

    prompt: str
    text: str
    reading: bool | None
    p_yes: float | None
    template: str = ""


@dataclass(frozen=True)
class Probed:
    """A probe's answers (one a probe template), and what a consistent answerer would say: None where that is open."""

    name: str
    about: str
    answers: tuple[Answer, ...]
    expected: bool | None

    @property
    def reading(self) -> bool | None:
        """What the readable answers agree on; None where they do not."""
        return agreed([a.reading for a in self.answers])


@dataclass(frozen=True)
class OneQuestion:
    """A question's answers. `statement` is None for a question that is not about a relation: it is asked as it stands,
    and there is nothing to probe."""

    question: str
    statement: algebra.Statement | None
    answers: tuple[Answer, ...]
    probes: tuple[Probed, ...] = ()

    @property
    def says(self) -> bool | None:
        """The majority of the readable answers; None at a tie or where none is readable."""
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
    """Ask about a picture (an encoded file). Raises VsreError for what is no picture and where the engine fails.

    What a probe should answer follows from the majority over the wordings: the model is held to its own word.
    """
    load_image(image)
    said = parse_statement(question)
    if said is None:
        yes_no = Prompt(question, ("Yes", "No"), "full")
        (reply,) = _answers(engine, image, [yes_no])
        return OneQuestion(question, None, (Answer(question, reply.text or "", None, reply.p_yes),))
    templates = [t for name in packs for t in load_pack(name).templates if not t.needs_boxes]
    answers = _ask(engine, image, said, templates)
    whole = OneQuestion(question, said, tuple(answers))
    return OneQuestion(question, said, whole.answers, tuple(_probe(engine, image, said, whole.says)))


def _probe(engine: Engine, image: bytes, said: algebra.Statement, label: bool | None) -> list[Probed]:
    known = True if label is None else label
    shown: list[tuple[str, algebra.Statement, bool | None, bool, bytes]] = [
        (BLANK, said, None, False, blank_picture(image))
    ]
    for name, statement, truth, denied in statement_probes(said, known):
        if name != BASE:
            shown.append((name, statement, truth, denied, image))
    mirrored = mirror_picture(image)
    shown.append((MIRROR, *algebra.in_mirror(said, known), False, mirrored))
    if RELATIONS[said.relation].mirror != said.relation:
        shown.append((MIRROR_SWAP, *algebra.mirrored(said, known), False, mirrored))
    found, templates = [], probe_templates()
    for name, statement, truth, denied, picture in shown:
        some = [t for t in templates if not denied or "{caption}" in t.text]
        answers = tuple(_ask(engine, picture, statement, some, denied=denied))
        about = (grammar.negated if denied else grammar.caption)(*statement)
        found.append(Probed(name, about, answers, None if label is None else truth))
    return found


def _ask(
    engine: Engine, image: bytes, said: algebra.Statement, templates: Sequence[Template], *, denied: bool = False
) -> list[Answer]:
    sentences = [grammar.caption(*said), grammar.negated(*said)]
    row = Triplet("", "", *said, caption=sentences[0], label=True, split="", origin="asked")
    values = slot_values(row)
    if denied:
        sentences.reverse()
        values["caption"] = sentences[0]
    prompts = [Prompt(t.text.format_map(values), t.format.options, t.style) for t in templates]
    answers = []
    for template, prompt, reply in zip(templates, prompts, _answers(engine, image, prompts), strict=True):
        text = (reply.text or "").strip()
        told = read_answer(text, template.format, statement=sentences[0], negated=sentences[1]).value
        answers.append(Answer(prompt.text, text, told, reply.p_yes, template.id))
    return answers


def _answers(engine: Engine, image: bytes, prompts: Sequence[Prompt]) -> list[Reply]:
    (replies,) = engine.answer([(image, prompts)])
    for reply in replies:
        if reply.error is not None:
            raise VsreError(f"{engine.name} gave no answer: {reply.error}")
    return replies
