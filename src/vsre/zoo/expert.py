"""The shipped VSRE: merged, tuned on the spatial questions of a world of its own, by the recipe in zoo.yaml."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor

from vsre.recipes import Recipe, run_recipe
from vsre.recipes.run import folder_name
from vsre.zoo.base import save_vlm
from vsre.zoo.cards import write_card


def expert_recipe(own: dict[str, Any], out: Path, steps: int | None = None) -> Recipe:
    """The recipe of zoo.yaml, on `out`/merged; `steps` cuts every stage and the world down to a trial."""
    spec = json.loads(json.dumps(own["recipe"]))
    (model,) = spec["models"]
    model["start"] = {"checkpoint": str(out / "merged")}
    if steps is not None:
        spec["source"] |= {"train_units": 12, "test_units": 3}
        spec["diagnose"] = {"packs": ["test-s"]}
        for data in spec["data"].values():
            if "general" in data:
                data["general"]["pictures"] = 24
        for stage in model["stages"]:
            stage["max_steps"] = steps
    return Recipe.model_validate(spec)


def train_expert(
    settings: dict[str, Any],
    work: Path,
    out: Path,
    *,
    steps: int | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Make the trained VSRE in `out`/vsre from `out`/merged; see `train_zoo` for the arguments."""
    own = settings["vsre"]
    recipe = expert_recipe(own, out, steps)
    (model,) = recipe.models
    say(f"vsre: {recipe.source.train_units * 2} scenes of seed {recipe.seed}")  # type: ignore[union-attr]
    started = time.monotonic()
    result = run_recipe(recipe, work / "vsre", console=Console(quiet=True))
    trained = work / "vsre" / "models" / folder_name(model.name) / f"{len(model.stages):02d}-{model.stages[-1]['name']}"
    net = AutoModelForImageTextToText.from_pretrained(trained / "model", dtype=torch.float32)
    save_vlm(net, AutoProcessor.from_pretrained(trained / "model"), out / "vsre", half=True)
    made = {
        "data": f"{recipe.source.train_units} units of two scenes (seed {recipe.seed}), caption-disjoint",  # type: ignore[union-attr]
        "steps": sum(stage["max_steps"] for stage in model.stages),
        "seed": recipe.seed,
        "hours of this call": round((time.monotonic() - started) / 3600, 2),
        "torch": torch.__version__,
    }
    (row,) = result["results"]
    figures = {
        f"{name} {part}": round(value, 4)
        for name, figure in row.items()
        if isinstance(figure, dict)
        for part, value in figure.items()
        if value is not None
    }
    write_card(out / "vsre", "vsre", settings=own, made=made, figures=figures)
    say(f"vsre: written to {out / 'vsre'}; {figures}")
    return True
