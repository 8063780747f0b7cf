"""What is on both sides of a split: rows, pictures, captions; and rows that contradict each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from vsre.audit.derived import derive
from vsre.audit.images import Images
from vsre.audit.rows import Row, Side, doubled, identity

EXAMPLES = 3

MEANING = {
    "verbatim_rows": "test rows that are in training: the same picture and caption",
    "near_rows": "test rows whose caption is in training with a near copy of the picture",
    "derived_rows": "test rows that follow from training rows about the same picture by the relation algebra",
    "same_images": "test pictures that are trained on",
    "near_images": "test pictures with a near copy in training: saved again, resized, toned or mirrored",
    "made_from_images": "test pictures that were made into training pictures, or from them",
    "same_captions": "test rows whose caption is in training, with any picture",
    "one_label_captions": "test rows whose caption has only one label on training's other pictures",
    "conflicts_between": "test rows that are in training with the other label",
    "conflicts_in_train": "training rows whose picture and caption have both labels",
    "conflicts_in_test": "test rows whose picture and caption have both labels",
    "repeated_in_train": "training rows that repeat an earlier training row",
    "repeated_in_test": "test rows that repeat an earlier test row",
}
"""The findings by their keys, and what each counts."""

Finding = dict[str, Any]


class Known:
    """Training rows by what makes rows the same: picture and caption, or the key if one of the two is a question."""

    def __init__(self, train: Iterable[Row]) -> None:
        self._same: dict[tuple[int, str] | str, list[Row]] = defaultdict(list)  # questions by their key
        self._stated: dict[str, list[Row]] = defaultdict(list)  # the others by theirs
        for row in train:
            self._same[identity(row)].append(row)
            if row.words:
                self._stated[row.key].append(row)

    def rows(self, row: Row) -> list[Row]:
        """Return the training rows that say what this row says."""
        other = self._same if row.words else self._stated
        return self._same.get(identity(row)) or other.get(row.key) or []


def findings(train: Side, test: Side, images: Images) -> dict[str, Finding]:
    """Return all findings of MEANING: `count`, `of`, `share`, `meaning`, `examples`, and each one's own details."""
    rows = test.rows
    known = Known(train.rows)
    sources = [known.rows(row) for row in rows]
    verbatim = [(row, found) for row, found in zip(rows, sources, strict=True) if found]
    agreeing = sum(any(s.label == row.label for s in found) for row, found in verbatim)
    against = [(row, [s for s in found if s.label != row.label]) for row, found in verbatim]
    contradicted = [(row, found) for row, found in against if found]

    def finding(name: str, pairs: Sequence[tuple[Row, Sequence[Row]]], **more: Any) -> Finding:
        chosen = [_example(test, row, train, found[0] if found else None) for row, found in pairs[:EXAMPLES]]
        return _finding(name, len(pairs), len(rows), chosen, **more)

    captions, one_label = _captions(train.rows, rows)
    return {
        "verbatim_rows": finding("verbatim_rows", verbatim, same_label=agreeing, other_label=len(contradicted)),
        "near_rows": finding("near_rows", _near_rows(train.rows, rows, images)),
        "derived_rows": _derived(train, test),
        **_pictures(train, test, images),
        "same_captions": finding(
            "same_captions", captions, captions=len({row.words for row, _ in captions}),
            of_captions=len({row.words for row in rows if row.words}),
        ),
        "one_label_captions": finding(
            "one_label_captions",
            one_label,
            label_repeated=sum(row.label == found[0].label for row, found in one_label),
            label_reversed=sum(row.label != found[0].label for row, found in one_label),
        ),
        "conflicts_between": finding("conflicts_between", contradicted),
        **{f"conflicts_in_{side.name}": _conflicts(side) for side in (train, test)},
        **{f"repeated_in_{side.name}": _repeated(side) for side in (train, test)},
    }  # fmt: skip


def _finding(name: str, count: int, of: int, examples: list[dict[str, Any]], **more: Any) -> Finding:
    share = count / of if of else 0.0
    return {"count": count, "of": of, "share": share, **more, "meaning": MEANING[name], "examples": examples}


