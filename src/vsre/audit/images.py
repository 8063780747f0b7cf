"""Which rows show the same picture, across file names, contents, near copies and pictures made from pictures.

A picture is identified by its file name and, if available, by its content; both join rows to one picture. A file name
with several contents joins them only if they look the same: two drawn worlds number their pictures alike, and a photo
saved again keeps its name. Without looking (`look`), such contents count as different pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from vsre.audit.hashing import Fingerprint, Prints, fingerprint, near, near_pairs
from vsre.audit.rows import Row, Side
from vsre.errors import VsreError
from vsre.files import is_file
from vsre.sources.images import MAX_BYTES
from vsre.triplets import image_content_id, parquet_batches, parquet_schema

_THREADS = 4  # decoding runs outside Python's lock
_AT_ONCE = 64

Progress = Callable[[int], None]
"""Called with the number of pictures processed."""


@dataclass
class Images:
    """What is known about the pictures of both sides after `number_images`.

    `same`: pictures on both sides. `near`: test picture, for those not in `same` -> all its near copies in training,
    each (train picture, mirrored), mirrored ones last.
    `made_from`: test pictures that a train picture was made from, or the other way round. `names`: a name for each.
    """

    names: dict[int, str] = field(default_factory=dict)
    same: set[int] = field(default_factory=set)
    near: dict[int, list[tuple[int, bool]]] = field(default_factory=dict)
    made_from: set[int] = field(default_factory=set)
    by_side: dict[str, set[int]] = field(default_factory=dict)
    with_content: dict[str, int] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    names_of_several: int = 0

    @property
    def trained(self) -> set[int]:
        """Test pictures that training has seen in one form or another."""
        return self.same | self.near.keys() | self.made_from


def number_images(
    sides: tuple[Side, Side],
    folders: Mapping[str, Sequence[Path]],
    *,
    look: bool = True,
    progress: Progress | None = None,
) -> Images:
    """Set `image` of every row of train and test; `folders` holds the image folders of each side by its name.

    With `look`, available pictures (in the folders or in the Parquet files) are fingerprinted and near copies found. A
    picture that is missing or cannot be opened is counted; its rows are still identified by its name.
    """
    images = Images()
    prints = _look(sides, folders, look, images, progress)
    groups = _Groups()
    _join(sides, prints if look else None, groups, images)
    numbers: dict[str, int] = {}
    for side in sides:
        for row in side.rows:
            row.image = numbers.setdefault(groups.find(row.names[0]), len(numbers))
            images.names.setdefault(row.image, row.names[-1].removeprefix("name:"))
        images.by_side[side.name] = {row.image for row in side.rows}
    train, test = (images.by_side[side.name] for side in sides)
    images.same = train & test
    _find_near(sides, prints, images)
    _find_made_from(sides, groups, numbers, images)
    return images


class _Groups:
    """Names joined into groups (union-find); `find` returns the name that represents the group."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        root = name
        while (up := self.parent.setdefault(root, root)) != root:
            root = up
        while self.parent[name] != root:
            self.parent[name], name = root, self.parent[name]
        return root

    def join(self, first: str, second: str) -> None:
        self.parent[self.find(second)] = self.find(first)


def _content(row: Row) -> str | None:
    return next((name for name in row.names if name.startswith("sha256:")), None)


def _name(row: Row) -> str | None:
    return next((name for name in row.names if name.startswith("name:")), None)


def _look(
    sides: Iterable[Side], folders: Mapping[str, Sequence[Path]], look: bool, images: Images, progress: Progress | None
) -> dict[str, Fingerprint]:
    """Return fingerprints by content; the contents of pictures found in a folder are added to their rows' names."""
    prints: dict[str, Fingerprint] = {}
    seen: set[str] = set()
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for side in sides:
            found: dict[str, str] = {}
            jobs = chain(
                _in_folders(side, folders.get(side.name, ()), images), _in_parquet(side, seen if look else None)
            )
            while some := list(islice(jobs, _AT_ONCE)):
                for name, content, mark, why in pool.map(lambda job: _read(job[0], job[1], look), some):
                    if content is not None:
                        found[name] = content
                    if content is not None and mark is not None:
                        prints[content] = mark
                    if why:
                        images.unreadable.append(why)
                done += len(some)
                if progress:
                    progress(done)
            for row in side.rows:
                if _content(row) is None and (content := found.get(_name(row) or "")):
                    row.names = (content, *row.names)
            contents = {content for row in side.rows if (content := _content(row))}
            images.with_content[side.name] = len(contents)
            images.compared[side.name] = len(contents & prints.keys())
    return prints


