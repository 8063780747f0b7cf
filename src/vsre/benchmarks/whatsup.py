"""What's Up: photographs of one thing on, under, left of, right of, behind or in front of another, and captions for
each.

Format (amitakamath/whatsup_vlms, dataset_zoo/aro_datasets.py): a folder `data` with any of
`controlled_images_dataset.json` and `controlled_clevr_dataset.json` (Controlled A and B: image_path, caption_options),
`coco_qa_{one,two}_obj.json` and `vg_qa_{one,two}_obj.json` ([image id, right caption, wrong caption]), beside
`controlled_images/`, `controlled_clevr/`, `val2017/` and `vg_images/`. The first caption is the right one in every
file.

Rule (arXiv 2310.19785): each caption is scored against the picture, the highest wins. The repository scores with
image-text similarity, which a generative model does not have: here its score of a caption is the caption's
log-likelihood given the picture; length-normalised ones are given alongside. Controlled A and B also give the share of
pairs (left and right; on and under, or in front and behind) and of sets of four with all four right. Table 1 of the
paper has means over the files of Controlled, COCO and GQA (their vg files).

For generation, captions are in an order drawn from the row's own content, the same in every run: as the first is always
right, a model that always says A would otherwise be right every time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vsre.benchmarks.benchmark import Benchmark, Right
from vsre.benchmarks.item import Item, lettered
from vsre.benchmarks.rows import Row, Unusable, clean, json_elements
from vsre.benchmarks.shares import Share, Shares, all_right, average, in_groups
from vsre.benchmarks.source import Source
from vsre.errors import VsreError

FILES = {
    "controlled_images_dataset.json": "Controlled A",
    "controlled_clevr_dataset.json": "Controlled B",
    "coco_qa_one_obj.json": "COCO one object",
    "coco_qa_two_obj.json": "COCO two objects",
    "vg_qa_one_obj.json": "GQA one object",
    "vg_qa_two_obj.json": "GQA two objects",
}
PAIRS = (("left", "right"), ("on", "under"), ("in-front", "behind"))
_MEANS = ("Controlled", "COCO", "GQA")
_RELATION = re.compile(r"\b(left|right|under|front|behind|above|below|top|bottom|on)\b")
_FOLDERS = ("controlled_images", "controlled_clevr", "val2017", "vg_images")
_ASK = "Which of these captions describes the picture?"
_SAY = "Describe in one sentence where things are in the picture."


def rows(source: Source) -> Iterator[Row]:
    files = [source.path] if source.path.is_file() else [source.path / name for name in FILES]
    files = [file for file in files if file.is_file()]
    if source.hub or not files:
        raise VsreError(f"{source.name}: none of {', '.join(FILES)} here. {source.wants}")
    for file in files:
        try:
            for number, element in enumerate(json_elements(file), 1):
                values = element if isinstance(element, dict) else {}
                yield Row(str(file), number, values, tuple(element) if isinstance(element, list) else ())
        except (OSError, UnicodeDecodeError) as error:
            raise VsreError(f"{file}: cannot be read ({error}). Copy or download it again.") from error


def item(row: Row, source: Source) -> Item | None:
    name = PurePosixPath(row.file.replace("\\", "/"))
    subset = FILES.get(name.name, name.stem)
    if row.cells:
        if len(row.cells) < 3:
            raise Unusable("not an image id with two captions", str(row.cells)[:80])
        value, captions = _numbered(row.cells[0], subset), row.cells[1:3]
    elif lacks := [field for field in ("image_path", "caption_options") if field not in row.values]:
        raise Unusable("lacks a field", ", ".join(lacks))
    else:
        value, captions = row.need("image_path"), row.list_of_text("caption_options")
    captions = tuple(clean(caption) for caption in captions)
    if len(set(captions)) != len(captions) or not all(captions):
        raise Unusable("a caption is empty or stands twice", str(captions)[:80])
    picture = source.picture(row, value, folders=_FOLDERS)
    key = f"{subset}/{row.number}"
    order = np.random.default_rng(list((key + captions[0]).encode())).permutation(len(captions))
    options = tuple(captions[i] for i in order)
    says = tuple(_relation(caption) for caption in options)
    pair, group = _place(str(value), subset)
    return Item(
        key=key,
        picture=picture,
        options=options,
        answer=int(np.flatnonzero(order == 0)[0]),
        prompt=lettered(_ASK, options),
        bare=_SAY,
        group=group or key,
        category=f"{subset}: {_relation(captions[0])}",
        says=says,
        extra={"subset": subset, "relation": pair},
    )


def _numbered(number: Any, subset: str) -> str:
    said = str(number)
    if not said.isdigit():
        raise Unusable("the image id is no number", said[:40])
    return f"{said.zfill(12)}.jpg" if subset.startswith("COCO") else f"{said}.jpg"


def _relation(caption: str) -> str:
    """The preposition of a caption; the caption itself if it has none of them."""
    found = _RELATION.findall(caption.lower())
    return found[-1] if found else caption.lower()


def _place(name: str, subset: str) -> tuple[str, str]:
    """(relation, group) of a Controlled picture named FIRST_RELATION_..._SECOND; empty for others."""
    parts = PurePosixPath(name).stem.split("_")
    if not subset.startswith("Controlled") or len(parts) < 3 or parts[1] not in {r for pair in PAIRS for r in pair}:
        return "", ""
    return parts[1], f"{subset}/{parts[0]}/{parts[-1]}"


def aggregate(items: Sequence[Item], right: Right, shares: Shares) -> dict[str, Share]:
    found = {"accuracy": shares.mean((i, right.get(i.key)) for i in items)}
    subsets = {
        name: shares.mean((i, right.get(i.key)) for i in items if i.extra["subset"] == name)
        for name in dict.fromkeys(i.extra["subset"] for i in items)
    }
    found |= subsets
    for name in _MEANS:
        parts = [share for subset, share in subsets.items() if subset.startswith(name) and share]
        if len(parts) > 1:
            found[f"{name} mean"] = average(parts)
    for name in [s for s in subsets if s.startswith("Controlled")]:
        sets = [g for g in in_groups(i for i in items if i.extra["subset"] == name) if g[0].extra["relation"]]
        for what, units in (("pairs", [p for g in sets for p in _pairs(g)]), ("sets", [g for g in sets if _whole(g)])):
            found[f"{name} {what}"] = shares.mean((u[0], all_right([right.get(i.key) for i in u])) for u in units)
    return found


def _pairs(group: Sequence[Item]) -> list[list[Item]]:
    by_relation = {i.extra["relation"]: i for i in group}
    return [[by_relation[a], by_relation[b]] for a, b in PAIRS if a in by_relation and b in by_relation]


def _whole(group: Sequence[Item]) -> bool:
    return len(group) == 4 and len(_pairs(group)) == 2


def gaps(items: Sequence[Item]) -> dict[str, int]:
    groups = in_groups(i for i in items if i.extra["relation"])
    lacking = sum(not _whole(group) for group in groups)
    return {
        "sets without all four pictures, which are not in the share of sets": lacking,
        "Controlled pictures whose names tell no set, which are in no pair or set": sum(
            i.extra["subset"].startswith("Controlled") and not i.extra["relation"] for i in items
        ),
    }


WHATS_UP = Benchmark(
    name="whats-up",
    title="What's Up",
    about="pictures with captions that differ in a preposition; the model must prefer the true one",
    wants="the repository's data folder (its JSON files with the folders of pictures beside them), or one of the files",
    source="amitakamath/whatsup_vlms on GitHub links the files",
    citation="arXiv 2310.19785",
    official=("likelihood_sum",),
    rule="the caption with the highest score given the picture; a generative model's score is its log-likelihood",
    rows=rows,
    item=item,
    aggregate=aggregate,
    kind=lambda item: item.extra["subset"],  # the category contains the true caption's relation
    gaps=gaps,
)
