"""Small recipes of one model, and what `check` finds of them."""

from __future__ import annotations

from typing import Any

from vsre.recipes import Recipe
from vsre.recipes.validate import Findings, check


def recipe(models: list[dict[str, Any]], **more: Any) -> Recipe:
    usual: dict[str, Any] = {
        "name": "mine",
        "title": "Mine",
        "source": {"kind": "scenes", "train_units": 4, "test_units": 2},
        "data": {"turn-g": {"pack": "pool"}},
        "models": models,
    }
    return Recipe.model_validate(usual | more)


def model(start: dict[str, Any], **stage: Any) -> dict[str, Any]:
    usual = {"name": "tune", "train": ["adapters", "llm"], "data": ["turn-g"], "batch_images": 8, "max_steps": 2}
    return {"name": "m", "start": start, "stages": [usual | stage]}


def found_in(*models: dict[str, Any], gpus: int = 1, **more: Any) -> Findings:
    return check(recipe(list(models), **more), online=False, gpus=gpus)
