"""From VSR files to a data set folder: choosing the splits, applying the protocol, writing Parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.sources.coco import CATEGORY_ID
from vsre.sources.protocols import HeldOut, Overlap, apply_protocol, protocol_named
from vsre.sources.vsr.objects import read_objects
from vsre.sources.vsr.reader import Progress, ReadCounts, RowIndex, index_rows, read_index
from vsre.sources.vsr.set_aside import SetAside
from vsre.triplets import Triplet, write_triplets

Annotations = str | Path | Sequence[Path] | Mapping[str, Sequence[Path]]
"""A folder, files, or the files of each split by name."""

SPLITS: dict[str, dict[str, tuple[str, ...]]] = {
    "random": {name: (f"random/{name}.jsonl",) for name in ("train", "dev", "test")},
    "zero-shot": {name: (f"zeroshot/{name}.jsonl",) for name in ("train", "dev", "test")},
    "turn-s": {
        "train": ("zeroshot/train.jsonl", "random/train.jsonl"),
        "dev": ("zeroshot/dev.jsonl",),
        "test": ("zeroshot/test.jsonl",),
    },
}
"""The published splits, and turn-s of arXiv 2412.18224 (section 4), as the files each is made of."""


def find_splits(annotations: Annotations, split: str | None = None) -> dict[str, list[Path]]:
    """The annotation files of each split, by the split's name (train, dev, test).

    `annotations` is a folder or a list of files; a mapping is taken as it is. With `split`, one of SPLITS, the folder
    is laid out as published (random/train.jsonl ... zeroshot/test.jsonl); without, every JSONL file in it is a split
    with the file's name. Raises VsreError if a file is missing, naming it.
    """
    if isinstance(annotations, Mapping):
        return {name: [Path(file) for file in files] for name, files in annotations.items()}
    if split is not None and split not in SPLITS:
        raise VsreError(f"no split {split!r} of VSR. There are: {', '.join(SPLITS)}.")
    paths = [Path(annotations)] if isinstance(annotations, str | Path) else [Path(p) for p in annotations]
    if split is not None:
        if len(paths) != 1 or not paths[0].is_dir():
            raise VsreError(f"the split {split!r} needs one folder that holds random/ and zeroshot/ as published.")
        found = {name: [paths[0] / file for file in files] for name, files in SPLITS[split].items()}
        missing = [str(file) for files in found.values() for file in files if not file.is_file()]
        if missing:
            raise VsreError(f"the split {split!r} needs {', '.join(missing)}, which is not there.")
        return found
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    if not files:
        published = paths and (paths[0] / "zeroshot").is_dir()
        hint = f"Choose a split: {', '.join(SPLITS)}." if published else "Expected VSR rows, one JSON object a line."
        raise VsreError(f"{', '.join(map(str, paths)) or 'no folder given'}: no .jsonl files here. {hint}")
    found = {}
    for file in files:
        found.setdefault(file.stem, []).append(file)
    return found


def import_vsr(
    annotations: Annotations,
    out: str | Path,
    *,
    images: Sequence[Path] | None,
    instances: Sequence[Path] = (),
    split: str | None = None,
    protocol: str = "clean",
    origin: str = "vsr",
    classes: Collection[str] = CATEGORY_ID.keys(),
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write OUT/SPLIT/*.parquet for each split, OUT/set_aside.jsonl and OUT/summary.json; returns the last.

    `annotations` and `split` are as in `find_splits`, `images` and `instances` as in `read_vsr`. If there are a train
    and a test split, `protocol` (see `protocols.PROTOCOLS`) removes rows from train; the other splits stay as they are,
    and the summary says as `overlap` how much of each appears in the written training data. Rows whose picture is
    missing are held out like the others: a training set does not depend on which test pictures are available.
    `progress` is called with a split's name, the number of the current image and the number of images in all. Killed
    and started again, it starts over. Raises VsreError if a file or folder is missing, if OUT holds splits of another
    import, or if no row is usable.
    """
    out, chosen = Path(out), protocol_named(protocol)
    splits = find_splits(annotations, split)
    _refuse_other_splits(out, splits)
    (out / "summary.json").unlink(missing_ok=True)
    figures: dict[str, Any] = {}
    with SetAside(out / "set_aside.jsonl") as set_aside:
        indexes = {name: index_rows(files, set_aside, classes) for name, files in splits.items()}
        objects = read_objects(instances, {image for index in indexes.values() for image in index.places})
        held = {name: HeldOut(_without_pictures(indexes[name], classes)) for name in splits if name != "train"}
        overlaps = {name: Overlap(held[name]) for name in held}
        # Train comes last: what it is compared with must be known by then.
        for name in sorted(splits, key=lambda name: name == "train"):
            counts, tally, removed = ReadCounts(), Tally(), Counter[str]()
            triplets = read_index(
                indexes[name],
                images,
                objects,
                split=name,
                origin=origin,
                set_aside=set_aside,
                counts=counts,
                classes=classes,
                progress=_named(progress, name),
            )
            if name != "train":
                triplets = _noted(triplets, held[name])
            elif "test" in held:
                triplets = apply_protocol(triplets, held["test"], protocol, removed)
            if name == "train":
                for overlap in overlaps.values():
                    triplets = overlap.watch(triplets)
            if not write_triplets(out / name, tally.watch(triplets)):
                (out / name).rmdir()
            figures[name] = {
                "files": [f"{file.parent.name}/{file.name}" for file in splits[name]],
                "rows": indexes[name].rows,
                "duplicates": counts.duplicates,
                "set_aside": dict(set_aside.of(splits[name])),
                "removed": dict(removed),
                **vars(tally),
                "boxes": dict(counts.boxes.most_common()),
                "turned_upright": counts.turned_upright,
            }
        if not any(entry["triplets"] for entry in figures.values()):
            raise set_aside.nothing_usable(", ".join(str(file) for files in splits.values() for file in files))
    summary: dict[str, Any] = {
        "split": split,
        "origin": origin,
        "with_images": images is not None,
        "splits": {name: figures[name] for name in splits},
        "set_aside": {"rows": set_aside.total, "reasons": dict(set_aside.counts.most_common())},
    }
    if {"train", "test"} <= splits.keys():
        summary["protocol"] = {"name": chosen.name, "note": chosen.note}
        summary["overlap"] = {name: overlap.summary() for name, overlap in overlaps.items()}
    write_aside(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


class Tally:
    """Counts of a stream of triplets in which those of one image are adjacent."""

    def __init__(self) -> None:
        self.triplets = self.images = self.true = self.both_boxes = 0

    def watch(self, triplets: Iterable[Triplet]) -> Iterator[Triplet]:
        last = None
        for triplet in triplets:
            self.triplets += 1
            self.images += triplet.image_id != last
            self.true += triplet.label
            self.both_boxes += triplet.subject_box is not None and triplet.object_box is not None
            last = triplet.image_id
            yield triplet


def summary_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The header and rows of a table for people, one row per split, from the summary of `import_vsr`."""
    header = [
        "split",
        "rows",
        "duplicates",
        "set aside",
        "removed",
        "triplets",
        "images",
        "true",
        "both boxes",
    ]
    rows = []
    for name, entry in summary["splits"].items():
        aside, removed = sum(entry["set_aside"].values()), sum(entry["removed"].values())
        n = entry["triplets"]
        figures = [entry["rows"], entry["duplicates"], aside, removed, n, entry["images"]]
        share = f"{entry['true'] / n:.1%}" if n else "-"
        rows.append([name, *(f"{value:,}" for value in figures), share, f"{entry['both_boxes']:,}"])
    return header, rows


def _without_pictures(index: RowIndex, classes: Collection[str]) -> Iterator[Triplet]:
    return read_index(index, None, {}, split="", origin="", set_aside=SetAside(), classes=classes)


def _noted(triplets: Iterable[Triplet], held: HeldOut) -> Iterator[Triplet]:
    for triplet in triplets:
        held.add(triplet)
        yield triplet


def _named(progress: Callable[[str, int, int], None] | None, name: str) -> Progress | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def _refuse_other_splits(out: Path, splits: Collection[str]) -> None:
    """Raise VsreError for a split folder of another import, which would be read as part of this data set."""
    others = sorted({file.parent.name for file in out.glob("*/*.parquet")} - set(splits))
    if others:
        raise VsreError(f"{out}: holds other splits ({', '.join(others)}). Delete them or choose another folder.")
