"""Counts of the published files: rows, repetitions, and how much of the test split is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vsre.sources.protocols import PROTOCOLS, HeldOut, Overlap
from vsre.sources.vsr.importer import Tally, find_splits
from vsre.sources.vsr.reader import ReadCounts, read_vsr
from vsre.sources.vsr.set_aside import SetAside


def survey_vsr(annotations: Path) -> dict[str, Any]:
    """Figures of a folder laid out as published (random/ and zeroshot/), read without pictures.

    `splits`: for each split of random and zero-shot, and for turn-s, its rows, duplicates (within the split), rows set
    aside by reason, unique triplets, images and true triplets; `unique`: triplets over all six files; `overlap`: how
    much of the zero-shot test split appears in turn-s; `protocols`: the turn-s triplets that each protocol keeps.
    Raises VsreError if a file is missing or holds no usable row.
    """
    keys: set[str] = set()
    splits: dict[str, Any] = {}
    for kind in ("random", "zero-shot"):
        for name, files in find_splits(annotations, kind).items():
            counts, set_aside, tally = ReadCounts(), SetAside(), Tally()
            rows = read_vsr(files, split=name, counts=counts, set_aside=set_aside)
            keys.update(triplet.key for triplet in tally.watch(rows))
            splits[f"{kind} {name}"] = _figures(counts, set_aside, tally)
    turn_s = find_splits(annotations, "turn-s")
    held = HeldOut(read_vsr(turn_s["test"], split="test"))
    overlap = Overlap(held)
    left = dict.fromkeys(PROTOCOLS, 0)
    counts, set_aside, tally = ReadCounts(), SetAside(), Tally()
    train = read_vsr(turn_s["train"], split="train", counts=counts, set_aside=set_aside)
    for triplet in overlap.watch(tally.watch(train)):
        found = held.found(triplet)
        for protocol in PROTOCOLS.values():
            left[protocol.name] += not set(found) & set(protocol.removes)
    splits["turn-s train"] = _figures(counts, set_aside, tally)
    return {"splits": splits, "unique": len(keys), "overlap": overlap.summary(), "protocols": left}


def _figures(counts: ReadCounts, set_aside: SetAside, tally: Tally) -> dict[str, Any]:
    return {
        "rows": counts.rows,
        "duplicates": counts.duplicates,
        "set_aside": dict(set_aside.counts),
        "removed": {},
        **vars(tally),
    }
