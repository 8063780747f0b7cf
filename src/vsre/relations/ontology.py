"""VSR's 66 relations as one table: meta category, inverse, antonym, symmetry, behaviour under a mirror.

The facts are in `ontology.csv`, and were counted on VSR's published annotations (Liu et al., TACL 2023). Soundness says
how far a rule can be trusted:

- inverse: "strict" (above/below), "frame" (true in the viewer's frame only: left/right, front/behind), "approx". It
  applies from true to true; `algebra.inverse_soundness` gives the way back.
- antonym: "contrary" (never both true), "complementary" (and, by their meaning, one of them is), "approx" and "weak"
  (mostly). An antonym is safe from true to false only: what is not above need not be below.

VSR gives no meta category for `congruent` and two for `among`. Here `congruent` is "unallocated", VSR's category for
relations that fit none, and `among` is "topological", like its nearest neighbour `between`.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from importlib import resources

from vsre.errors import VsreError

META_CATEGORIES = (
    "adjacency",
    "directional",
    "orientation",
    "projective",
    "proximity",
    "topological",
    "unallocated",
)


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: "The X is NAME the Y." (or "The X NAME the Y." if it is a verb).

    `inverse` is the relation of the object to the subject, the relation itself if it is symmetric; None if English has
    no word for it. `mirror` is the relation that holds in the mirrored image: `right of` for `left of`, itself for all
    but four. `label_ceiling` is the best accuracy that the noise in VSR's labels allows, `dissent` the share of VSR's
    rows for which at least one validator disagreed.
    """

    name: str
    verb: bool
    base_form: str
    meta_category: str
    inverse: str | None
    inverse_soundness: str | None
    antonym: str | None
    antonym_soundness: str | None
    symmetric: bool
    mirror: str
    synonym_class: str | None
    label_ceiling: float
    dissent: float


def _load() -> dict[str, Relation]:
    text = resources.files(__package__).joinpath("ontology.csv").read_text(encoding="utf-8")
    return {
        row["relation"]: Relation(
            name=row["relation"],
            verb=row["form"] == "verb",
            base_form=row["base_form"],
            meta_category=row["meta_category"],
            inverse=row["inverse"] or None,
            inverse_soundness=row["inverse_soundness"] or None,
            antonym=row["antonym"] or None,
            antonym_soundness=row["antonym_soundness"] or None,
            symmetric=row["symmetric"] == "yes",
            mirror=row["mirror"],
            synonym_class=row["synonym_class"] or None,
            label_ceiling=float(row["label_ceiling"]),
            dissent=float(row["dissent"]),
        )
        for row in csv.DictReader(text.splitlines())
    }


RELATIONS: dict[str, Relation] = _load()
"""Name -> relation, in alphabetical order."""


def relation(name: str) -> Relation:
    """The relation with this name; raises VsreError with the nearest names if there is none."""
    found = RELATIONS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, RELATIONS, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "See vsre/relations/ontology.csv."
        raise VsreError(f"{name!r} is none of VSR's {len(RELATIONS)} relations. {hint}")
    return found
