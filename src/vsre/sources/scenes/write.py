"""Write a world to disk in VSR's and COCO's own file formats, so that one reader serves both.

OUT/annotations/PROTOCOL/{train,dev,test}.jsonl   captions as VSR publishes them
OUT/images/*.jpg
OUT/instances.json                                COCO instances: visible boxes, masks as run lengths
OUT/scenes.jsonl                                  the exact scenes, one line per image
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.orphans import end_with_parent
from vsre.relations.grammar import caption
from vsre.relations.ontology import RELATIONS
from vsre.sources.coco import CATEGORY_ID, SUPERCATEGORY
from vsre.sources.images import check_side
from vsre.sources.scenes.compose import DRAWABLE
from vsre.sources.scenes.render import Shape, encode, mask_box, run_lengths
from vsre.sources.scenes.scene import Scene
from vsre.sources.scenes.sprites import check_style, use_style
from vsre.sources.scenes.units import SPLITS, ObjectRange, Statement, World, check_objects, draw_unit

CAPTIONS_PER_IMAGE = 12
MOST_ABOVE_MEAN = 1.5
"""How many times the mean count of a relation the count of any single one may reach."""

_SPLIT_DIGIT = {name: number for number, name in enumerate(SPLITS, start=1)}


def image_number(split: str, index: int, which: int) -> int:
    """The COCO image id of a unit's first or second image: the split's digit, then eight digits."""
    return _SPLIT_DIGIT[split] * 100_000_000 + 2 * index + which


def _instances(scene: Scene, found: list[Shape], image_id: int) -> list[dict[str, Any]]:
    annotations = []
    for number, (placed, shape) in enumerate(zip(scene.objects, found, strict=True)):
        box = mask_box(shape.visible)
        if box is None:
            continue
        x0, y0, x1, y1 = box
        annotations.append(
            {
                "id": image_id * 10 + number,
                "image_id": image_id,
                "category_id": CATEGORY_ID[placed.name],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(shape.visible.sum()),
                "iscrowd": 0,
                "segmentation": {"size": list(shape.visible.shape), "counts": run_lengths(shape.visible)},
            }
        )
    return annotations


@dataclass(frozen=True)
class _Drawn:
    """What one unit adds to the files; lists of two have one entry for each of its images."""

    jpegs: list[bytes]
    scenes: list[dict[str, Any]]
    instances: list[list[dict[str, Any]]]
    statements: list[tuple[Statement, bool]]


@dataclass(frozen=True)
class _Settings:
    """How the units of a split are drawn."""

    world: World
    seed: int
    size: int
    style: str
    objects: ObjectRange | None


def _draw(index: int, how: _Settings) -> _Drawn | None:
    unit = draw_unit(how.world, how.seed, index, size=how.size, objects=how.objects)
    if unit is None:
        return None
    use_style(how.style)  # for the pixels only: positions and truth are those of Twemoji's drawings
    jpegs = [encode(scene) for scene in unit.scenes]
    use_style("twemoji")
    numbers = [image_number(how.world.split, index, which) for which in (0, 1)]
    return _Drawn(
        jpegs=jpegs,
        scenes=[scene.to_json() for scene in unit.scenes],
        instances=[_instances(s, f, n) for s, f, n in zip(unit.scenes, unit.shapes, numbers, strict=True)],
        statements=list(unit.statements),
    )


def _select(statements: list[tuple[Statement, bool]], counts: Counter[str]) -> list[tuple[Statement, bool]]:
    """The target and the statements of the relations that are rarest so far, at most CAPTIONS_PER_IMAGE.

    A relation that is far more common than the mean waits until the others have caught up.
    """
    chosen, rest = statements[:1], statements[1:]
    counts[chosen[0][0][1]] += 1
    limit = 4 + MOST_ABOVE_MEAN * counts.total() / len(DRAWABLE)
    while rest and len(chosen) < CAPTIONS_PER_IMAGE:
        best = min(range(len(rest)), key=lambda i: counts[rest[i][0][1]])
        if counts[rest[best][0][1]] > limit:
            break
        counts[rest[best][0][1]] += 1
        chosen.append(rest.pop(best))
    return chosen


def _row(statement: Statement, label: bool, file_name: str) -> dict[str, Any]:
    subject, relation, object = statement
    votes = ("[1, 2]", "[]") if label else ("[]", "[1, 2]")
    return {
        "image": file_name,
        "image_link": "",
        "caption": caption(subject, relation, object),
        "label": int(label),
        "relation": relation,
        "subj": subject,
        "obj": object,
        "annotator_id": 0,
        "vote_true_validator_id": votes[0],
        "vote_false_validator_id": votes[1],
        "reference_frame": None,
    }


def _units(how: _Settings, numbers: range, workers: int) -> Iterator[_Drawn | None]:
    draw = partial(_draw, how=how)
    if workers <= 1:
        yield from map(draw, numbers)
        return
    # Not forked: the caller may run threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        yield from pool.map(draw, numbers, chunksize=16)


def write_world(
    out: Path,
    *,
    train_units: int,
    dev_units: int,
    test_units: int,
    seed: int,
    size: int = 192,
    split: str = "caption-disjoint",
    test_style: str = "twemoji",
    objects: Mapping[str, ObjectRange] | None = None,
    test_as: tuple[str, int] = ("test", 0),
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw a world and write it under `out`; returns (and writes to summary.json) what was made.

    A unit is two images. `test_style` is the art style of the test split (sprites.STYLES). `objects` gives, by split,
    the minimum and maximum number of things in its scenes (see `draw_unit`). `test_as` is a split and a number: the
    test split is drawn as that split's units from this number on, for example those of training's own classes and
    captions that it never reached. `progress(done, total)` is called after each. The files depend on the other
    arguments only, not on `workers`. Raises VsreError if `out` already holds a world, for a size beyond `images.SIDES`,
    and if `objects` asks for what no scene can have.
    """
    out = Path(out)
    check_side(size)
    check_style(test_style)
    ranges = {name: check_objects(asked) for name, asked in (objects or {}).items()}
    if (out / "instances.json").exists():
        raise VsreError(f"{out}: there is a world here already. Choose another folder or remove this one.")
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "annotations" / split).mkdir(parents=True, exist_ok=True)
    wanted = dict(zip(SPLITS, (train_units, dev_units, test_units), strict=True))
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    things: dict[str, Counter[int]] = {name: Counter() for name in SPLITS}
    images: list[dict[str, Any]] = []
    done, failed = 0, 0
    unfinished = out / "instances.json.tmp"
    with ExitStack() as stack:
        scenes = stack.enter_context((out / "scenes.jsonl").open("w", encoding="utf-8"))
        coco = stack.enter_context(unfinished.open("w", encoding="utf-8"))
        coco.write('{"annotations": [')
        separator = ""
        for name, count in wanted.items():
            file = out / "annotations" / split / f"{name}.jsonl"
            captions = stack.enter_context(file.open("w", encoding="utf-8"))
            counts: Counter[str] = Counter()
            drawn_as, first = test_as if name == "test" else (name, 0)
            style = test_style if name == "test" else "twemoji"
            how = _Settings(World(split, drawn_as), seed, size, style, ranges.get(name))
            numbers = range(first, first + count)
            for index, unit in zip(numbers, _units(how, numbers, workers), strict=True):
                done += 1
                if progress:
                    progress(done, sum(wanted.values()))
                if unit is None:
                    failed += 1
                    continue
                chosen = _select(unit.statements, counts)
                for which in (0, 1):
                    number = image_number(drawn_as, index, which)
                    file_name = f"{number:012d}.jpg"
                    (out / "images" / file_name).write_bytes(unit.jpegs[which])
                    for annotation in unit.instances[which]:
                        coco.write(separator + json.dumps(annotation))
                        separator = ",\n"
                    images.append({"id": number, "file_name": file_name, "width": size, "height": size})
                    scenes.write(json.dumps({"image": file_name, "split": name, **unit.scenes[which]}) + "\n")
                    things[name][len(unit.scenes[which]["objects"])] += 1
                    for statement, truth in chosen:
                        row = _row(statement, truth == (which == 0), file_name)
                        captions.write(json.dumps(row) + "\n")
                        said[name].append(row)
        categories = [{"id": i, "name": n, "supercategory": SUPERCATEGORY[n]} for n, i in CATEGORY_ID.items()]
        coco.write(f'],\n"images": {json.dumps(images)},\n"categories": {json.dumps(categories)}}}\n')
    summary = _summary(split, seed, size, said, len(images), failed) | {"test_style": test_style}
    summary["objects"] = {name: {str(n): k for n, k in sorted(counted.items())} for name, counted in things.items()}
    (out / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    unfinished.rename(out / "instances.json")
    return summary


def _summary(
    protocol: str, seed: int, size: int, rows: dict[str, list[dict[str, Any]]], images: int, failed: int
) -> dict[str, Any]:
    everything = [row for part in rows.values() for row in part]
    relations = Counter(row["relation"] for row in everything)
    return {
        "protocol": protocol,
        "seed": seed,
        "size": size,
        "images": images,
        "captions": {name: len(part) for name, part in rows.items()},
        "units_not_drawn": failed,
        "classes": len({row["subj"] for row in everything} | {row["obj"] for row in everything}),
        "relations": dict(relations.most_common()),
        "meta_categories": dict(Counter(RELATIONS[row["relation"]].meta_category for row in everything)),
        "blind_floor": {name: _blind_floor(rows["train"], rows[name]) for name in ("dev", "test")},
    }


def _blind_floor(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> dict[str, float]:
    """What each guesser that sees no picture reaches; empty if a split is empty."""
    from vsre.diagnose.blind import FITTED, Statement, blind_floor  # the one definition, which knows no scenes

    if not train or not test:
        return {}
    splits = (
        [Statement(r["image"], r["caption"], r["relation"], bool(r["label"])) for r in rows] for rows in (train, test)
    )
    floor = blind_floor(*splits, resamples=1)
    return {name: floor[name]["value"] for name in ("majority", *FITTED)}
