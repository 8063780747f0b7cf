"""The shipped VSRE: merged, tuned on spatial questions like the ladder's four-encoder rung, and then for longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor

from vsre.recipes import Recipe, load_recipe, run_recipe
from vsre.zoo.base import save_vlm, stage_hours
from vsre.zoo.cards import write_card


def expert_recipe(own: dict[str, Any], out: Path, steps: int | None = None) -> Recipe:
    """The recipe for one model of the recipe that zoo.yaml names, starting from `out`/merged and with `more` stages.

    `steps` cuts all of it down to a trial.
    """
    spec = load_recipe(own["recipe"]).model_dump()
    spec["seed"], spec["models"] = own["seed"], [m for m in spec["models"] if m["name"] == own["model"]]
    (model,) = spec["models"]
    model["against"] = []
    model["start"] = {"checkpoint": str(out / "merged")}
    model["stages"] += own["more"]
    if steps is not None:
        spec["source"] |= {"train_units": 12, "test_units": 3}
        spec["diagnose"] = {"packs": ["test-s"]}
        for data in spec["data"].values():
            if data["general"]:
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
) -> None:
    """Make the trained VSRE in `out`/vsre from `out`/merged; see `train_zoo` for the arguments."""
    own = settings["vsre"]
    recipe = expert_recipe(own, out, steps)
    (model,) = recipe.models
    say(f"vsre: {model.name} of recipe {own['recipe']}, seed {recipe.seed}")
    result = run_recipe(recipe, work / "vsre", console=Console(quiet=True))
    trained = result["trained"][model.name]
    net = AutoModelForImageTextToText.from_pretrained(trained["model"], dtype=torch.float32)
    save_vlm(net, AutoProcessor.from_pretrained(trained["model"]), out / "vsre", half=True)
    made = {
        "data": f"recipe {own['recipe']}, {model.name}, seed {recipe.seed}; caption-disjoint",
        "steps": sum(stage["max_steps"] for stage in model.stages),
        "seed": recipe.seed,
        "hours of training": stage_hours(trained["stages"]),
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
