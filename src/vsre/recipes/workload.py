"""How much a recipe asks: the length of its questions and, if the data are available, how many there are.

Tokens are estimated from the packs' wordings of one long statement: four per three words, one per digit or mark.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vsre.recipes.memory import OneSequence
from vsre.recipes.schema import DataSpec, LayoutSource, Recipe, VsrSource
from vsre.recipes.shape import Shape
from vsre.relations.ontology import RELATIONS
from vsre.rewrite import load_pack
from vsre.rewrite.asking import TemplatePack, ask
from vsre.rewrite.questions import some_templates
from vsre.sources.derive import expected
from vsre.sources.scenes import DRAWABLE
from vsre.sources.vsr import find_splits
from vsre.train import Stage
from vsre.triplets import Triplet

CHAT_TOKENS = 12
"""Tokens that a chat template puts around question and answer."""

GENERAL = (24.0, 40.0, 4.0)
"""Tokens of a general question with its answer, on average and at most, and of its answer (zoo.yaml's wordings)."""

SCENE_CAPTIONS = 10.5
"""Captions of a drawn scene, on average over 400, with about equally many of every relation."""

_BOX = (0.12, 0.34, 0.56, 0.78)
LONG = Triplet(
    image_id="",
    image_name="",
    subject="potted plant",
    relation="at the right side of",
    object="dining table",
    caption="The potted plant is at the right side of the dining table.",
    label=False,
    split="train",
    origin="",
    subject_box=_BOX,
    object_box=_BOX,
)


@dataclass(frozen=True)
class Questions:
    """Tokens of one question with its answer, on average and at most, and of its answer at most."""

    mean: float
    longest: float
    learnt: float


@dataclass(frozen=True)
class Counts:
    """Pictures and questions of a data set; for a source its triplets, and how many there are of each relation."""

    pictures: int
    questions: int
    relations: Mapping[str, int] = field(default_factory=dict)


def tokens(text: str) -> float:
    """Estimate how many tokens a text has."""
    return len(re.findall(r"[^\W\d_]+", text)) * 4 / 3 + len(re.findall(r"\d|[^\w\s]", text))


def pack_of(spec: DataSpec, seed: int) -> TemplatePack:
    """Return the templates that a data set's triplets are asked through. Raises VsreError if the pack does not exist or
    has fewer templates than wanted."""
    pack = load_pack(str(spec.pack))
    return pack if spec.templates is None else some_templates(pack, spec.templates, seed)


def question_lengths(spec: DataSpec, seed: int = 0) -> Questions:
    """Return the lengths of a data set's questions. Raises VsreError as `pack_of` does."""
    if spec.pack is None:
        mean, longest, learnt = GENERAL
        return Questions(mean + CHAT_TOKENS, longest + CHAT_TOKENS, learnt)
    asked = [ask(template, LONG) for template in pack_of(spec, seed).templates]
    answers = [tokens(q.answer) + 1 for q in asked]
    whole = [tokens(q.prompt) + a + CHAT_TOKENS for q, a in zip(asked, answers, strict=True)]
    return Questions(sum(whole) / len(whole), max(whole), max(answers))


def source_counts(recipe: Recipe) -> Counts | None:
    """Count the source's training triplets and pictures before the protocol removes any; None if not available."""
    source = recipe.source
    if isinstance(source, VsrSource):
        files = source.train
    elif isinstance(source, LayoutSource):
        try:
            files = find_splits(source.annotations, source.split)["train"]
        except Exception:  # faults of the paths are reported elsewhere
            return None
    else:
        return None
    if not all(file.is_file() for file in files):
        return None
    rows = {(image, caption): relation for file in files for image, caption, relation in _rows(file)}
    return Counts(len({image for image, _ in rows}), len(rows), Counter(rows.values()))


def data_counts(spec: DataSpec, source: Counts | None) -> Counts | None:
    """Estimate the pictures and questions of a data set, None if its triplets are not known.

    A repainted picture counts with one caption, though more may be kept; drawn scenes with their average, and derived
    triplets as if every second one were true and none were there already.
    """
    if spec.general is not None:
        return Counts(spec.general.pictures, spec.general.pictures * spec.general.questions)
    if spec.scenes is not None:
        pictures, each_relation = 2 * spec.scenes.units, 2 * spec.scenes.units * SCENE_CAPTIONS / len(DRAWABLE)
        source = Counts(pictures, round(pictures * SCENE_CAPTIONS), {r: round(each_relation) for r in DRAWABLE})
    if source is None:
        return None
    source = _chosen(spec, source)
    each = spec.per_triplet or spec.templates or len(load_pack(str(spec.pack)).templates)
    if spec.repaint is None:
        return Counts(source.pictures, source.questions * each)
    triplets = min(source.questions, spec.repaint.limit or source.questions)
    painted = triplets * len(spec.repaint.settings) * spec.repaint.per_triplet
    return Counts(painted, painted * each)


def _chosen(spec: DataSpec, source: Counts) -> Counts:
    """Estimate the triplets after `without`, `limit` and `algebra`; `relations` is as before them."""
    left = {relation: rows for relation, rows in source.relations.items() if relation not in spec.without}
    triplets = source.questions - sum(source.relations.values()) + sum(left.values())
    share = min(1.0, (spec.limit or triplets) / max(triplets, 1))
    triplets = round(triplets * share)
    pictures = min(triplets, max(1, round(source.pictures * share)))
    same = mirrored = 0.0
    for relation, rows in left.items():
        per_row = expected(relation, spec.algebra) if spec.algebra and relation in RELATIONS else (0.0, 0.0)
        same, mirrored = same + rows * share * per_row[0], mirrored + rows * share * per_row[1]
    return Counts(pictures * (2 if mirrored else 1), triplets + round(same + mirrored), source.relations)


def longest_sequence(shape: Shape, stage: Stage, lengths: Iterable[Questions]) -> OneSequence:
    """Return the longest sequence that a stage can meet, for which its memory is estimated."""
    found = list(lengths)
    k = questions_a_sequence(shape, stage)
    return OneSequence(
        shape.picture_tokens,
        k * max(q.longest for q in found),
        k * max(q.learnt for q in found),
        packed=k > 1,
    )


def questions_a_sequence(shape: Shape, stage: Stage) -> int:
    """Return how many questions may be in one sequence."""
    return stage.questions_per_image if shape.packs else 1


def _rows(file: Path) -> Iterable[tuple[str, str, str]]:
    """Yield (image, caption, relation) of each row of a VSR file; other lines are skipped (the import counts them)."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                yield str(row["image"]), str(row["caption"]), str(row.get("relation"))
            except (ValueError, KeyError, TypeError):
                continue
