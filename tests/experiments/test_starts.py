"""Starts by name, and stages that a file leaves out: what recipes that share their models differ by."""

from __future__ import annotations

from typing import Any

import pytest

from vsre.errors import VsreError
from vsre.recipes.expand import expand


def read(name: str, where: str) -> tuple[dict[str, Any], str]:
    raise AssertionError("nothing is extended here")


def expanded(**raw: Any) -> tuple[dict[str, Any], list[str]]:
    faults: list[str] = []
    return expand(raw, "mine", read, faults), faults


def test_a_start_is_used_by_name_and_may_be_changed() -> None:
    starts = {"merged": {"checkpoint": "zoo:merged", "encoders": ["clip", "sam"]}}
    models = [
        {"name": "all", "start": {"use": "merged"}},
        {"name": "few", "start": {"use": "merged", "encoders": ["sam"]}},
        {"name": "own", "start": {"checkpoint": "zoo:base"}},
    ]
    whole, faults = expanded(starts=starts, models=models)
    assert not faults and "starts" not in whole
    assert [m["start"] for m in whole["models"]] == [
        {"checkpoint": "zoo:merged", "encoders": ["clip", "sam"]},
        {"checkpoint": "zoo:merged", "encoders": ["sam"]},
        {"checkpoint": "zoo:base"},
    ]


def test_a_grid_names_its_starts_too() -> None:
    grid = [{"set": [{"name": "a", "start": {"encoders": ["sam"]}}], "start": [{"start": {"use": "merged"}}]}]
    whole, faults = expanded(starts={"merged": {"checkpoint": "zoo:merged"}}, grid=grid)
    assert not faults
    assert whole["models"] == [{"name": "a", "start": {"checkpoint": "zoo:merged", "encoders": ["sam"]}}]


@pytest.mark.parametrize("starts", [{"merged": {"checkpoint": "x"}}, {"merged": None, "mergd": None}])
def test_a_start_that_is_not_there(starts: dict[str, Any]) -> None:
    _, faults = expanded(starts=starts, models=[{"name": "m", "start": {"use": "mergd"}}])
    assert len(faults) == 1 and faults[0].startswith("m: starts as 'mergd', not in `starts`.")


def test_a_null_stage_is_left_out_of_every_model_with_its_data() -> None:
    stages = {"align": None, "tune": {"train": ["llm"]}}
    use = [{"use": "align", "data": ["general"]}, {"use": "tune", "data": ["own"]}]
    base = {"stages": stages, "data": {"general": {}, "own": {}}, "models": [{"name": "m", "stages": use}]}
    faults: list[str] = []
    whole = expand({"extends": "base"}, "mine", lambda name, where: (base, name), faults)
    assert not faults
    assert whole["models"] == [{"name": "m", "stages": [{"name": "tune", "train": ["llm"], "data": ["own"]}]}]
    assert [*whole["data"]] == ["own"]


def test_a_stage_that_is_nowhere_is_a_mistake_and_not_left_out() -> None:
    _, faults = expanded(stages={"align": None}, models=[{"name": "m", "stages": [{"use": "alignn"}]}])
    assert faults == ["m: a stage uses 'alignn', which `stages` does not have. Did you mean 'align'?"]


def test_starts_are_a_mapping() -> None:
    with pytest.raises(VsreError, match="starts: expected a mapping from names to starts"):
        expanded(starts=["merged"])
