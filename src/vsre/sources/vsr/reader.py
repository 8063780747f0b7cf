"""From VSR files to a stream of triplets: each row once, with its picture and boxes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vsre.errors import VsreError
from vsre.files import is_file
from vsre.sources.coco import CATEGORY_ID
from vsre.sources.images import PictureTooLarge, load_image, open_header, orientation, upright_bytes
from vsre.sources.vsr.objects import ImageObjects, read_objects
from vsre.sources.vsr.rows import MAX_LINE, Row, read_row, usable_rows
from vsre.sources.vsr.set_aside import SetAside
from vsre.triplets import Box, Triplet, image_content_id

Progress = Callable[[int, int], None]
"""Called with the number of the current image, from 1, and the number of images in all."""


_Place = tuple[Path, int]
"""A file and the number of a row in it, from 1."""


class PictureMissing(VsreError):
    """An image that a row names is in none of the image folders."""


@dataclass
class ReadCounts:
    """Counts of a reading: all rows, including unusable ones; how many repeat an earlier row; and the files that EXIF
    turned.

    `boxes` counts the subjects and objects of the triplets: the box is known, or why it is not.
    """

    rows: int = 0
    duplicates: int = 0
    turned_upright: int = 0
    boxes: Counter[str] = field(default_factory=Counter)


@dataclass
class RowIndex:
    """Where the usable rows of some files are, image by image: the order of reading, without the rows.

    `rows` counts all rows, including unusable ones. `places[image]` lists (number of the file in `files`, row number,
    byte offset): about 200 bytes per row, which is what a reading holds in memory.
    """

    files: list[Path] = field(default_factory=list)
    places: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright picture's encoded bytes and size, and the EXIF orientation (1 to 8) of its file."""

    data: bytes
    width: int
    height: int
    orientation: int


def index_rows(files: Sequence[Path], set_aside: SetAside, classes: Collection[str] = CATEGORY_ID.keys()) -> RowIndex:
    """Check every row and note where the usable ones are; raises VsreError for a missing file."""
    index, before = RowIndex(), set_aside.total
    for number, path in enumerate(map(Path, files)):
        if not path.is_file():
            raise VsreError(f"{path}: no such annotation file.")
        index.files.append(path)
        for row_number, offset, row in usable_rows(path, classes, set_aside):
            index.places.setdefault(row.image, []).append((number, row_number, offset))
    index.rows = set_aside.total - before + sum(map(len, index.places.values()))
    return index


def read_vsr(
    annotations: Sequence[Path],
    images: Sequence[Path] | None = None,
    instances: Sequence[Path] = (),
    *,
    split: str,
    origin: str = "vsr",
    set_aside: SetAside | None = None,
    counts: ReadCounts | None = None,
    classes: Collection[str] = CATEGORY_ID.keys(),
) -> Iterator[Triplet]:
    """The triplets of VSR files as one split, the triplets of an image together, each (image, caption) once.

    `images` are folders that hold the pictures (train2017 and val2017, or one that holds both folders); None gives
    triplets without pictures, known by file name. `instances` are COCO instance annotations or box lines (see
    `read_objects`); a box is given if the image has exactly one object of the class. Rows that cannot be used go to
    `set_aside`; `counts` is filled while reading. Raises VsreError if a file is missing or no row is usable.
    """
    set_aside = set_aside if set_aside is not None else SetAside()
    index = index_rows(annotations, set_aside, classes)
    objects = read_objects(instances, index.places.keys())
    found = False
    for triplet in read_index(
        index,
        images,
        objects,
        split=split,
        origin=origin,
        set_aside=set_aside,
        counts=counts,
        classes=classes,
    ):
        found = True
        yield triplet
    if not found:
        raise set_aside.nothing_usable(", ".join(map(str, annotations)) or "no annotation files given")


def read_index(
    index: RowIndex,
    images: Sequence[Path] | None,
    objects: Mapping[str, ImageObjects],
    *,
    split: str,
    origin: str,
    set_aside: SetAside,
    counts: ReadCounts | None = None,
    classes: Collection[str] = CATEGORY_ID.keys(),
    progress: Progress | None = None,
) -> Iterator[Triplet]:
    """The triplets of indexed rows; one image and its rows are in memory at a time."""
    counts = counts if counts is not None else ReadCounts()
    folders = _with_subfolders(images) if images is not None else None
    counts.rows += index.rows
    seen: dict[str, tuple[bool, _Place]] = {}
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in index.files]
        for done, (name, places) in enumerate(index.places.items(), 1):
            if progress is not None:
                progress(done, len(index.places))
            picture = None
            if folders is not None:
                try:
                    picture = read_picture(_find(name, folders))
                except VsreError as error:
                    for number, row_number, _ in places:
                        set_aside.add(index.files[number], row_number, _picture_reason(error), str(error))
                    continue
                counts.turned_upright += picture.orientation != 1
            for row, rows in _merged(index, places, files, classes, set_aside):
                triplet = _triplet(row, rows, picture, objects.get(name), split, origin, counts)
                # The same picture may be in the folder under two names.
                known, first = seen.get(triplet.key, (None, rows[0]))
                if known not in (None, row.label):
                    _contradicts(set_aside, rows, first, row.caption)
                    continue
                counts.duplicates += len(rows) - (known is None)
                if known is None:
                    seen[triplet.key] = row.label, first
                    yield triplet