def _near_rows(train: Iterable[Row], test: Iterable[Row], images: Images) -> list[tuple[Row, list[Row]]]:
    """Pair test rows with training rows of the same caption on a near copy. Mirrored copies do not count: a caption
    stays true of them only if it does not involve left and right."""
    said = {identity(row): row for row in train if row.words}
    pairs = []
    for row in test:
        copies = [other for other, mirrored in images.near.get(row.image, ()) if not mirrored]
        if found := [said[other, row.words] for other in copies if (other, row.words) in said]:
            pairs.append((row, found))
    return pairs


def _derived(train: Side, test: Side) -> Finding:
    found, contradictory = derive(train.rows, test.rows)
    grades = Counter(way.grade for way in found)
    rules: dict[str, dict[str, int]] = {}
    for way in found:
        entry = rules.setdefault(f"{way.rule} ({way.grade})", {"rows": 0, "label_agrees": 0})
        entry["rows"] += 1
        entry["label_agrees"] += way.label == way.row.label
    examples = [
        _example(test, way.row, train, way.source) | {"rule": way.rule, "grade": way.grade, "derived_label": way.label}
        for way in found[:EXAMPLES]
    ]
    return _finding(
        "derived_rows", len(found), len(test.rows), examples, label_agrees=sum(w.label == w.row.label for w in found),
        by_grade={grade: grades[grade] for grade in ("sound", "frame", "loose")},
        by_rule=dict(sorted(rules.items(), key=lambda item: -item[1]["rows"])), contradictory=contradictory,
    )  # fmt: skip


def _pictures(train: Side, test: Side, images: Images) -> dict[str, Finding]:
    rows = Counter(row.image for row in test.rows)
    of = len(images.by_side[test.name])

    def finding(name: str, found: Iterable[int], **more: Any) -> Finding:
        found = sorted(found)
        shown = [
            {"image": images.names[i]}
            | ({"train_image": images.names[images.near[i][0][0]]} if i in images.near else {})
            for i in found[:EXAMPLES]
        ]
        return _finding(name, len(found), of, shown, rows=sum(rows[image] for image in found), **more)

    return {
        "same_images": finding("same_images", images.same),
        "near_images": finding(
            "near_images", images.near, mirrored=sum(all(m for _, m in copies) for copies in images.near.values())
        ),
        "made_from_images": finding("made_from_images", images.made_from),
    }


def _captions(train: Iterable[Row], test: Iterable[Row]) -> tuple[list[tuple[Row, list[Row]]], ...]:
    """Return test rows whose caption is trained on, and those where it has one label on training's other pictures."""
    by_words: dict[str, list[Row]] = defaultdict(list)
    for row in train:
        if row.words:
            by_words[row.words].append(row)
    seen = [(row, by_words[row.words]) for row in test if row.words in by_words]
    others = ((row, [s for s in found if s.image != row.image]) for row, found in seen)
    return seen, [(row, found) for row, found in others if len({s.label for s in found}) == 1]


def _conflicts(side: Side) -> Finding:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in side.rows:
        groups[identity(row)].append(row)
    both = [found for found in groups.values() if len({row.label for row in found}) > 1]
    shown = [{"rows": [side.where(row) for row in found[:6]], "caption": found[0].caption} for found in both[:EXAMPLES]]
    count = sum(map(len, both))
    return _finding(f"conflicts_in_{side.name}", count, len(side.rows), shown, pairs=len(both))


def _repeated(side: Side) -> Finding:
    first: dict[Any, Row] = {}
    again = [(row, old) for row in side.rows if (old := first.setdefault(identity(row), row)) is not row]
    shown = [
        {
            "rows": [side.where(old), side.where(row)],
            "image": row.names[-1].removeprefix("name:"),
            "caption": row.caption,
        }
        for row, old in again[:EXAMPLES]
    ]
    return _finding(f"repeated_in_{side.name}", doubled(side.rows), len(side.rows), shown)


def _example(test: Side, row: Row, train: Side, source: Row | None) -> dict[str, Any]:
    shown = {
        "test": test.where(row),
        "image": row.names[-1].removeprefix("name:"),
        "caption": row.caption or row.key,
        "label": row.label,
    }
    if source is None:
        return shown
    more = {"train": train.where(source), "train_label": source.label}
    return shown | more | ({"train_caption": source.caption} if source.caption not in ("", row.caption) else {})
