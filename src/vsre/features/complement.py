"""Which encoder knows what, in a merged model: each silenced in turn, each left alone, and the attention each gets.

Silenced encoders' features are replaced by their mean over pictures, so that the language model meets nothing
unfamiliar but learns nothing about this picture. A model may have learnt to rely on an encoder that another could
replace, so this shows what the model uses, not what an encoder could have given.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from vsre.diagnose import Prompt, TransformersEngine
from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration
from vsre.rates import share
from vsre.relations.grammar import caption, negated
from vsre.relations.ontology import RELATIONS
from vsre.rewrite import Template, load_pack
from vsre.rewrite.asking import ask, has_boxes
from vsre.rewrite.reading import read_answer
from vsre.sources.images import load_image
from vsre.sources.subset import shares
from vsre.triplets import Triplet, read_triplets


@dataclass(frozen=True)
class Complement:
    """`figures` as JSON; `right`: arm -> whether each question was answered correctly, in the same order."""

    figures: dict[str, Any]
    right: dict[str, list[bool]]


ALL = "all"
_BATCH = 8


def complement(
    engine: TransformersEngine,
    triplets: Path | str,
    *,
    pack: str | Path = "test-s",
    limit: int | None = None,
    attention_of: int = 64,
) -> Complement:
    """Ask a VSRE model every template of a pack about triplets, with each encoder silenced and with each alone.

    `figures`: "accuracy" of each arm with a Wilson interval over questions (which ignores that those about one picture
    are not independent), and by meta category; "errors": for each two of the arms with one encoder alone, the share of
    questions both get wrong over the share either does (Jaccard); "union": the share that at least one encoder alone
    answers correctly (an oracle's), and "union_by_chance" what it would be if their errors were independent: four coins
    reach 94 %; "attention": see `attention_shares`. `limit`: at most this many triplets, chosen as by `spread`. Raises
    VsreError for a model that is no VSRE or has one encoder, and if fewer than two pictures are asked about.
    """
    model = engine.model
    if not isinstance(model, VsreForConditionalGeneration) or len(model.specs) < 2:
        raise VsreError(f"{engine.name}: only a VSRE model of two or more encoders can have one silenced.")
    rows = spread(triplets, limit)
    if not rows:
        raise VsreError(f"{triplets}: no triplets here.")
    if len(pictures := {t.image_id: t for t in rows}) < 2:
        raise VsreError(
            f"{triplets}: these {len(rows)} triplets are about one picture, and an encoder is silenced by its mean "
            "over several. Raise the limit, or give more triplets."
        )
    means = _means(engine, list(pictures.values()))
    names = list(means)
    arms: dict[str, list[str]] = {ALL: []}
    arms |= {f"without {name}": [name] for name in names}
    if len(names) > 2:
        arms |= {f"only {name}": [other for other in names if other != name] for name in names}
    arms["none"] = names
    asked = _questions(rows, pack)
    right: dict[str, list[bool]] = {}
    for arm, silent in arms.items():
        with _silenced(model, {name: means[name] for name in silent}):
            right[arm] = _answered(engine, rows, asked)
    figures: dict[str, Any] = {
        "questions": sum(map(len, asked)),
        "triplets": len(rows),
        "pack": str(pack),
        "accuracy": {arm: share(sum(found), len(found)) for arm, found in right.items()},
        "by_meta_category": _by_category(rows, asked, right),
        **_overlap(names, right),
    }
    if attention_of:
        figures["attention"] = attention_shares(engine, rows[:attention_of], pack)
    return Complement(figures, right)


@contextmanager
def _silenced(model: VsreForConditionalGeneration, means: Mapping[str, torch.Tensor]) -> Iterator[None]:
    if not means:
        yield
        return
    with model.knocked_out(means):
        yield


def spread(triplets: Path | str, limit: int | None) -> list[Triplet]:
    """All triplets, or `limit` of them, of pictures from all over the set, as `vsre.sources.subset` takes them.

    They come picture by picture in the order in which they are taken, so that the first ones are a smaller such part.
    """
    rows = Counter(triplet.image_id for triplet in read_triplets(triplets, images=False))
    wanted = shares(rows, limit, seed=0)
    chosen: dict[str, list[Triplet]] = {image: [] for image in wanted}
    for triplet in read_triplets(triplets):
        if len(mine := chosen.get(triplet.image_id, [])) < wanted.get(triplet.image_id, 0):
            mine.append(triplet)
    return [triplet for mine in chosen.values() for triplet in mine]


def _frames(engine: TransformersEngine, triplets: Iterable[Triplet]) -> torch.Tensor:
    pictures = [load_image(triplet.image or b"", name=triplet.image_name) for triplet in triplets]
    return torch.as_tensor(engine.processor.image_processor(pictures, return_tensors="pt")["pixel_values"])


@torch.no_grad()
def _means(engine: TransformersEngine, triplets: Sequence[Triplet]) -> dict[str, torch.Tensor]:
    """Encoder -> its mean features over these triplets' pictures, shaped like one picture's."""
    sums: dict[str, torch.Tensor] = {}
    for start in range(0, len(triplets), _BATCH):
        frames = _frames(engine, triplets[start : start + _BATCH])
        for name, features in engine.model.encode(frames).items():
            sums[name] = sums.get(name, torch.zeros(())) + features.float().sum(0)
    return {name: total / len(triplets) for name, total in sums.items()}


def _questions(rows: Sequence[Triplet], pack: str | Path) -> list[list[tuple[Prompt, Template]]]:
    """For each triplet, (prompt, template) for every template in which it can be asked."""
    templates = load_pack(pack).templates
    found = []
    for triplet in rows:
        usable = [t for t in templates if has_boxes(triplet) or not t.needs_boxes]
        found.append([(Prompt(ask(t, triplet).prompt, style=t.style), t) for t in usable])
    if not any(found):
        raise VsreError(f"{pack}: none of its templates can be asked about these triplets (they have no boxes).")
    return found


def _answered(
    engine: TransformersEngine, rows: Sequence[Triplet], asked: Sequence[Sequence[tuple[Prompt, Template]]]
) -> list[bool]:
    """Whether each question is answered correctly, in order; an unreadable answer is not."""
    right: list[bool] = []
    for start in range(0, len(rows), engine.batch_images):
        some = range(start, min(start + engine.batch_images, len(rows)))
        replies = engine.answer([(rows[i].image, [prompt for prompt, _ in asked[i]]) for i in some])
        for i, given in zip(some, replies, strict=True):
            said = (rows[i].subject, rows[i].relation, rows[i].object)
            both = {"statement": caption(*said), "negated": negated(*said)}  # an answer may say either
            for reply, (_, template) in zip(given, asked[i], strict=True):
                right.append(read_answer(reply.text or "", template.format, **both).value is rows[i].label)
    return right


def _by_category(
    rows: Sequence[Triplet], asked: Sequence[Sequence[Any]], right: Mapping[str, Sequence[bool]]
) -> dict[str, dict[str, Any]]:
    """Meta category -> arm -> accuracy."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    at = 0
    for triplet, questions in zip(rows, asked, strict=True):
        known = RELATIONS.get(triplet.relation)
        places[known.meta_category if known else "other"] += range(at, at + len(questions))
        at += len(questions)
    return {
        category: {arm: share(sum(found[i] for i in mine), len(mine)) for arm, found in right.items()}
        for category, mine in sorted(places.items())
    }


def _overlap(names: Iterable[str], right: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    alone = {name: right[f"only {name}"] for name in names if f"only {name}" in right}
    if not alone:
        return {}
    errors = {}
    for a, b in combinations(alone, 2):
        both = sum(not x and not y for x, y in zip(alone[a], alone[b], strict=True))
        either = sum(not x or not y for x, y in zip(alone[a], alone[b], strict=True))
        errors[f"{a} ~ {b}"] = round(both / either, 4) if either else None
    union = [any(answers) for answers in zip(*alone.values(), strict=True)]
    missed = math.prod(1 - sum(answers) / len(answers) for answers in alone.values())
    return {"errors": errors, "union": share(sum(union), len(union)), "union_by_chance": round(1 - missed, 4)}


@torch.no_grad()
def attention_shares(
    engine: TransformersEngine, rows: Sequence[Triplet], pack: str | Path = "test-s"
) -> dict[str, Any]:
    """How the attention of the last token before the answer is spread: the mean over layers, heads and triplets.

    "visual" is the share of all visual tokens; "of_visual" is each encoder's share of that and its share of the tokens.
    Attention is not influence: read it together with the accuracies. The model's attention is switched to eager, the
    only one to return its weights, and back.
    """
    model, processor = engine.model, engine.processor
    places = model.fusion.places(model.specs)
    template = load_pack(pack).templates[0]
    before = model.language_model.config._attn_implementation
    model.language_model.set_attn_implementation("eager")
    totals = torch.zeros(len(places), dtype=torch.float64)
    try:
        for triplet in rows:
            said = [{"type": "image"}, {"type": "text", "text": ask(template, triplet).prompt}]
            text = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
            picture = load_image(triplet.image or b"", name=triplet.image_name)
            inputs = processor(images=[picture], text=[text], return_tensors="pt").to(engine.device)
            weights = model(**inputs, output_attentions=True).attentions  # layers of (1, heads, L, L)
            visual = inputs["input_ids"][0] == model.config.image_token_id
            last = torch.stack([layer[0, :, -1].float().mean(0) for layer in weights]).mean(0)  # (L,)
            totals += last[visual].double().cpu()
    finally:
        model.language_model.set_attn_implementation(before)
    shares = totals / len(rows)
    visual_share = float(shares.sum())
    own: defaultdict[str, list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        own[" + ".join(place.encoders)].append(index)
    return {
        "visual": round(visual_share, 4),
        "of_visual": {
            name: {
                "attention": round(float(shares[mine].sum()) / visual_share, 4) if visual_share else None,
                "tokens": round(len(mine) / len(places), 4),
            }
            for name, mine in own.items()
        },
        "triplets": len(rows),
    }
