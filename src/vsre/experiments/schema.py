"""An experiment: one question, the arms that answer it, and how they are compared; a YAML file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from vsre.train.stages import Strict


class Fraction(Strict):
    """So many of all combinations of a grid's items, chosen so that the effects are told best (design.py).

    `axes` is as in a recipe's grid. An effect is a factor of the models, or two joined by " x ": their interaction.
    `each` is an axis of which every item has at least two arms.
    """

    runs: int = Field(ge=2)
    axes: dict[str, list[dict[str, Any]]]
    effects: list[str]
    each: str | None = None

    @field_validator("axes")
    @classmethod
    def _none_is_empty(cls, axes: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        if not axes or not all(axes.values()):
            raise ValueError("every axis needs items")
        return axes


class Contrast(Strict):
    """Two arms of different variants, each "VARIANT: MODEL", that are compared on the pictures both were tested on.

    `relations`: only statements of these, such as those that one of the two was never trained on.
    """

    before: str
    after: str
    relations: list[str] = []


class Plot(Strict):
    """A figure of every arm: as dots with intervals, or as lines over a factor that is a number.

    `y` are figures of the table (test_g.acc_t, ...). `by` is a factor whose values are a line each.
    """

    kind: Literal["dots", "lines", "sensitivity"]
    name: str
    title: str
    y: list[str] = ["test_g.acc_t"]
    x: str | None = None
    by: str | None = None


class Experiment(Strict):
    """One question as runs of recipes.

    recipe    what all arms share, as in a recipe file; stages and starts by name are the scale's
    variants  by name what is merged over it; each is a recipe of its own, run with every seed
    scales    by name what differs at a scale, merged over the shipped scale of that name
    """

    name: str
    title: str
    question: str
    about: str = ""
    reading: str = Field(default="", description="what would count as an answer, said before it was run")
    seeds: list[int] = [0, 1, 2]
    recipe: dict[str, Any]
    variants: dict[str, dict[str, Any]] = {"main": {}}
    fraction: Fraction | None = None
    scales: dict[str, dict[str, Any]] = {}
    compare: list[Contrast] = []
    plots: list[Plot] = []
    notes: list[str] = []

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("give different seeds, none below 0")
        return seeds

    @field_validator("variants")
    @classmethod
    def _some_variant(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not variants:
            raise ValueError("there must be a variant; leave `variants` out for a single one")
        return variants
