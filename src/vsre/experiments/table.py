"""All results of an experiment as one table: OUT/results.parquet, one row a figure of a model.

    variant, seed, model, role     which run
    factor_NAME                    what it is an arm of; null where it has no such factor
    figure                         the place of the figure in metrics.json, such as test_g.acc_t or
                                   by_relation.left of.acc_t; template.PACK.ID is acc_t under one wording;
                                   cost.NAME is of cost.py
    value, low, high, n            as measured; low and high bound 95 % over test pictures, null where not known
    folder                         the run's folder in OUT: its samples are what pairs two runs

It is read by anything: DuckDB (`SELECT ... FROM 'results.parquet'`), polars, pandas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.experiments.files import Plan
from vsre.experiments.run import recipe_folders
from vsre.recipes.schema import ModelSpec
from vsre.recipes.steps import folder_name
from vsre.report.inputs import ReportRun, Run, open_run
from vsre.train.checkpoints import read_json

RESULTS = "results.parquet"
FACTOR, COST = "factor_", "cost."


def open_runs(plan: Plan, out: Path) -> dict[str, dict[int, list[Run]]]:
    """The runs that are there, by variant and seed, in the order of the models."""
    found: dict[str, dict[int, list[Run]]] = {}
    for (recipe, folder), name in zip(recipe_folders(plan, out), _variants(plan), strict=True):
        runs = found.setdefault(name, {}).setdefault(recipe.seed, [])
        for model in recipe.models:
            at = folder / "runs" / folder_name(model.name)
            if (at / "metrics.json").is_file():
                against = tuple(model.against)
                runs.append(open_run(ReportRun(name=model.name, folder=at, role=model.role, against=against)))
    return found


def write_results(plan: Plan, out: Path) -> pa.Table:
    """Gather the figures of all runs that are there into OUT/results.parquet, and return them."""
    factors = sorted({name for recipe in plan.recipes.values() for model in recipe.models for name in model.factors})
    rows = []
    for variant, by_seed in open_runs(plan, out).items():
        models = {model.name: model for model in plan.recipes[variant].models}
        for seed, runs in by_seed.items():
            for run in runs:
                model = models[run.name]
                place = _place(variant, seed, model, factors) | {"folder": str(run.spec.folder.relative_to(out))}
                rows += [place | figure for figure in figures_of(run.metrics)]
                rows += [place | _row(COST + name, value) for name, value in cost_of(run).items() if _is_number(value)]
    known = [
        name for name in factors if all(_is_number(r[FACTOR + name]) for r in rows if r[FACTOR + name] is not None)
    ]
    numbers = pa.float64()
    schema = pa.schema(
        [
            ("variant", pa.string()),
            ("seed", pa.int64()),
            ("model", pa.string()),
            ("role", pa.string()),
            *((FACTOR + name, numbers if name in known else pa.string()) for name in factors),
            ("figure", pa.string()),
            ("value", numbers),
            ("low", numbers),
            ("high", numbers),
            ("n", pa.int64()),
            ("folder", pa.string()),
        ]
    )
    for row in rows:
        for name in factors:
            if name not in known and row[FACTOR + name] is not None:
                row[FACTOR + name] = str(row[FACTOR + name])
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, out / (RESULTS + ".part"))
    (out / (RESULTS + ".part")).replace(out / RESULTS)
    return table


def figures_of(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every figure of a metrics.json as {"figure", "value", "low", "high", "n"}."""
    yield from _walk(metrics, ())
    for template in metrics.get("templates") or []:
        yield _row(f"template.{template['pack']}.{template['template']}", template["acc_t"])


def cost_of(run: Run) -> dict[str, Any]:
    """What cost.py measured of a run's model; empty where it did not."""
    path = run.spec.folder / "cost" / "step.json"
    return dict(read_json(path)["summary"]) if path.is_file() else {}


def _walk(at: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for key, value in at.items():
        here = (*path, str(key))
        if isinstance(value, Mapping) and "value" in value:
            yield _row(".".join(here), value)
        elif isinstance(value, Mapping):
            yield from _walk(value, here)
        elif _is_number(value):
            yield _row(".".join(here), value)


def _row(figure: str, thing: Any) -> dict[str, Any]:
    parts = thing if isinstance(thing, Mapping) else {"value": thing}
    numbers = {k: float(v) for k, v in parts.items() if k in ("value", "low", "high") and _is_number(v)}
    return {"figure": figure, "value": None, "low": None, "high": None, "n": parts.get("n")} | numbers


def _place(variant: str, seed: int, model: ModelSpec, factors: list[str]) -> dict[str, Any]:
    mine = {FACTOR + name: model.factors.get(name) for name in factors}
    return {"variant": variant, "seed": seed, "model": model.name, "role": model.role} | mine


def _variants(plan: Plan) -> Iterator[str]:
    """The variant of each of `recipe_folders`."""
    for name in plan.recipes:
        yield from [name] * len(plan.seeds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
