"""The figures that the paper prints for a model of a recipe, if it has one like it."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

from vsre.recipes.schema import PaperRow

FIGURES = ("test_g", "test_s")


def published_figures(row: PaperRow | None) -> dict[str, Any]:
    """Return Test-G and Test-S of a row of the paper's tables (report/published.yaml), in per cent; empty if none."""
    wanted = {} if row is None else row.model_dump(exclude_none=True)
    for found in _rows():
        named = {k: v for k, v in found.items() if k not in FIGURES}
        # That file also has a figure from LLaVA's own paper, without Test-G.
        if wanted and named == wanted and all(k in found for k in FIGURES):
            return {k: found[k] for k in FIGURES}
    return {}


@cache
def _rows() -> list[dict[str, Any]]:
    text = resources.files("vsre.report").joinpath("published.yaml").read_text(encoding="utf-8")
    return [row for table in yaml.safe_load(text)["tables"] for row in table["rows"]]
