"""What a diffusion model is asked for, built from a triplet.

| setting | label | prompt, with the defaults |
| --- | --- | --- |
| t2i | drawn true | a photo of a cat left of a dog |
| t2i | drawn false | a photo of a cat right of a dog: a relation that excludes the caption's |
| i2i | true | a photo of a cat left of a dog |
| i2i | false | a photo of a cat and a dog: the layout is the photo's; the caption would pull it towards being true |
| inpaint | either | a photo of a fox: the mask says where it goes (`inpaint: scene` says the relation too) |

"A photo of a X REL a Y" is GenEval's wording (arXiv 2310.11513). `form: caption` uses VSR's own sentence instead.
`suffix` is appended unchanged, for a style; the negative prompt is one fixed string for all, by default none.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from vsre.relations.grammar import caption
from vsre.relations.ontology import RELATIONS

_PLURAL = ("scissors", "skis")
_UNCOUNTABLE = ("broccoli",)
_PARTICIPLES = {"contains": "containing {}", "consists of": "consisting of {}", "has as a part": "with {} as a part"}


class PromptSpec(BaseModel):
    """How prompts are worded; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["phrase", "caption"] = "phrase"
    prefix: str = "a photo of "
    suffix: str = ""
    negative: str = ""
    inpaint: Literal["subject", "scene"] = "subject"

    def relation(self, subject: str, relation: str, object: str) -> str:
        """The prompt for two things in the relation."""
        if self.form == "caption":
            return caption(subject, relation, object) + self.suffix
        return self.prefix + phrase(subject, relation, object) + self.suffix

    def both(self, subject: str, object: str) -> str:
        """The prompt for two things, however they lie."""
        return f"{self.prefix}{noun(subject)} and {noun(object)}{self.suffix}"

    def one(self, name: str) -> str:
        return f"{self.prefix}{noun(name)}{self.suffix}"


def noun(name: str) -> str:
    """ "a cat", "an umbrella", "a pair of scissors", "broccoli"."""
    if name in _UNCOUNTABLE:
        return name
    if name in _PLURAL:
        return f"a pair of {name}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def phrase(subject: str, relation: str, object: str) -> str:
    """ "a cat left of a dog", "a bowl containing an apple"."""
    if relation in _PARTICIPLES:
        return f"{noun(subject)} {_PARTICIPLES[relation].format(noun(object))}"
    return f"{noun(subject)} {relation} {noun(object)}"


assert set(_PARTICIPLES) == {name for name, relation in RELATIONS.items() if relation.verb}
