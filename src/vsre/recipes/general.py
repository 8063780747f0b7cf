"""General questions in a recipe: as training data alongside spatial ones, and as a measure of what a model retains.

Scenes come from the shipped base's streams: those it was trained on, and the held-out ones of the model cards.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from vsre.diagnose.bootstrap import Bootstrap
from vsre.recipes.schema import GeneralQuestions
from vsre.sources.scenes import CLASSES
from vsre.zoo.base import POOL_SEED, exchanges, write_general
from vsre.zoo.evaluate import general_answers, general_hits
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.text import Exchange
from vsre.zoo.train import load_settings

NON_SPATIAL = {"presence": 1, "either": 1}
"""Is there a cat? A cat or a dog?"""
NAMING = {"what_at": 1}
"""What can be found at the top left? A place is given, a name is asked for."""
CAPTION = Exchange("describe", "Describe the picture.", "")
CAPTIONS, CAPTION_TOKENS = 48, 80
"""The most descriptions a model writes, since they are long, and the most tokens of one."""


def general_mix(spec: GeneralQuestions) -> dict[str, float]:
    """Return how often each kind of question occurs (zoo.yaml)."""
    mix: dict[str, float] = load_settings()["general_data"][spec.kind]["mix"]
    return mix


def general_source(spec: GeneralQuestions, pools: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Write the questions and their pictures to `folder`; return what was made."""
    settings = load_settings()
    pool = make_pool(pools, spec.pictures, POOL_SEED, settings["size"])
    mix = general_mix(spec)
    write_general(pool, folder, spec.questions, f"recipe/{seed}", mix)
    return {
        "triplets": len(pool),
        "questions": len(pool) * spec.questions,
        "pack": f"{spec.kind} questions",
        "templates": sorted(mix),
        "seed": seed,
    }


def general_ability(model: Any, processor: Any, pools: Path, pictures: int, seed: int = 0) -> dict[str, Any]:
    """Measure accuracy on two non-spatial questions about each of `pictures` held-out scenes, greedy, in the expected
    words.

    Returns {"acc_t": {"value", "low", "high", "n"}, and the share for each kind}; the interval is a bootstrap over
    pictures.
    """
    pool = _held_out(pools, pictures)
    hits = general_hits(
        model,
        processor,
        pool,
        [exchanges(pool, i, 2, "non-spatial", NON_SPATIAL) for i in range(pictures)],
    )
    image, kinds, right = map(np.array, zip(*hits, strict=True))
    return {
        "acc_t": _mean_over_pictures(image.tolist(), right.astype(float).tolist(), pictures, seed),
        **{str(kind): round(float(right[kinds == kind].mean()), 4) for kind in np.unique(kinds)},
    }


def described(model: Any, processor: Any, pools: Path, pictures: int, seed: int = 0) -> dict[str, Any]:
    """Measure how well things are named in the same held-out scenes: {"naming", "captions"}, bootstrap over pictures.

    "naming": questions on what is at a place, to be answered by its name alone. "captions": F1 of the things that a
    description names against those present, for the first 48 pictures at most; a class named twice counts once.
    """
    pool = _held_out(pools, pictures)
    hits = general_hits(model, processor, pool, [exchanges(pool, i, 1, "naming", NAMING) for i in range(pictures)])
    named = {image: right for image, kind, right in hits if kind in NAMING}
    captions = general_answers(
        model, processor, pool, [(i, CAPTION) for i in range(min(pictures, CAPTIONS))], most=CAPTION_TOKENS
    )
    f1 = [named_things_f1(caption, {fact.name for fact in pool.facts[i]}) for i, caption in enumerate(captions)]
    return {
        "naming": _mean_over_pictures([*named], [float(v) for v in named.values()], pictures, seed),
        "captions": _mean_over_pictures([*range(len(f1))], f1, len(f1), seed),
    }


def named_things_f1(text: str, there: set[str]) -> float:
    """Return 2 |named and there| / (|named| + |there|) of the world's classes; of names at one place, the longest."""
    longest_first = sorted(CLASSES, key=len, reverse=True)
    words = "|".join(re.escape(name) for name in longest_first)
    said = {found.lower() for found in re.findall(rf"\b(?:{words})\b", text, flags=re.IGNORECASE)}
    return 2 * len(said & there) / (len(said) + len(there)) if said or there else 1.0


def _held_out(pools: Path, pictures: int) -> Pool:
    settings = load_settings()
    return make_pool(pools, max(pictures, 256), settings["held_out_scenes"]["seed"], settings["size"])


def _mean_over_pictures(image: list[int], values: list[float], pictures: int, seed: int) -> dict[str, Any]:
    bootstrap = Bootstrap(pictures, seed=seed)
    at, zero = np.array(image, int), np.zeros(len(image), int)
    sums = (bootstrap.per_image(at, zero, 1, v) for v in (np.array(values), np.ones(len(values))))
    return bootstrap.figures(np.divide, *sums).figure(0, len(values))
