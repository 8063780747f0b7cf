"""What a recipe says about its tests: how models are diagnosed, and on which further sets of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vsre.errors import VsreError
from vsre.rewrite import TemplatePack, load_pack, some_templates
from vsre.sources.scenes import check_objects
from vsre.train.stages import Strict


def _drawable(objects: tuple[int, int]) -> tuple[int, int]:
    try:
        return check_objects(objects)
    except VsreError as error:
        raise ValueError(str(error)) from error


ObjectRange = Annotated[tuple[int, int], AfterValidator(_drawable)]
"""The fewest and the most things in a scene."""

WorldSplit = Literal["caption-disjoint", "concept-disjoint"]
Style = Literal["twemoji", "openmoji"]


class ObjectCounts(Strict):
    """How many things scenes show, in training (and dev) and in the test. Default: 2 to 5, mostly 3 or 4."""

    train: ObjectRange | None = None
    test: ObjectRange | None = None

    def by_split(self) -> dict[str, tuple[int, int]]:
        """Return the ranges that were given, by the name of the split."""
        asked = {"train": self.train, "dev": self.train, "test": self.test}
        return {split: objects for split, objects in asked.items() if objects is not None}


class AlsoSet(Strict):
    """A further set of test scenes, drawn like the recipe's own test split except for what is set here."""

    units: int | None = Field(default=None, ge=1, description="pairs of scenes; default: as in the recipe's own test")
    style: Style | None = Field(default=None, description="who drew the things; the scenes stay the same")
    objects: ObjectRange | None = Field(default=None, description="[least, most] things in a scene")
    split: WorldSplit | None = Field(default=None, description="which world's test split")
    like: Literal["test", "train"] = Field(
        default="test", description="train: with the classes and captions of training, in scenes never shown there"
    )
    packs: list[str] | None = Field(default=None, min_length=1, description="default: those of the recipe")


class DiagnoseSpec(Strict):
    packs: list[str] = ["test-s", "pool", "held-out"]
    templates: int | None = Field(
        default=None, ge=1, description="use only so many of each pack's templates, spread over answer formats"
    )
    limit: int | None = Field(default=None, ge=1, description="how many statements, up to the end of a picture")
    per_image: int | None = Field(
        default=None, ge=1, description="at most so many statements per picture: equally many on more pictures say more"
    )
    general: int | None = Field(
        default=None, ge=1, description="scenes on which non-spatial questions, names and captions are asked for too"
    )
    blank: bool = Field(default=False, description="ask test-s again with a grey frame instead of each picture")
    probes: int | None = Field(
        default=None, ge=1, description="how many triplets are asked again with their picture or words changed"
    )
    also: dict[str, AlsoSet] = Field(default={}, description="further test sets of scenes, by name")

    def asked(self, packs: Sequence[str] | None = None) -> list[str | TemplatePack]:
        """Return the packs, or others, each with as many templates as wanted: the same for all models and seeds."""
        names = self.packs if packs is None else packs
        if self.templates is None:
            return [*names]
        loaded = [load_pack(name) for name in names]
        return [some_templates(pack, min(self.templates, len(pack.templates)), 0) for pack in loaded]
