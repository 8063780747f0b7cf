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

    `options` are in the order in which they are shown; `answer` is the index of the right one, None if the benchmark
    withholds it (test splits). `prompt` is what a model that generates is asked, `bare` what comes before an option
    whose likelihood is wanted. Items of one `group` are drawn, limited and scored together (both questions of a
    picture, all turns of a question). `labels` are the options' names: letters, or yes and no. `says` is the shortest
    form of each option, such as a preposition: a constant guesser's vocabulary. `extra` is whatever else a benchmark's
    score needs.
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
        """What names each option in an answer: `labels`, or else letters."""
        return self.labels or tuple(LETTERS[: len(self.options)])

    @property
    def statements(self) -> tuple[str, ...]:
        return self.says or tuple(option.strip().casefold() for option in self.options)

    def parts(self) -> tuple[object, ...]:
        """Everything that decides what is asked and how it counts."""
        shown = (self.key, self.picture.id, self.options, self.answer, self.prompt, self.bare, self.group)
        return (*shown, self.category, self.names, self.statements, tuple(sorted(self.extra.items())))


def lettered(question: str, options: Sequence[str], *, hint: str = "") -> str:
    """A prompt with a letter before each option, one per line, and the request for the letter."""
    lines = [hint] if hint else []
    lines += [question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)), DIRECTLY]
    return "\n".join(lines)


def fingerprint(items: Iterable[Item]) -> str:
    """A fingerprint, equal for the same questions about the same pictures, wherever their files are."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item.parts()).encode("utf-8", "backslashreplace"))
    return "sha256:" + digest.hexdigest()[:24]
