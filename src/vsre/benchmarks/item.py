"""One question of a benchmark, whatever the benchmark."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vsre.benchmarks.pictures import Picture

LETTERS = string.ascii_uppercase
DIRECTLY = "Answer with the option's letter from the given choices directly."
"""The sentence that most evaluations with lettered options end a prompt with."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question about one picture with its options.

    `options` stand in the order in which they are shown; `answer` is the index of the right one, None where the
    benchmark keeps it back (test splits). `prompt` is what a model that generates is asked, `bare` what stands before
    an option whose likelihood is wanted. Items of one `group` are drawn, limited and scored together (both questions
    of a picture, all turns of a question). `labels` are how an option is named: letters, or yes and no. `says` is what
    each option says at its shortest, such as a preposition: a constant guesser's vocabulary. `extra` is whatever else
    a benchmark's score needs.
    """

    key: str
    picture: Picture
    options: tuple[str, ...]
    answer: int | None
    prompt: str
    bare: str
    group: str
    category: str
    labels: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What stands for each option in an answer: a letter, or what `labels` has."""
        return self.labels or tuple(LETTERS[: len(self.options)])

    @property
    def statements(self) -> tuple[str, ...]:
        return self.says or tuple(option.strip().casefold() for option in self.options)

    def parts(self) -> tuple[object, ...]:
        """Everything that decides what is asked and how it counts."""
        shown = (self.key, self.picture.id, self.options, self.answer, self.prompt, self.bare, self.group)
        return (*shown, self.category, self.names, self.statements, tuple(sorted(self.extra.items())))


def lettered(question: str, options: Sequence[str], *, hint: str = "") -> str:
    """A prompt with a letter before each option, one a line, and the request for the letter."""
    lines = [hint] if hint else []
    lines += [question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)), DIRECTLY]
    return "\n".join(lines)


def fingerprint(items: Iterable[Item]) -> str:
    """The same for the same questions about the same pictures, wherever their files lie."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item.parts()).encode("utf-8", "backslashreplace"))
    return "sha256:" + digest.hexdigest()[:24]
