"""General questions inside a recipe: as training data beside spatial ones, and as a measure of what is kept.

Scenes come from the streams the shipped base knows: those it trained on, and the held-out ones of the model cards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vsre.diagnose.bootstrap import Bootstrap
from vsre.recipes.schema import GeneralQuestions
from vsre.zoo.base import POOL_SEED, exchanges, write_general
from vsre.zoo.evaluate import general_hits
from vsre.zoo.pool import make_pool
from vsre.zoo.train import load_settings

NON_SPATIAL = {"presence": 1, "either": 1}
"""Is there a cat? A cat or a dog?"""


def general_mix(spec: GeneralQuestions) -> dict[str, float]:
    """How often each kind of question comes (zoo.yaml)."""
    mix: dict[str, float] = load_settings()["general_data"][spec.kind]["mix"]
    return mix


def general_source(spec: GeneralQuestions, pools: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Write the questions and their pictures to `folder`; returns what was made."""
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
    """Accuracy on two non-spatial questions about each of `pictures` held-out scenes, greedy, in the expected words.

    Returns {"acc_t": {"value", "low", "high", "n"}, and the share for each kind}; the interval is a bootstrap over
    pictures.
    """
    settings = load_settings()
    held_out = settings["held_out_scenes"]
    pool = make_pool(pools, max(pictures, 256), held_out["seed"], settings["size"])
    hits = general_hits(
        model,
        processor,
        pool,
        [exchanges(pool, i, 2, "non-spatial", NON_SPATIAL) for i in range(pictures)],
    )
    image, kinds, right = map(np.array, zip(*hits, strict=True))
    bootstrap, one = Bootstrap(pictures, seed=seed), np.zeros_like(image)
    sums = (bootstrap.per_image(image, one, 1, values) for values in (right.astype(float), np.ones(len(right))))
    return {
        "acc_t": bootstrap.figures(np.divide, *sums).figure(0, len(right)),
        **{str(kind): round(float(right[kinds == kind].mean()), 4) for kind in np.unique(kinds)},
    }
