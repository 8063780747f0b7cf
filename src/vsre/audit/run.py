"""The audit itself: reads both sides, makes every check, returns the figures and the clean rows."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vsre
from vsre.audit.clean import write_clean
from vsre.audit.fields import fields
from vsre.audit.hashing import NEAR_BITS, NEAR_TONES
from vsre.audit.images import Images, Progress, number_images
from vsre.audit.labels import balance, ceiling, floors
from vsre.audit.overlap import Known, findings
from vsre.audit.rows import Row, Side, read_side
from vsre.audit.verdict import verdict
from vsre.files import write_aside

FORMAT = 1
"""The version of this layout of the figures; it changes if a key's meaning does."""

Paths = Sequence[Path | str] | Path | str


@dataclass
class Audit:
    """An audit's figures, as its JSON holds them, and the rows behind them."""

    figures: dict[str, Any]
    train: Side
    test: Side
    clean_rows: list[Row]
    """Test rows unknown to training: not their picture, no near copy, nothing it was made from or made into."""

    @property
    def leaks(self) -> bool:
        return bool(self.figures["verdict"]["leaks"])

    @property
    def line(self) -> str:
        return str(self.figures["verdict"]["line"])

    def write_json(self, path: Path | str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_aside(Path(path), json.dumps(self.figures, indent=1) + "\n")

    def write_clean(self, path: Path | str) -> int:
        """Write the clean rows as `vsre.audit.clean.write_clean` does; return how many."""
        return write_clean(self.test, self.clean_rows, path)


def audit(
    train: Paths,
    test: Paths,
    *,
    images: Sequence[Path | str] = (),
    test_images: Sequence[Path | str] = (),
    near: bool = True,
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Audit:
    """Compare training and test data: VSR's JSONL files, triplets or questions, as files or folders.

    `images` are folders of the pictures that files name, `test_images` those of the test side if different; pictures
    inside Parquet files are used anyway. `near=False` avoids decoding them: contents are still compared, near copies
    are not found. `seed` and `resamples` are for the intervals. docs/audit.md describes the figures. Raises VsreError
    for files that are missing, are not data or have no usable row.
    """
    start = time.perf_counter()
    sides = read_side("train", _paths(train)), read_side("test", _paths(test))
    folders = {"train": [Path(p) for p in images], "test": [Path(p) for p in test_images or images]}
    pictures = number_images(sides, folders, look=near, progress=progress)
    found = findings(*sides, pictures)
    rows = sides[0].rows, sides[1].rows
    known, seen = Known(rows[0]), {row.words for row in rows[0]}
    clean = [row for row in rows[1] if row.image not in pictures.trained and not known.rows(row)]
    figures: dict[str, Any] = {
        "vsre": vsre.__version__,
        "audit": FORMAT,
        "settings": {
            "near": near,
            "near_bits": NEAR_BITS,
            "near_tones": NEAR_TONES,
            "seed": seed,
            "resamples": resamples,
        },
        **{side.name: _side(side, pictures) for side in sides},
        "pictures": _pictures(pictures),
        "findings": found,
        "clean": {
            "rows": len(clean),
            "share": len(clean) / len(rows[1]),
            "images": len({row.image for row in clean}),
            "rows_with_new_caption": sum(row.words not in seen for row in clean if row.words),
        },
        "floors": floors(*sides, seed=seed, resamples=resamples),
        "fields": fields(*sides, seed=seed, resamples=resamples),
        # For the training side only the value: resampling every training picture is not worth the memory.
        "label_ceiling": {
            "test": ceiling(rows[1], seed=seed, resamples=resamples),
            "train": ceiling(rows[0], resamples=0),
        },
        "balance": balance(*rows),
    }
    figures["verdict"] = verdict(figures)
    figures["seconds"] = round(time.perf_counter() - start, 2)
    return Audit(figures, *sides, clean)


def _paths(paths: Paths) -> Sequence[Path | str]:
    return [paths] if isinstance(paths, str | Path) else paths


def _side(side: Side, images: Images) -> dict[str, Any]:
    return {
        "files": [f"{file.parent.name}/{file.name}" for file in side.files],
        "kinds": sorted(set(side.kinds)),
        "rows": len(side.rows),
        "images": len(images.by_side[side.name]),
        "captions": len({row.words for row in side.rows if row.words}),
        "true": sum(row.label for row in side.rows),
        "questions_merged": side.repeated_questions,
        "set_aside": {
            "rows": side.set_aside.total,
            "reasons": dict(side.set_aside.counts.most_common()),
            "first": dict(side.set_aside.first),
        },
    }


def _pictures(images: Images) -> dict[str, Any]:
    return {
        "with_content": images.with_content,
        "compared": images.compared,
        "missing": images.missing,
        "unreadable": {"count": len(images.unreadable), "first": images.unreadable[:5]},
        "names_of_several": images.names_of_several,
    }
