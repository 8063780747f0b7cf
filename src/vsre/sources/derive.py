"""Derive statements from triplets by the algebra of relations, and write them beside the originals.

- inverse: the same fact from the object's side ("the dog is right of the cat" for "the cat is left of the dog").
- swapped: subject and object exchanged under the same relation; false if it holds one way only.
- opposite: the relation's antonym; false if the statement is true.
- mirrored: the mirrored picture with left and right exchanged in the words.

Only statements whose label is decided are written (`vsre.relations.algebra`), so labels come out uneven if a rule gives
false statements only; the summary says how uneven. The rules take the statement at its word: if a picture shows several
things of a class, or a label was given from the object's own point of view, a derived label can be wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from PIL import ImageOps

from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.relations import algebra
from vsre.relations.algebra import Derived, Statement
from vsre.relations.grammar import caption
from vsre.relations.ontology import RELATIONS
from vsre.sources.images import load_image, open_header, upright_bytes
from vsre.sources.protocols import SOURCE_IMAGE
from vsre.sources.vsr.set_aside import SetAside
from vsre.triplets import Box, Triplet, image_content_id, read_triplets, source_files, write_triplets

Kind = Literal["inverse", "swapped", "opposite", "mirrored"]

_RULES = {
    "inverse": algebra.inverse,
    "swapped": algebra.swapped,
    "opposite": algebra.opposite,
    "mirrored": algebra.mirrored,
}
KINDS: tuple[Kind, ...] = ("inverse", "swapped", "opposite", "mirrored")

MIRRORED: Kind = "mirrored"

_EXTENSIONS = {"JPEG": ".jpg", "MPO": ".jpg"}


def checked_kinds(kinds: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds in their usual order, each once; raises VsreError for an empty list and for an unknown kind."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise VsreError(f"{', '.join(unknown) or 'no kind'}: kinds of derived statements are {', '.join(KINDS)}.")
    return tuple(kind for kind in KINDS if kind in kinds)


def expected(relation: str, kinds: Collection[Kind]) -> tuple[float, float]:
    """How many statements follow from one with this relation, on average over its two labels: about its own picture,
    and about the mirrored one."""
    said = Statement("a", relation, "b")
    same = {
        (label, found.statement)
        for label in (True, False)
        for kind in kinds
        if kind != MIRRORED and (found := _RULES[kind](said, label)) is not None
        if found.label is not None
    }
    return len(same) / 2, float(MIRRORED in kinds)


def derive(
    triplets_path: Path | str, out: Path | str, kinds: Sequence[str], *, without: Collection[str] = ()
) -> dict[str, Any]:
    """Write the triplets of a file or folder and those derived from them to OUT/part-NNNNN.parquet, streaming, the rows
    of a picture together; returns (and writes to OUT/derive.json) what was made.

    `kinds` are some of KINDS. Nothing is derived with a relation in `without`. No row is written twice: what is said
    already stays as it was, and if two rows of the source contradict each other in what follows, neither follows. A
    triplet from which nothing can be derived (a relation that is not one of VSR's, one class twice, no picture to
    mirror) is written, and noted in OUT/set_aside.jsonl.

    The provenance of a derived row has `derived` (the kind), `source_key` and, for a mirrored picture, its
    `source_image_id`. Returns {"triplets", "true" (their share), "pictures", "repeated", "original", "derived": figures
    of each kind, "set_aside"}. The same input gives the same rows. Raises VsreError if there is nothing to read, for an
    unknown kind, and if OUT is the source.
    """
    source, out = Path(triplets_path), Path(out)
    chosen = checked_kinds(kinds)
    source_files(source, out)
    (out / "derive.json").unlink(missing_ok=True)
    with SetAside(out / "set_aside.jsonl") as set_aside:
        deriver = _Deriver(source, chosen, frozenset(without), set_aside)
        written = write_triplets(out, deriver.rows())
    figures = {kind: _figures(deriver.counts[kind]) for kind in ("original", *chosen)}
    summary: dict[str, Any] = {
        "triplets": written,
        "true": round(sum(f["true"] for f in figures.values()) / written, 4) if written else None,
        "pictures": deriver.pictures,
        "repeated": deriver.repeated,
        "original": figures.pop("original"),
        "derived": figures,
        "set_aside": {"rows": set_aside.total, "reasons": dict(set_aside.counts.most_common())},
    }
    write_aside(out / "derive.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _figures(counts: Mapping[str, int]) -> dict[str, int]:
    return {"rows": counts["true"] + counts["false"], **counts}


class _Deriver:
    """Goes through a source twice: once for what it says, and once to derive."""

    def __init__(self, source: Path, kinds: Sequence[Kind], without: frozenset[str], set_aside: SetAside) -> None:
        self.source, self.kinds, self.without, self.set_aside = source, kinds, without, set_aside
        self.counts = {kind: Counter({"true": 0, "false": 0}) for kind in ("original", *kinds)}
        self.pictures = self.repeated = 0
        self._said: dict[str, bool] = {}
        self._written: set[str] = set()

    def rows(self) -> Iterator[Triplet]:
        for triplet in read_triplets(self.source, images=False):
            self._said.setdefault(triplet.key, triplet.label)
        numbered = enumerate(read_triplets(self.source), 1)
        for _, together in groupby(numbered, key=lambda item: item[1].image_id):
            yield from self._picture(list(together))

    def _picture(self, numbered: Sequence[tuple[int, Triplet]]) -> Iterator[Triplet]:
        """The rows of one picture, what follows from them about it, and what follows about its mirror image."""
        self.pictures += 1
        usable = []
        for number, triplet in numbered:
            if triplet.key in self._written:
                self.repeated += 1
                continue
            self._written.add(triplet.key)
            self.counts["original"]["true" if triplet.label else "false"] += 1
            yield triplet
            if why := _not_derived_from(triplet):
                self._aside(number, triplet, why)
            else:
                usable.append((number, triplet))
        same: dict[str, list[tuple[Kind, Triplet]]] = {}
        for kind in self.kinds:
            for _, triplet in usable if kind != MIRRORED else ():
                if (row := self._derived(kind, triplet)) is not None:
                    same.setdefault(row.key, []).append((kind, row))
        yield from self._agreed(same)
        if MIRRORED in self.kinds:
            mirrored = self._mirrored(usable)
            self.pictures += bool(mirrored)
            yield from self._agreed(mirrored)

    def _derived(self, kind: Kind, triplet: Triplet) -> Triplet | None:
        """What follows about the same picture."""
        found = self._follows(kind, triplet)
        if found is None or found.label is None:
            return None
        subject, relation, object = found.statement
        boxes = triplet.subject_box, triplet.object_box
        if (subject, object) != (triplet.subject, triplet.object):
            boxes = boxes[::-1]
        provenance = _provenance(kind, triplet)
        if "scene" in triplet.provenance:  # of a picture drawn by the scene painter: what else it shows
            provenance["scene"] = triplet.provenance["scene"]
        return triplet.replace(
            subject=subject,
            relation=relation,
            object=object,
            caption=caption(subject, relation, object),
            label=found.label,
            subject_box=boxes[0],
            object_box=boxes[1],
            origin=f"derived:{kind}",
            provenance=provenance,
        )

    def _follows(self, kind: Kind, triplet: Triplet) -> Derived | None:
        """What the rule says; what it does not say is counted by reason."""
        counts = self.counts[kind]
        found = _RULES[kind](Statement(triplet.subject, triplet.relation, triplet.object), triplet.label)
        if found is None:
            counts["no rule"] += 1
        elif found.statement.relation in self.without:
            counts["left out"] += 1
            return None
        elif found.label is None:
            counts["undecided"] += 1
        return found

    def _mirrored(self, usable: Sequence[tuple[int, Triplet]]) -> dict[str, list[tuple[Kind, Triplet]]]:
        picture: tuple[bytes, str] | None = None
        rows: dict[str, list[tuple[Kind, Triplet]]] = {}
        for number, triplet in usable:
            found = self._follows(MIRRORED, triplet)
            if found is None or found.label is None:
                continue
            if triplet.image is None:
                self._aside(number, triplet, "no picture to mirror")
                continue
            try:
                picture = picture or _mirror_image(triplet.image, triplet.image_name)
            except VsreError as error:
                self._aside(number, triplet, "its picture cannot be opened", str(error))
                continue
            row = _in_mirror(triplet, found.statement, found.label, *picture)
            rows.setdefault(row.key, []).append((MIRRORED, row))
        return rows

    def _agreed(self, rows: Mapping[str, Sequence[tuple[Kind, Triplet]]]) -> Iterator[Triplet]:
        """The rows that nothing contradicts, each once."""
        for key, alike in rows.items():
            (first, row), *others = alike
            if len({other.label for _, other in alike}) > 1 or self._said.get(key, row.label) is not row.label:
                for kind, _ in alike:
                    self.counts[kind]["contradicted"] += 1
                continue
            known = key in self._said
            for kind, _ in alike if known else others:
                self.counts[kind]["said already"] += 1
            if not known:
                self._said[key] = row.label
                self.counts[first]["true" if row.label else "false"] += 1
                yield row

    def _aside(self, number: int, triplet: Triplet, reason: str, detail: str = "") -> None:
        self.set_aside.add(self.source, number, reason, detail, f"{triplet.image_name}: {triplet.caption}")


def _not_derived_from(triplet: Triplet) -> str | None:
    if triplet.relation not in RELATIONS:
        return "its relation is none of VSR's"
    if triplet.subject == triplet.object:  # nothing says which of the two is meant
        return "subject and object have one name"
    return None


def _provenance(kind: Kind, triplet: Triplet) -> dict[str, Any]:
    """The provenance of a derived row. If its picture was made from another one, that one is kept: protocols must see
    the first."""
    kept = {SOURCE_IMAGE: triplet.provenance[SOURCE_IMAGE]} if SOURCE_IMAGE in triplet.provenance else {}
    return {**kept, "derived": kind, "source_key": triplet.key}


def _in_mirror(triplet: Triplet, said: Statement, label: bool, image: bytes, name: str) -> Triplet:
    with open_header(image) as header:
        width, height = header.size
    return triplet.replace(
        image_id=image_content_id(image),
        image_name=name,
        image=image,
        width=width,
        height=height,
        relation=said.relation,
        caption=caption(*said),
        label=label,
        subject_box=_mirror_box(triplet.subject_box),
        object_box=_mirror_box(triplet.object_box),
        origin=f"derived:{MIRRORED}",
        provenance={SOURCE_IMAGE: triplet.image_id, **_provenance(MIRRORED, triplet)},
    )


def _mirror_box(box: Box | None) -> Box | None:
    return None if box is None else (1 - box[2], box[1], 1 - box[0], box[3])


def _mirror_image(image: bytes, name: str) -> tuple[bytes, str]:
    """The mirrored picture (JPEG if it was JPEG, else PNG), and a file name that no other picture has.

    Raises VsreError if it cannot be opened.
    """
    with open_header(image, name=name) as header:
        file_format = header.format
    data = upright_bytes(ImageOps.mirror(load_image(image, name=name)), file_format)
    stem = Path(name).stem or "picture"
    return data, f"{stem}-mirrored{_EXTENSIONS.get(str(file_format), '.png')}"
