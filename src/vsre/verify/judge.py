"""A vision-language model as the last to be asked, about statements that boxes leave undecided.

It is asked the caption as a question and as a statement, and the denied caption, each about the picture alone. Its
verdict counts only if it says the same throughout and denies the denial: models that say yes to everything are common,
and one that does so gives no verdict here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsre.errors import VsreError
from vsre.model.checkpoints import resolve_checkpoint
from vsre.relations.grammar import caption, negated
from vsre.relations.things import Verdict
from vsre.triplets import Triplet
from vsre.verify.config import Judge
from vsre.verify.loading import fingerprint

if TYPE_CHECKING:
    from vsre.diagnose.engines import Engine
    from vsre.diagnose.replies import Reply
    from vsre.rewrite import Template


@dataclass(frozen=True)
class Ruling:
    """The judge's ruling on a statement: its verdict, UNDECIDED if its answers contradict each other, and all that was
    asked and answered."""

    verdict: Verdict
    answers: tuple[dict[str, Any], ...]


@dataclass
class VlmJudge:
    """Asks an engine, loaded when it is first needed, or the `engine` given."""

    spec: Judge
    device: str = "auto"
    engine: Engine | None = field(default=None, repr=False)
    _opened: bool = field(default=False, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes load the model themselves."""
        return self.__dict__ | {"engine": None, "_opened": False}

    def release(self) -> None:
        """Drop the engine if it was loaded here; the next question loads it again."""
        if self._opened:
            self.engine, self._opened = None, False

    def identity(self) -> dict[str, Any]:
        """What identifies the model, as JSON: the fingerprint of a local folder's files, else its name and revision."""
        local = self.spec.server is None and Path(resolve_checkpoint(self.spec.model)).is_dir()
        if local:
            return {"files": fingerprint(resolve_checkpoint(self.spec.model))}
        return {"model": self.spec.model, "revision": self.spec.revision or "main"}

    def about(self) -> dict[str, Any]:
        revision = getattr(self.engine, "revision", None) or self.spec.revision
        return {"model": self.spec.model, "revision": revision, "server": self.spec.server is not None}

    def ask(self, triplets: Sequence[Triplet]) -> list[Ruling]:
        """One ruling per triplet; each triplet carries its picture. Raises VsreError if the engine answers nothing at
        all."""
        if self.engine is None:
            self.engine, self._opened = self._open(), True
        asked = [self._questions(triplet) for triplet in triplets]
        replies = self.engine.answer(
            [(triplet.image, [q.prompt for q in mine]) for triplet, mine in zip(triplets, asked, strict=True)]
        )
        errors = [reply.error for given in replies for reply in given]
        if errors and all(errors):
            raise VsreError(f"{self.engine.name}, the judge, gave no answer at all: {errors[0]}")
        return [_ruling(mine, given) for mine, given in zip(asked, replies, strict=True)]

    def _questions(self, triplet: Triplet) -> list[_Question]:
        from vsre.diagnose.probes import probe_templates
        from vsre.rewrite import load_pack

        own = probe_templates()
        more = [t for name in self.spec.packs for t in load_pack(name).templates if not t.needs_boxes]
        said = [_Question.of(triplet, template, denied=False) for template in (*own, *more)]
        return said + [_Question.of(triplet, template, denied=True) for template in own if "{caption}" in template.text]

    def _open(self) -> Engine:
        spec = self.spec
        if spec.server is not None:
            from vsre.diagnose.server import ServerEngine

            return ServerEngine(spec.server, spec.model, key_env=spec.key_env, concurrency=spec.concurrency)
        from vsre.diagnose.engines import TransformersEngine

        return TransformersEngine(
            spec.model, device=self.device, revision=spec.revision, quantization=spec.quantization
        )


@dataclass(frozen=True)
class _Question:
    """A statement, or its denial, worded by one template."""

    prompt: Any
    template: Template
    sentence: str
    contrary: str
    denied: bool

    @classmethod
    def of(cls, triplet: Triplet, template: Template, *, denied: bool) -> _Question:
        from vsre.diagnose.prompts import Prompt
        from vsre.rewrite.asking import slot_values

        said = (triplet.subject, triplet.relation, triplet.object)
        sentence, contrary = caption(*said), negated(*said)
        if denied:
            sentence, contrary = contrary, sentence
        values = slot_values(triplet) | {"caption": sentence}
        prompt = Prompt(template.text.format_map(values), template.format.options, template.style)
        return cls(prompt, template, sentence, contrary, denied)

    def says(self, reply: Reply) -> bool | None:
        """Whether the answer affirms the statement (not its denial); None if it cannot be read."""
        from vsre.rewrite.reading import read_answer

        if reply.error is not None:
            return None
        text = (reply.text or "").strip()
        value = read_answer(text, self.template.format, statement=self.sentence, negated=self.contrary).value
        return None if value is None else value is not self.denied


def _ruling(questions: Sequence[_Question], replies: Sequence[Reply]) -> Ruling:
    said = [question.says(reply) for question, reply in zip(questions, replies, strict=True)]
    verdict = Verdict.PASS if all(s is True for s in said) else Verdict.FAIL if all(s is False for s in said) else None
    answers = tuple(
        {
            "prompt": question.prompt.text,
            "answer": reply.text if reply.error is None else f"error: {reply.error}",
            "holds": told,
            "p_yes": None if reply.p_yes is None else round(reply.p_yes, 4),
        }
        for question, reply, told in zip(questions, replies, said, strict=True)
    )
    return Ruling(verdict or Verdict.UNDECIDED, answers)
