"""Which pictures are asked for: the words that a repainted set may use, and one job per triplet, setting and number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from vsre.errors import VsreError
from vsre.repaint.painter import SETTINGS, Painter, PaintJob, Parameters, Setting, Vocabulary, class_pair
from vsre.sources.protocols import image_names
from vsre.triplets import parquet_files, read_triplets

HELD_OUT = ("test", "dev")
"""Splits that are never painted from, and whose captions are never painted."""

_COLUMNS = ["subject", "relation", "object", "caption", "split"]


def survey(
    triplets: Path, *, allow_held_out: bool, held_out: Sequence[Path] = ()
) -> tuple[Vocabulary, int, list[Path]]:
    """The words of the source triplets without what is held out, the number of triplets, and the folders of held-out
    triplets: those named by `held_out`, and a split folder's neighbours "test" and "dev".

    Raises VsreError if the source itself holds rows of a held-out split.
    """
    words, count = _words(triplets, HELD_OUT if not allow_held_out else ())
    if not count:
        raise VsreError(f"{triplets}: no triplets here, nothing to repaint.")
    found = [] if allow_held_out else _held_out_folders(triplets, held_out)
    captions: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    images: set[str] = set()
    for held in found:
        rows, _ = _words(held, ())
        captions |= {caption for *_, caption in rows}
        pairs |= {class_pair(subject, object) for subject, _, object, _ in rows}
        for triplet in read_triplets(held, images=False):
            images |= image_names(triplet)
    classes = {subject for subject, *_ in words} | {object for _, _, object, _ in words}
    relations = frozenset(relation for _, relation, *_ in words)
    vocabulary = Vocabulary(tuple(sorted(classes)), relations, frozenset(captions), frozenset(pairs), frozenset(images))
    return vocabulary, count, found


def _held_out_folders(triplets: Path, named: Sequence[Path]) -> list[Path]:
    """The folders named, which must hold triplets, and the neighbours "test" and "dev" that do."""
    for folder in named:
        parquet_files(folder)
    folder = triplets if triplets.is_dir() else triplets.parent
    # Absolute, since the parent of "." is ".". Beside the path as given, and beside what it resolves to (a link, "..").
    beside = [whole.parent / name for whole in (folder.absolute(), folder.resolve()) for name in HELD_OUT]
    own = folder.resolve()
    found = [f for f in beside if f.resolve() != own and f.is_dir() and any(f.glob("*.parquet"))]
    return list({f.resolve(): f for f in (*found, *named)}.values())


def _words(path: Path, refused: Sequence[str]) -> tuple[set[tuple[str, str, str, str]], int]:
    """The distinct (subject, relation, object, caption) of a file or folder, and its number of rows."""
    words: set[tuple[str, str, str, str]] = set()
    count = 0
    for file in parquet_files(path):
        parquet = pq.ParquetFile(file)
        missing = [c for c in _COLUMNS if c not in parquet.schema_arrow.names]
        if missing:
            raise VsreError(f"{file}: not a triplet file, it lacks the columns {', '.join(missing)}.")
        for batch in parquet.iter_batches(batch_size=8192, columns=_COLUMNS):
            subjects, relations, objects, captions, splits = (c.to_pylist() for c in batch.columns)
            held = next((i for i, split in enumerate(splits) if split in refused), None)
            if held is not None:
                raise VsreError(
                    f"{file}, row {count + held}: a triplet of the split {splits[held]!r}. Pictures painted "
                    "from it would carry the test into the training data. Give the train split's folder, or "
                    "allow it on purpose (allow_held_out=True)."
                )
            words.update(zip(subjects, relations, objects, captions, strict=True))
            count += len(splits)
    return words, count


def job_seed(seed: int, key: str, setting: Setting, number: int) -> int:
    """A job's own 48-bit seed, the same whatever else is painted."""
    return int(hashlib.sha256(f"{seed}/{key}/{setting}/{number}".encode()).hexdigest()[:12], 16)


def jobs(
    triplets: Path,
    painter: Painter,
    settings: Sequence[Setting],
    *,
    per_triplet: int,
    seed: int,
    count: int,
    limit: int,
) -> Iterator[tuple[int, PaintJob]]:
    """All jobs for `limit` of the `count` triplets, spread evenly, each with its triplet's row number; those of one
    triplet together, streaming. The triplets come without their pictures.

    In the result, a triplet's caption should be true as often as it is false, or text alone would give the answer away.
    "i2i" keeps the source's label. "inpaint" says the old caption of a picture without its subject: false; if it takes
    part, "t2i" draws the caption true. Without it, "t2i" takes the source's label and its opposite in turn.
    """
    parameters = {setting: Parameters(painter.parameters_for(setting)) for setting in settings}
    for row, triplet in enumerate(read_triplets(triplets, images=False)):
        if not taken(row, count=count, limit=limit):
            continue
        for setting in settings:
            for number in range(per_triplet):
                truth = None
                if setting == "t2i":
                    truth = "inpaint" in settings or triplet.label is (number % 2 == 0)
                own = job_seed(seed, triplet.key, setting, number)
                yield row, PaintJob(triplet, setting, own, painter.name, parameters[setting], truth)


def taken(index: int, *, count: int, limit: int) -> bool:
    """Whether the triplet at `index` is one of `limit` that are spread evenly over `count`."""
    return (index + 1) * limit // count != index * limit // count


def checked_settings(settings: Sequence[str], painter: Painter) -> tuple[Setting, ...]:
    """The settings in their usual order. Raises VsreError for an empty list, and for a setting that the painter does
    not have."""
    unknown = [s for s in settings if s not in painter.settings]
    if unknown or not settings:
        what = ", ".join(unknown) or "no setting"
        raise VsreError(f"{what}: the painter {painter.name} has {', '.join(painter.settings)}.")
    return tuple(s for s in SETTINGS if s in settings)
