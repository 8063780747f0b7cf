"""What a run will ask, known before the first answer: templates, questions, fingerprints, what is skipped."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from vsre.diagnose.blind import Statement
from vsre.errors import VsreError
from vsre.rewrite import Template, TemplatePack, load_pack
from vsre.triplets import Triplet, read_triplets


@dataclass
class Plan:
    """What a run will ask, known before the first answer."""

    templates: list[Template]
    packs: dict[str, str]
    fingerprint: str = ""
    questions: int = 0
    skipped: dict[str, int] = field(default_factory=lambda: {"no_boxes": 0, "duplicate_rows": 0})
    statements: list[Statement] = field(default_factory=list)
    images: frozenset[str] | None = None
    """The images drawn for a sample; None if all are asked about."""

    def chosen(self, triplets: Iterable[Triplet]) -> Iterable[Triplet]:
        """The triplets of the images drawn."""
        return triplets if self.images is None else (t for t in triplets if t.image_id in self.images)


def plan_run(
    triplets_path: str | Path,
    packs: Sequence[str | Path | TemplatePack],
    *,
    limit: int | None = None,
    sample: int | None = None,
    per_image: int | None = None,
    seed: int = 0,
) -> Plan:
    """Count the questions and take fingerprints; reads the triplets without their pictures.

    `limit` takes the first images, `sample` images drawn by `seed`, until they hold this many triplets; `per_image`
    keeps at most this many triplets of each image (`some_of`), before a limit counts them.
    """
    if limit is not None and sample is not None:
        raise VsreError("Give either a limit (the first triplets) or a sample (drawn at random), not both.")
    for name, number in (("limit", limit), ("sample", sample), ("per_image", per_image)):
        if number is not None and number < 1:
            raise VsreError(f"The {name} is {number}: give 1 or more triplets, or leave it out.")
    loaded = [pack if isinstance(pack, TemplatePack) else load_pack(pack) for pack in packs]
    if not loaded:
        raise VsreError("No template pack was named. Name one or more, such as diagnosis, pool, test-s or held-out.")
    templates = {(t.pack, t.id): t for pack in loaded for t in pack.templates}
    plan = Plan(list(templates.values()), {pack.name: pack.digest for pack in loaded})
    if sample is not None:
        plan.images = frozenset(picked_images(read_triplets(triplets_path, images=False), sample, seed, per_image))
    rows = []
    for triplets in by_image(plan.chosen(read_triplets(triplets_path, images=False)), limit, plan.skipped, per_image):
        for t in triplets:
            questions = len(askable(t, plan.templates))
            plan.questions += questions
            plan.skipped["no_boxes"] += len(plan.templates) - questions
            plan.statements.append(Statement(t.image_id, t.caption, t.relation, t.label))
            rows.append(fingerprint_line(t))
    plan.fingerprint = _sha(rows)
    if not rows:
        raise VsreError(f"{triplets_path}: no triplets in it, so there is nothing to ask.")
    if not plan.questions:
        raise VsreError(
            f"{triplets_path}: all templates asked for give boxes, and no triplet here has both of its boxes."
        )
    return plan


def by_image(
    triplets: Iterable[Triplet],
    limit: int | None,
    skipped: dict[str, int] | None = None,
    per_image: int | None = None,
) -> Iterator[list[Triplet]]:
    """The triplets of each image, which are adjacent in the file: repeated rows once, at most `per_image` per image.

    Stops after the image that reaches `limit` triplets.
    """
    keys: set[str] = set()
    taken = 0
    for _, group in groupby(triplets, key=lambda t: t.image_id):
        fresh = []
        for triplet in group:
            if triplet.key in keys:
                if skipped is not None:
                    skipped["duplicate_rows"] += 1
                continue
            keys.add(triplet.key)
            fresh.append(triplet)
        if fresh:
            kept = fresh if per_image is None else some_of(fresh, per_image)
            taken += len(kept)
            yield kept
        if limit is not None and taken >= limit:
            return


def some_of(triplets: Sequence[Triplet], count: int) -> list[Triplet]:
    """At most `count` of an image's triplets, in their order: those whose captions have the smallest hashes.

    Images with the same captions keep the same ones, so that what is true of one and false of the other
    stays paired (scenes come in such pairs).
    """
    if len(triplets) <= count:
        return list(triplets)
    kept = sorted(range(len(triplets)), key=lambda i: hashlib.sha256(triplets[i].caption.encode()).digest())[:count]
    return [triplets[i] for i in sorted(kept)]


def fingerprint_line(t: Triplet) -> str:
    """The part of a triplet that enters a test's fingerprint: two tests with equal lines ask the same."""
    return f"{t.key}{t.label}{t.subject}|{t.relation}|{t.object}{t.subject_box}{t.object_box}"


def picked_images(triplets: Iterable[Triplet], count: int, seed: int, per_image: int | None = None) -> list[str]:
    """Images drawn at random, without replacement, until they hold `count` triplets, at most `per_image` each."""
    held: dict[str, set[str]] = {}
    for t in triplets:
        held.setdefault(t.image_id, set()).add(t.key)
    images, picked, reached = sorted(held), list[str](), 0
    random.Random(seed).shuffle(images)
    for image in images:
        if reached >= count:
            break
        picked.append(image)
        reached += len(held[image]) if per_image is None else min(per_image, len(held[image]))
    return picked


def askable(triplet: Triplet, templates: Sequence[Template]) -> list[Template]:
    boxes = triplet.subject_box is not None and triplet.object_box is not None
    return [t for t in templates if boxes or not t.needs_boxes]


def _sha(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\n")
    return "sha256:" + digest.hexdigest()[:24]
