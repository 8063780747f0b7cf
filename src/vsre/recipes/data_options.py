"""Which triplets a question source asks about, if not simply the train split, and through how many templates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from vsre.recipes.near import nearest
from vsre.relations.ontology import RELATIONS
from vsre.sources.derive import Kind
from vsre.train.stages import Strict

DRAWN, SUBSET, DERIVED = "drawn", "subset", "derived"
"""The subfolders of OUT/data/NAME that hold the triplets after each step."""


def _words(names: Any) -> Any:
    """Refuse two relations that YAML reads as booleans, which no message about strings would explain."""
    for name, truth in {"on": True, "off": False}.items():
        if isinstance(names, list) and any(given is truth for given in names):
            raise ValueError(f'write "{name}" in quotes: without them YAML takes it for {str(truth).lower()}')
    return names


def _known(names: list[str]) -> list[str]:
    if unknown := [f"no relation {name!r}. {nearest(name, RELATIONS)}" for name in names if name not in RELATIONS]:
        raise ValueError(" ".join(unknown))
    return names


RelationNames = Annotated[list[str], BeforeValidator(_words), AfterValidator(_known)]
"""Relations of the ontology, by name."""


class OwnScenes(Strict):
    """Scenes drawn for a data set with a seed of their own: none of them is a scene of the recipe's world."""

    units: int = Field(ge=1, description="pairs of scenes")


class TripletOptions(Strict):
    """Options that combine, in this order: scenes, without, limit, algebra; then repaint, and the templates."""

    scenes: OwnScenes | None = Field(default=None, description="triplets of its own scenes, not of the source")
    without: RelationNames = Field(default=[], description="relations that no triplet has; inverses and antonyms stay")
    limit: int | None = Field(default=None, ge=1, description="how many triplets, whole pictures from all over the set")
    algebra: list[Kind] = Field(default=[], description="add what follows from the triplets by these rules")
    templates: int | None = Field(default=None, ge=1, description="how many of the pack's templates")

    def chosen(self) -> dict[str, Any]:
        """Return the options in use that say which triplets these are."""
        return self.model_dump(include={"scenes", "without", "limit", "algebra"}, exclude_defaults=True)

    @property
    def cut(self) -> bool:
        """Whether only a part of the triplets is used."""
        return bool(self.without) or self.limit is not None

    def triplets_in(self, folder: Path, source: Path) -> Path:
        """Return where the triplets are once they are chosen: in the data set's folder, or the source's."""
        made = [name for name, used in ((DRAWN, self.scenes), (SUBSET, self.cut), (DERIVED, self.algebra)) if used]
        return folder / made[-1] if made else source