def read_picture(path: Path) -> Picture:
    """Read a picture file, decoding it once to check that it can be; it is re-encoded only if EXIF turns it."""
    open_header(path).close()
    data = path.read_bytes()
    with open_header(data, name=str(path)) as header:
        turned, file_format = orientation(header), header.format
    image = load_image(data, name=str(path))
    if turned != 1:
        data = upright_bytes(image, file_format)
    return Picture(data, image.width, image.height, turned)


def _merged(
    index: RowIndex,
    places: Sequence[tuple[int, int, int]],
    files: Sequence[BinaryIO],
    classes: Collection[str],
    set_aside: SetAside,
) -> Iterator[tuple[Row, list[_Place]]]:
    """The rows of one image, each caption once, with every place it appears in."""
    merged: dict[str, tuple[Row, list[_Place]]] = {}
    for number, row_number, offset in places:
        place = index.files[number], row_number
        files[number].seek(offset)
        row = read_row(files[number].readline(MAX_LINE + 1), classes)
        first, rows = merged.setdefault(row.caption, (row, []))
        if first.label == row.label:
            rows.append(place)
        else:
            _contradicts(set_aside, [place], rows[0], row.caption)
    yield from merged.values()


def _contradicts(set_aside: SetAside, rows: Sequence[_Place], first: _Place, caption: str) -> None:
    for path, number in rows:
        set_aside.add(path, number, "label contradicts an earlier row", f"the first is {_shown(first)}", caption)


def _shown(place: _Place) -> str:
    """ "zeroshot/train.jsonl:12"."""
    path, number = place
    return f"{path.parent.name}/{path.name}:{number}"


def _triplet(
    row: Row,
    rows: Sequence[_Place],
    picture: Picture | None,
    objects: ImageObjects | None,
    split: str,
    origin: str,
    counts: ReadCounts,
) -> Triplet:
    provenance: dict[str, Any] = {**row.extra, "rows": [_shown(place) for place in rows], "audit": row.audit}
    width, height = (objects.width, objects.height) if objects is not None else (0, 0)
    if picture is not None:
        width, height = picture.width, picture.height
        if picture.orientation != 1:
            provenance["exif_orientation"] = picture.orientation
    known = _boxes(row, picture, objects, counts)
    return Triplet(
        image_id=image_content_id(picture.data) if picture is not None else f"name:{row.image}",
        image_name=row.image,
        subject=row.subject,
        relation=row.relation,
        object=row.object,
        caption=row.caption,
        label=row.label,
        split=split,
        origin=origin,
        image=picture.data if picture is not None else None,
        width=width,
        height=height,
        subject_box=known[0],
        object_box=known[1],
        provenance=provenance,
    )


def _boxes(
    row: Row, picture: Picture | None, objects: ImageObjects | None, counts: ReadCounts
) -> tuple[Box | None, Box | None]:
    if objects is not None and picture is not None:
        objects = objects.upright(picture.width, picture.height, picture.orientation)
        if objects is None:
            counts.boxes["annotated on a picture of another shape"] += 2
            return None, None
    if objects is None:
        counts.boxes["image without annotation"] += 2
        return None, None
    found = []
    for name in (row.subject, row.object):
        box, why = objects.only_box(name) if row.subject != row.object else (None, "ambiguous: one class twice")
        counts.boxes[why] += 1
        found.append(box)
    return found[0], found[1]


def _with_subfolders(folders: Sequence[Path]) -> list[Path]:
    """The image folders, then the folders in them: `coco/` finds `coco/train2017/` and `coco/val2017/`."""
    for folder in folders:
        if not folder.is_dir():
            raise VsreError(f"{folder}: no such image folder.")
    below = [Path(entry.path) for folder in folders for entry in os.scandir(folder) if entry.is_dir()]
    return [*folders, *sorted(below)]


def _find(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if is_file(folder / name):
            return folder / name
    raise PictureMissing(f"{name} is in none of the image folders")


def _picture_reason(error: VsreError) -> str:
    if isinstance(error, PictureMissing):
        return "image missing"
    return "image too large" if isinstance(error, PictureTooLarge) else "image broken"
