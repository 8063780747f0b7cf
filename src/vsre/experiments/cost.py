"""What a model costs: visual tokens, parameters, milliseconds per picture, and training time."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.recipes.schema import ModelSpec
from vsre.recipes.steps import Steps
from vsre.triplets import read_triplets

PICTURES = 16
ROUNDS = 5
QUESTION = "Is there a cat?"


def measure_cost(
    model: ModelSpec, trained: dict[str, Any], triplets: Path, folder: Path, steps: Steps
) -> dict[str, Any]:
    """Measure a trained model once and keep it in FOLDER/step.json; `trained` is what `make_model` returns for `model`.

    {"visual_tokens", "encoders", "adapters", "llm": parameters, "ms_image": median time per picture with one question,
    in groups of 16, under whatever other load this machine has, "train_seconds", "steps": of its own stages}. A model
    that is neither VSRE nor LLaVA has "parameters" instead, and visual tokens of None if its configuration lacks them.
    """
    return steps.once(
        folder,
        model.model_dump(mode="json", include={"start", "stages"}),
        lambda: _measure(trained, triplets),
        f"what {model.name} costs",
    )


def _measure(trained: dict[str, Any], triplets: Path) -> dict[str, Any]:
    from vsre.diagnose import TransformersEngine
    from vsre.diagnose.prompts import Prompt
    from vsre.model import VsreConfig, count_parameters

    engine = TransformersEngine(trained["model"])
    pictures: dict[str, bytes] = {}
    for triplet in read_triplets(triplets):
        if triplet.image is not None and len(pictures) < PICTURES:
            pictures[triplet.image_id] = triplet.image
    if not pictures:
        raise VsreError(f"{triplets}: no picture to time a model with.")
    asked = [(picture, [Prompt(QUESTION)]) for picture in pictures.values()]
    times = []
    for _ in range(ROUNDS + 1):  # the first is a warm-up
        began = time.perf_counter()
        engine.answer(asked)
        times.append(time.perf_counter() - began)
    try:
        parameters = {group: count for group, (count, _) in count_parameters(engine.model).items()}
    except VsreError:
        parameters = {"parameters": sum(p.numel() for p in engine.model.parameters())}
    config = engine.model.config
    tokens = config.image_tokens if isinstance(config, VsreConfig) else getattr(config, "image_seq_length", None)
    stages = trained.get("stages", [])
    return {
        "visual_tokens": tokens,
        **parameters,
        "ms_image": round(1000 * statistics.median(times[1:]) / len(asked), 3),
        "train_seconds": round(sum(stage["train_seconds"] for stage in stages), 1),
        "steps": sum(stage["steps"] for stage in stages),
    }
