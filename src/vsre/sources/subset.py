"""A part of a set of triplets: without some relations, and at most so many of the rest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.triplets import Triplet, read_triplets, write_triplets


def write_subset(
    triplets_path: Path | str,
    out: Path | str,
    *,
    limit: int | None = None,
    without: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Write the triplets of a file or folder whose relations are not among `without`, at most `limit` of them.

    Pictures are taken whole, in an order that depends only on the seed and on each one's id; of the last one only as
    many rows as are wanted. So they are spread over the whole set, and with the same seed a smaller set is part of a
    larger one, whatever order the rows come in. Returns {"triplets", "of", "true" (their share), "pictures", "without":
    rows left out by relation}. Raises VsreError if nothing is left. Memory grows with the pictures, not the rows.
    """
    if limit is not None and limit < 1:
        raise VsreError("limit must be at least 1.")
    source, refused = Path(triplets_path), frozenset(without)
    left_out, rows = Counter[str](), Counter[str]()
    count = 0
    for triplet in read_triplets(source, images=False):
        count += 1
        if triplet.relation in refused:
            left_out[triplet.relation] += 1
        else:
            rows[triplet.image_id] += 1
    if not rows:
        raise VsreError(
            f"{source}: none of its {count:,} triplets are left without {', '.join(sorted(refused))}. Leave fewer "
            "relations out."
        )
    wanted = shares(rows, limit, seed)
    figures = Counter[str]()

    def chosen() -> Iterator[Triplet]:
        for triplet in read_triplets(source):
            if triplet.relation not in refused and wanted.get(triplet.image_id):
                wanted[triplet.image_id] -= 1
                figures["true"] += triplet.label
                yield triplet

    pictures = len(wanted)
    written = write_triplets(out, chosen())
    return {
        "triplets": written,
        "of": count,
        "true": round(figures["true"] / written, 4),
        "pictures": pictures,
        "without": dict(left_out.most_common()),
    }


def shares(rows: Mapping[str, int], limit: int | None, seed: int) -> dict[str, int]:
    """Picture -> number of its rows that `write_subset` takes, given each picture's number of rows; in the order it
    takes them."""
    left = sum(rows.values()) if limit is None else limit
    taken: dict[str, int] = {}
    for image in sorted(rows, key=lambda image: hashlib.sha256(f"{seed}\n{image}".encode()).digest()):
        if left <= 0:
            break
        taken[image] = min(rows[image], left)
        left -= taken[image]
    return taken
