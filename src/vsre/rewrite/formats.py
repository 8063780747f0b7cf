"""The ways an answer may be given, read from formats.yaml: an entry there adds a format."""

from __future__ import annotations

from importlib.resources import files

import yaml
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config={"extra": "forbid"})
class AnswerFormat:
    """One answer format: what a "yes" and a "no" look like under it.

    `yes` and `no` are the canonical short answers ("True", "Not"; for a lettered format the letters). `full_yes` and
    `full_no` are patterns of the full answers with the slots {statement} and {negated}. `yes_words` and `no_words` are
    further ways to say the same, in lower case; for a lettered format, the words that may follow the letters.
    """

    name: str
    yes: str
    no: str
    yes_words: tuple[str, ...] = ()
    no_words: tuple[str, ...] = ()
    full_yes: str = "{statement}."
    full_no: str = "{negated}."
    lettered: bool = False

    @property
    def options(self) -> tuple[str, str]:
        """The canonical yes and no."""
        return self.yes, self.no

    def short(self, truth: bool) -> str:
        """The canonical short answer."""
        return self.yes if truth else self.no


def _read_formats() -> dict[str, AnswerFormat]:
    text = files("vsre.rewrite").joinpath("formats.yaml").read_text("utf-8")
    # BaseLoader keeps every scalar a string: other loaders read the keys `yes` and `no` as booleans.
    entries = yaml.load(text, Loader=yaml.BaseLoader)
    return {name: AnswerFormat(name=name, **entry) for name, entry in entries.items()}


FORMATS: dict[str, AnswerFormat] = _read_formats()
"""Every answer format by name."""