def _in_folders(side: Side, folders: Sequence[Path], images: Images) -> Iterator[tuple[str, Path | bytes]]:
    for folder in folders:
        if not folder.is_dir():
            raise VsreError(f"{folder}: no such image folder.")
    if not folders:
        return
    below = [*folders, *sorted(p for folder in folders for p in folder.iterdir() if p.is_dir())]
    images.missing[side.name] = 0
    for name in dict.fromkeys(name for row in side.rows if _content(row) is None and (name := _name(row))):
        file = name.removeprefix("name:")
        outside = not file or file.startswith("/") or "\\" in file or ".." in PurePosixPath(file).parts
        path = None if outside else next((f / file for f in below if is_file(f / file)), None)
        if path is None:
            images.missing[side.name] += 1
        else:
            yield name, path


def _in_parquet(side: Side, seen: set[str] | None) -> Iterator[tuple[str, Path | bytes]]:
    for path in side.files:
        if seen is None or path.suffix != ".parquet" or "image" not in parquet_schema(path).names:
            continue
        for batch in parquet_batches(path, ["image_id", "image"], size=64):
            for image_id, image in zip(batch["image_id"].to_pylist(), batch["image"].to_pylist(), strict=True):
                data = image.get("bytes") if isinstance(image, dict) else None
                if image_id not in seen and isinstance(image_id, str) and data:
                    seen.add(image_id)
                    yield image_id, data


def _read(name: str, source: Path | bytes, look: bool) -> tuple[str, str | None, Fingerprint | None, str]:
    """Return (name, content id, fingerprint, what is wrong with the picture)."""
    shown = name.removeprefix("name:")
    try:
        if isinstance(source, Path):
            if source.stat().st_size > MAX_BYTES:
                return name, None, None, f"{shown}: larger than {MAX_BYTES / 1e6:,.0f} MB"
            data = source.read_bytes()
            content = image_content_id(data)
        else:
            data, content = source, name
        return name, content, fingerprint(data, name=shown) if look else None, ""
    except OSError as error:
        return name, None, None, f"{shown}: {error.strerror or error}"
    except VsreError as error:
        return name, content, None, str(error)


def _join(sides: Iterable[Side], prints: dict[str, Fingerprint] | None, groups: _Groups, images: Images) -> None:
    contents: dict[str, set[str]] = {}
    rows = [row for side in sides for row in side.rows]
    for row in rows:
        name, content = _name(row), _content(row)
        if name is not None and content is not None:
            contents.setdefault(name, set()).add(content)
    several = {name for name, found in contents.items() if len(found) > 1 and not _alike(sorted(found), prints)}
    images.names_of_several = len(several)
    for row in rows:
        row.names = tuple(name for name in row.names if name not in several) or row.names
        for name in row.names[1:]:
            groups.join(row.names[0], name)


def _alike(contents: Sequence[str], prints: dict[str, Fingerprint] | None) -> bool:
    """Whether contents under one name look the same as the first; one that cannot be opened counts as the same."""
    if prints is None:
        return False
    first, *others = (prints.get(content) for content in contents)
    return all(first is None or other is None or near(first, other) for other in others)


def _find_near(sides: tuple[Side, Side], prints: dict[str, Fingerprint], images: Images) -> None:
    marks: list[dict[str, int]] = []
    for side, left_out in zip(sides, (frozenset(), images.same), strict=True):
        contents = ((_content(row), row.image) for row in side.rows if row.image not in left_out)
        marks.append({content: image for content, image in contents if content in prints})
    train, test = ((list(m.values()), Prints.of([prints[c] for c in m])) for m in marks)
    for i, j, mirrored in near_pairs(test[1], train[1]):
        images.near.setdefault(test[0][i], []).append((train[0][j], mirrored))


def _find_made_from(sides: tuple[Side, Side], groups: _Groups, numbers: dict[str, int], images: Images) -> None:
    def origins(side: Side) -> Iterator[tuple[int, int]]:
        for row in side.rows:
            if row.made_from is not None:
                yield row.image, numbers.setdefault(groups.find(row.made_from), len(numbers))

    train, test = sides
    trained = images.by_side[train.name] | {origin for _, origin in origins(train)}
    found = {image for image, origin in origins(test) if origin in trained}
    found |= images.by_side[test.name] & {origin for _, origin in origins(train)}
    images.made_from = found - images.same - images.near.keys()
