"""Labelled statements about photographs, with the boxes of their two things: what the rules are measured on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vsre.errors import VsreError
from vsre.relations.photo_measures import PhotoPair
from vsre.relations.study.choosing import Labelled
from vsre.relations.things import Thing
from vsre.triplets import Box, Triplet, read_triplets

Array = np.ndarray[Any, np.dtype[Any]]

HALVES = 2


def half(image_name: str) -> int:
    """The half of the images, 0 or 1, that an image with this file name belongs to: by its hash, so always the same."""
    return hashlib.sha256(image_name.encode()).digest()[0] % HALVES


@dataclass(frozen=True, slots=True)
class Row:
    """One statement: its triplet, and every box of the subject's and of the object's class in the image."""

    triplet: Triplet
    subjects: tuple[Box, ...]
    objects: tuple[Box, ...]

    @property
    def labelled(self) -> Labelled | None:
        """The statement for choosing thresholds; None if a class has no box or several."""
        if len(self.subjects) != 1 or len(self.objects) != 1:
            return None
        pair = PhotoPair(Thing(self.subjects[0]), Thing(self.objects[0]))
        return Labelled(self.triplet.relation, pair, self.triplet.label)

    @property
    def unanimous(self) -> bool | None:
        """Whether no validator disagreed with the label; None if votes are unknown."""
        audit: Any = self.triplet.provenance.get("audit") or {}
        against = audit.get("vote_false_validator_id" if self.triplet.label else "vote_true_validator_id")
        return None if against is None else not against


@dataclass
class Rows:
    """The statements read, and what was set aside on the way, by reason."""

    rows: list[Row] = field(default_factory=list)
    set_aside: Counter[str] = field(default_factory=Counter)


@dataclass
class Judged:
    """Rows with their verdicts (n,): 1 PASS, -1 FAIL, 0 UNDECIDED; the evidence for PASS; and why there is no verdict.

    `scores` holds further rankings of the rows (n,), where higher is truer: a random forest's.
    """

    rows: list[Row]
    verdicts: Array
    lead: Array
    reasons: list[str]
    scores: dict[str, Array] = field(default_factory=dict)

    def only(self, kept: Array) -> Judged:
        places = np.flatnonzero(kept)
        scores = {name: score[places] for name, score in self.scores.items()}
        picked = [self.rows[i] for i in places], [self.reasons[i] for i in places]
        return Judged(picked[0], self.verdicts[places], self.lead[places], picked[1], scores)

    @property
    def labels(self) -> Array:
        return np.array([row.triplet.label for row in self.rows], bool)

    @property
    def relations(self) -> Array:
        return np.array([row.triplet.relation for row in self.rows])


def read_rows(files: Sequence[Path], boxes: Sequence[Path]) -> Rows:
    """Read statements (VSR's JSONL, a folder of it, or triplets in Parquet) and look up the boxes of what they name.

    `boxes` are COCO instance annotations or lines of boxes (`sources.vsr.objects.read_objects`), found by the image's
    file name; a triplet from Parquet that has both its boxes keeps them. Each (image, caption) counts once. Raises
    VsreError if a file is missing, nothing is usable, or no row has its boxes.
    """
    from vsre.sources.vsr.objects import ImageObjects, read_objects

    found = Rows()
    triplets = list(_once(_triplets(files, found), found))
    objects = read_objects(boxes, {t.image_name for t in triplets})
    for triplet in triplets:
        if triplet.subject_box and triplet.object_box:
            found.rows.append(Row(triplet, (triplet.subject_box,), (triplet.object_box,)))
        else:
            image = objects.get(triplet.image_name, ImageObjects())
            subjects, others = _boxes_of(image, triplet.subject), _boxes_of(image, triplet.object)
            if triplet.subject == triplet.object and len(subjects) < 2:
                subjects = others = ()  # one thing is not its own object
            found.rows.append(Row(triplet, subjects, others))
    if not any(row.subjects and row.objects for row in found.rows):
        where = ", ".join(map(str, boxes)) or "the triplets themselves"
        raise VsreError(f"none of the {len(found.rows)} rows has its boxes in {where}: do the image names match?")
    return found


def _triplets(files: Sequence[Path], found: Rows) -> Iterator[Triplet]:
    from vsre.sources.vsr import SetAside, read_vsr

    lines: list[Path] = []
    for path in files:
        if not path.exists():
            raise VsreError(f"{path}: no such file. Give VSR's JSONL, or triplets in Parquet.")
        within = sorted(path.glob("*.jsonl")) if path.is_dir() else [path] * (path.suffix == ".jsonl")
        if within:
            lines += within
        else:
            yield from read_triplets(path, images=False)
    if lines:
        aside = SetAside()
        yield from read_vsr(lines, split="", set_aside=aside)
        found.set_aside.update(aside.counts)


def _once(triplets: Iterable[Triplet], found: Rows) -> Iterator[Triplet]:
    seen: set[str] = set()
    for triplet in triplets:
        if triplet.key in seen:
            found.set_aside["said before"] += 1
            continue
        seen.add(triplet.key)
        yield triplet


def _boxes_of(image: Any, name: str) -> tuple[Box, ...]:
    return tuple(box for found, box in image.objects if found == name and box is not None)
