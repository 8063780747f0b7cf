"""An experiment: one question, the arms that answer it, and how they are compared; a YAML file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vsre.recipes.data_options import RelationNames
from vsre.recipes.near import nearest
from vsre.train.stages import Strict


class Fraction(Strict):
    """A given number of all combinations of a grid's items, chosen to estimate the effects best (design.py).

    `axes` is as in a recipe's grid. An effect is a factor of the models, or two joined by " x ": their interaction.
    `whole` names an item of some axes: all combinations that have these are included.
    """

    runs: int = Field(ge=2)
    axes: dict[str, list[dict[str, Any]]]
    effects: list[str]
    whole: dict[str, str] = {}

    @field_validator("axes")
    @classmethod
    def _none_is_empty(cls, axes: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        if not axes or not all(axes.values()):
            raise ValueError("every axis needs items")
        return axes

    @model_validator(mode="after")
    def _whole_is_of_axes(self) -> Fraction:
        for axis, item in self.whole.items():
            if axis not in self.axes:
                raise ValueError(f"whole: {axis!r} is not an axis. {nearest(axis, self.axes)}")
            names = [str(given.get("name", "")) for given in self.axes[axis]]
            if item not in names:
                raise ValueError(f"whole: no item of {axis} is called {item!r}. {nearest(item, names)}")
        return self


Tested = Literal["test_s", "test_g", "unseen"]
"""The figures that are tested; `vsre.report.seeds` has their titles."""


class Contrast(Strict):
    """Two arms, each "VARIANT: MODEL", tested on the same pictures and compared on them.

    `relations`: only statements of these, such as ones that one of the two was never trained on; `but`: of all others,
    to see how far the two trainings differ anyway. `trained`: only statements that are, picture and caption, in the
    training split of `after`'s recipe; false: only the others. `secondary`: does not decide the question, so its tests
    are corrected apart from the primary ones. `together`: a name; comparisons that share it are also pooled into one
    over all their statements, which is not secondary.
    """

    before: str
    after: str
    relations: RelationNames = []
    but: RelationNames = []
    trained: bool | None = None
    secondary: bool = False
    together: str = ""

    @property
    def about(self) -> tuple[Any, ...]:
        """What is tested: comparisons that agree in this are the same."""
        return self.before, self.after, frozenset(self.relations), frozenset(self.but), self.trained

    @model_validator(mode="after")
    def _of_two(self) -> Contrast:
        if self.before == self.after:
            raise ValueError(f"{self.before!r} is compared with itself: `before` and `after` are two arms")
        if self.relations and self.but:
            raise ValueError("`relations` names statements, `but` leaves some out: give one of the two")
        return self


class Plot(Strict):
    """A plot of figures of every arm: as dots with intervals, or as lines over a numeric factor.

    `y` are figures of the table (test_g.acc_t, ...). `by` is a factor with a line for each of its values. The kinds
    differences and effects draw the rows for `y` of the report's tables of that name, so `y` must be tested figures;
    cost draws its first one against visual tokens, parameters, milliseconds and training hours.
    """

    kind: Literal["dots", "lines", "sensitivity", "differences", "effects", "cost"]
    name: str
    title: str
    y: list[str] = Field(default=["test_g.acc_t"], min_length=1)
    x: str | None = None
    by: str | None = None

    @field_validator("name")
    @classmethod
    def _name_names_a_file(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{name!r} has to name a file, NAME.png: only letters, digits, _, - and ., no . first")
        return name

    @model_validator(mode="after")
    def _over_a_factor(self) -> Plot:
        if self.kind == "lines" and self.x is None:
            raise ValueError("lines are drawn over a factor: give its name as `x`")
        return self

    @model_validator(mode="after")
    def _of_what_is_tested(self) -> Plot:
        tested = [f"{name}.acc_t" for name in get_args(Tested)]
        if self.kind in ("differences", "effects", "cost") and (
            other := [name for name in self.y if name not in tested]
        ):
            raise ValueError(f"y: {', '.join(other)} is not tested; {self.kind} can be drawn of {', '.join(tested)}")
        return self


class Experiment(Strict):
    """One question as runs of recipes.

    recipe    what all arms share, as in a recipe file; stages and starts used by name come from the scale
    variants  by name, what is merged over it; each is a recipe of its own, run with every seed
    primary   figures that decide: their rows are corrected for each other, not for those of secondary figures
    scales    by scale, what is merged over that scale; its `variants` are merged over those of the same name, and new
              ones are run at that scale only
    """

    name: str
    title: str
    question: str
    about: str = ""
    reading: str = Field(default="", description="what would count as an answer, written before it was run")
    primary: list[Tested] = Field(
        default=["test_s", "test_g", "unseen"], min_length=1, description="the figures that decide"
    )
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

    @field_validator("recipe", "variants", "scales")
    @classmethod
    def _seeds_are_the_experiments(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        recipes = [given] if info.field_name == "recipe" else given.values()
        if any("seed" in recipe for recipe in recipes):
            raise ValueError("every variant is run with each of the experiment's `seeds`: leave `seed` out")
        return given

    @field_validator("variants")
    @classmethod
    def _some_variant(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not variants:
            raise ValueError("there must be a variant; leave `variants` out for a single one")
        return variants

    @field_validator("scales")
    @classmethod
    def _variants_are_mappings(cls, scales: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, at in scales.items():
            variants = at.get("variants", {})
            if not isinstance(variants, dict) or not all(isinstance(variant, dict) for variant in variants.values()):
                raise ValueError(
                    f"{name}: variants: give a mapping for each by its name; one that changes nothing is {{}}"
                )
        return scales

    @field_validator("compare")
    @classmethod
    def _each_comparison_once(cls, compare: list[Contrast]) -> list[Contrast]:
        for contrast, times in Counter(contrast.about for contrast in compare).items():
            if times > 1:
                before, after = contrast[:2]
                raise ValueError(
                    f"{before!r} and {after!r} are compared {times} times about the same, and p is corrected for each"
                )
        for name in dict.fromkeys(contrast.together for contrast in compare if contrast.together):
            if faults := [*_apart([contrast for contrast in compare if contrast.together == name])]:
                raise ValueError(f"together, {name}: {'; '.join(faults)}")
        return compare

    @field_validator("plots")
    @classmethod
    def _each_plot_has_a_file(cls, plots: list[Plot]) -> list[Plot]:
        for name, times in Counter(plot.name for plot in plots).items():
            if times > 1:
                raise ValueError(f"{times} plots are called {name!r} and would be one file, {name}.png")
        return plots

    @model_validator(mode="after")
    def _one_world_for_a_fraction(self) -> Experiment:
        if self.fraction is not None and len(self.variants) > 1:
            raise ValueError("a `fraction` goes with a single variant: its axes are what varies")
        return self


def _apart(parts: Sequence[Contrast]) -> Iterator[str]:
    """Yield why parts cannot be pooled: each statement has to count once, against one arm."""
    if len(parts) < 2:
        yield "one comparison alone; give this name to another one too, or leave `together` out"
    if len(starts := dict.fromkeys(part.before for part in parts)) > 1:
        yield f"all parts need the same `before`, not {' and '.join(map(repr, starts))}"
    if any(part.trained is not None for part in parts):
        yield "parts differ by their relations: leave `trained` out"
    if not all(part.relations for part in parts):
        yield "every part needs `relations` of its own, so that no statement is counted twice"
    for name, times in Counter(name for part in parts for name in part.relations).items():
        if times > 1:
            yield f"{name!r} is in {times} parts, so that its statements would be counted {times} times"
