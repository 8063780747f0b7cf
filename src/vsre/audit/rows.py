"""The two sides of an audit, read from VSR files, triplets or questions, row by row as they are.

Nothing is merged here: a row given twice, or with both labels, is what an audit looks for. A row whose relation or
class vsre does not know is kept too; only the relation algebra skips it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.sources.protocols import SOURCE_IMAGE
from vsre.sources.vsr.rows import Row as VsrRow
from vsre.sources.vsr.rows import UnusableRow, image_below, numbered_lines, read_row
from vsre.sources.vsr.set_aside import SetAside
from vsre.triplets import parquet_batches, parquet_files, parquet_schema, triplet_key

VSR, TRIPLETS, QUESTIONS = "vsr", "triplets", "questions"
_NEEDED = {TRIPLETS: ("image_id", "caption", "label"), QUESTIONS: ("key", "image_id", "prompt", "truth")}
_UNKNOWN = ("unknown relation", "caption does not parse")
_EMPTY = "caption empty"  # a caption without words would be taken for a question
_STATE = 120  # characters kept of a field's value


@dataclass(slots=True)
class Row:
    """One statement about one picture. `words` is the caption without case, spacing and final period; both are empty
    for questions, which are identified by `key` alone. `votes`: how many people said true and false. `image` is the
    number of its picture, assigned by `vsre.audit.images`."""

    file: int
    number: int
    names: tuple[str, ...]
    key: str
    caption: str
    words: str
    label: bool
    relation: str = ""
    subject: str = ""
    object: str = ""
    made_from: str | None = None
    votes: tuple[int, int] | None = None
    image: int = -1


@dataclass
class Side:
    """All rows of the training or the test files. `fields` holds, for each field except the label, one state per row:
    its value in short, None if the row lacks it."""

    name: str
    files: list[Path] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    fields: dict[str, list[str | None]] = field(default_factory=dict)
    set_aside: SetAside = field(default_factory=SetAside)
    repeated_questions: int = 0

    def where(self, row: Row) -> str:
        """Return a row's place, "zeroshot/test.jsonl:12", counted from 1."""
        path = self.files[row.file]
        return f"{path.parent.name}/{path.name}:{row.number}" if path.parent.name else f"{path.name}:{row.number}"

    def add(self, row: Row, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            column = self.fields.setdefault(name, [])
            column.extend([None] * (len(self.rows) - len(column)))
            column.append(sys.intern(state(value)))
        self.rows.append(row)

    def column(self, name: str) -> list[str | None]:
        found = self.fields.get(name, [])
        return found + [None] * (len(self.rows) - len(found))


def read_side(name: str, paths: Sequence[Path | str]) -> Side:
    """Read the rows of files and folders; `name` is train or test, and picks that split of a folder with several.

    Raises VsreError for paths that do not exist, are not data, or have no usable row.
    """
    side = Side(name)
    side.files = side_files(name, paths)
    for number, file in enumerate(side.files):
        side.kinds.append(kind_of(file))
        if side.kinds[-1] == VSR:
            _read_vsr(side, number, file)
        else:
            _read_parquet(side, number, file)
    if not side.rows:
        raise side.set_aside.nothing_usable(", ".join(map(str, side.files)) or f"no {name} files given")
    return side


def side_files(name: str, paths: Sequence[Path | str]) -> list[Path]:
    """Return the files of a side, train or test; raises VsreError for paths that do not exist or are not data."""
    return [file for path in paths for file in _files(Path(path), name)]


def kind_of(file: Path) -> str:
    """Return VSR, TRIPLETS or QUESTIONS, by suffix and columns; raises VsreError for any other Parquet file."""
    if file.suffix != ".parquet":
        return VSR
    columns = parquet_schema(file).names
    kind = QUESTIONS if "prompt" in columns and "caption" not in columns else TRIPLETS
    missing = [name for name in _NEEDED[kind] if name not in columns]
    if missing:
        raise VsreError(f"{file}: neither triplets nor questions; it lacks the columns {', '.join(missing)}.")
    return kind


def words(caption: str) -> str:
    """Return the caption as it is compared: without case, runs of spaces and the final period."""
    return " ".join(caption.split()).removesuffix(".").rstrip().casefold()


def state(value: Any) -> str:
    """Return a field's value in short; lists (also ones written as text, as VSR's votes are) by their length."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value[:_STATE]
    if value is None or value == "":
        return "empty"
    if isinstance(value, list):
        return f"list of {len(value)}"
    if isinstance(value, dict):
        return f"object of {len(value)}"
    return str(value)[:_STATE]


def _files(path: Path, side: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise VsreError(f"{path}: no such file or folder.")
    if any((path / side).glob("*.parquet")):
        return parquet_files(path / side)
    if any(path.glob("*.parquet")):
        return parquet_files(path)
    if (path / f"{side}.jsonl").is_file():
        return [path / f"{side}.jsonl"]
    others = sorted(p.name for p in path.glob("*.jsonl"))
    if others:
        raise VsreError(f"{path}: no {side}.jsonl here. Name the files of the {side} side: {', '.join(others[:6])}.")
    raise VsreError(
        f"{path}: neither Parquet files nor a {side} split nor {side}.jsonl here. "
        f"Name a VSR JSONL file, or a folder that `vsre vsr`, `vsre scenes` or `vsre rewrite` wrote."
    )


def _read_vsr(side: Side, file: int, path: Path) -> None:
    with path.open("rb") as lines:
        for number, _, line in numbered_lines(lines):
            try:
                known = _known(line)
                # What _known took is JSON with image, caption and label.
                fields = json.loads(line.decode("utf-8-sig"), parse_constant=lambda _: None)
                image, caption = image_below(fields["image"]), fields["caption"]
                if not words(caption):
                    raise UnusableRow(_EMPTY, repr(caption[:60]))
            except UnusableRow as why:
                side.set_aside.add(path, number, why.reason, why.detail, line[:2000].decode(errors="replace"))
                continue
            row = Row(
                file,
                number,
                (f"name:{image}",),
                triplet_key(f"name:{image}", caption),
                caption,
                words(caption),
                bool(fields["label"]),
                sys.intern(fields["relation"]),
                votes=_votes(fields),
            )
            if known is not None:
                row.subject, row.object = sys.intern(known.subject), sys.intern(known.object)
            side.add(row, _described({k: v for k, v in fields.items() if k != "label"}, image, caption))


def _known(line: bytes) -> VsrRow | None:
    """Return the row as the VSR reader takes it, None if vsre does not know its relation or form of caption."""
    try:
        return read_row(line, None)
    except UnusableRow as why:
        if why.reason in _UNKNOWN:
            return None
        raise


def _read_parquet(side: Side, file: int, path: Path) -> None:
    read = _read_questions if side.kinds[file] == QUESTIONS else _read_triplets
    wanted = [name for name in parquet_schema(path).names if name not in ("image", "subject_box", "object_box")]
    number = 0
    for batch in parquet_batches(path, wanted, size=4096):
        rows = batch.to_pylist()
        read(side, file, path, number, rows)
        number += len(rows)


def _read_triplets(side: Side, file: int, path: Path, before: int, rows: list[dict[str, Any]]) -> None:
    for number, values in enumerate(rows, before + 1):
        image_id, caption, label = values["image_id"], values["caption"], values["label"]
        if not isinstance(image_id, str) or not isinstance(caption, str) or label not in (True, False):
            side.set_aside.add(path, number, "field missing", "`image_id`, `caption` or `label` is null or mistyped")
            continue
        if not words(caption):
            side.set_aside.add(path, number, _EMPTY, repr(caption[:60]))
            continue
        name = values.get("image_name") or ""
        provenance = _json(values.get("provenance"))
        source = provenance.get(SOURCE_IMAGE)
        audit = provenance.get("audit")
        row = Row(
            file,
            number,
            (image_id, f"name:{name}") if name and image_id != f"name:{name}" else (image_id,),
            triplet_key(image_id, caption),
            caption,
            words(caption),
            bool(label),
            relation=sys.intern(values.get("relation") or ""),
            subject=sys.intern(values.get("subject") or ""),
            object=sys.intern(values.get("object") or ""),
            made_from=source if isinstance(source, str) else None,
            votes=_votes(audit) if isinstance(audit, dict) else None,
        )
        fields = {k: v for k, v in values.items() if k not in ("label", "provenance")}
        for key, value in provenance.items():
            inner = value if isinstance(value, dict) else {}
            fields |= {f"provenance.{key}.{k}": v for k, v in inner.items()} or {f"provenance.{key}": value}
        side.add(row, _described(fields, name, caption))


def _read_questions(side: Side, file: int, path: Path, before: int, rows: list[dict[str, Any]]) -> None:
    """Read questions. A triplet asked through many templates is one row: the statement is the same."""
    seen = {row.key for row in side.rows if not row.words}
    for number, values in enumerate(rows, before + 1):
        key, image_id, label = values["key"], values["image_id"], values["truth"]
        if not isinstance(key, str) or not isinstance(image_id, str) or label not in (True, False):
            side.set_aside.add(path, number, "field missing", "`key`, `image_id` or `truth` is null or mistyped")
        elif key in seen:
            side.repeated_questions += 1
        else:
            seen.add(key)
            side.rows.append(Row(file, number, (image_id,), key, "", "", bool(label)))


def _described(fields: dict[str, Any], image: str, caption: str) -> dict[str, Any]:
    """Return the fields, and what the picture's name and the caption's spelling may give away."""
    text = caption.strip()
    folder, _, file = image.rpartition("/")
    return fields | {
        "image's folder": folder,
        "image's ending": file.rpartition(".")[2].lower() if "." in file else "",
        "caption's writing": f"{'capital' if text[:1].isupper() else 'small'} first, ends with {text[-1:]!r}"
        if text[-1:] in ".!?"
        else f"{'capital' if text[:1].isupper() else 'small'} first, ends without a mark",
    }


def _json(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) and text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _votes(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    counts = []
    for name in ("vote_true_validator_id", "vote_false_validator_id"):
        value = fields.get(name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if not isinstance(value, list):
            return None
        counts.append(len(value))
    return (counts[0], counts[1]) if sum(counts) else None


def doubled(rows: Sequence[Row]) -> int:
    """Count the rows that repeat an earlier row: the same picture and caption."""
    return len(rows) - len(Counter(identity(row) for row in rows))


def identity(row: Row) -> tuple[int, str] | str:
    """Return what makes two rows the same: picture and caption, or the key if the caption is not known."""
    return (row.image, row.words) if row.words else row.key
