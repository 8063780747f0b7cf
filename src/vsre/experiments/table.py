"""All results of an experiment as one table: OUT/results.parquet, one row per figure of a model.

    variant, seed, model, role     which run
    factor_NAME                    its level of a factor; null if it has no such factor
    figure                         the place of the figure in metrics.json, such as test_g.acc_t or
                                   by_relation.left of.acc_t; template.PACK.ID is acc_t under one wording;
                                   also.SET.FIGURE is of a further test set; cost.NAME is of cost.py
    value, low, high, n            as measured; low and high bound 95 % over test pictures, null if unknown
    folder                         the run's folder in OUT: two runs are paired by the samples there

DuckDB (`SELECT ... FROM 'results.parquet'`), polars and pandas read it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsre.experiments.files import Plan
from vsre.experiments.run import COST_FOLDER, is_done, recipe_folders
from vsre.files import write_aside
from vsre.recipes.schema import ModelSpec, Recipe
from vsre.recipes.steps import STEP, folder_name
from vsre.report.also import open_also
from vsre.report.inputs import ReportRun, Run, open_run
from vsre.train.checkpoints import read_json

RESULTS = "results.parquet"
FACTOR, COST = "factor_", "cost."


def open_runs(plan: Plan, out: Path) -> dict[str, dict[int, list[Run]]]:
    """Return the runs that are done, by variant and seed, in the order of the models."""
    found: dict[str, dict[int, list[Run]]] = {}
    for (variant, seed), (recipe, folder) in recipe_folders(plan, out).items():
        found.setdefault(variant, {})[seed] = [
            _open(recipe, model, folder / "runs" / folder_name(model.name))
            for model in recipe.models
            if is_done(folder, model.name)
        ]
    return found


def _open(recipe: Recipe, model: ModelSpec, folder: Path) -> Run:
    also = {name: folder / "also" / folder_name(name) for name in recipe.diagnose.also}
    return open_run(ReportRun(name=model.name, folder=folder, role=model.role, against=tuple(model.against), also=also))


def write_results(plan: Plan, out: Path, runs: Mapping[str, Mapping[int, Sequence[Run]]], to: Path) -> pa.Table:
    """Gather the figures of runs (from `open_runs` in OUT) in TO/results.parquet, and return them."""
    factors = _factors(plan)
    rows = []
    for variant, by_seed in runs.items():
        models = {model.name: model for model in plan.recipes[variant].models}
        for seed, run in ((seed, run) for seed, some in by_seed.items() for run in some):
            model = models[run.name]
            place = {"variant": variant, "seed": seed, "model": model.name, "role": model.role}
            place |= {"folder": str(run.spec.folder.relative_to(out))}
            for name, kind in factors.items():
                value = model.factors.get(name)
                place[FACTOR + name] = str(value) if value is not None and kind == pa.string() else value
            rows += [place | figure for figure in figures_of(run.metrics)]
            for name, further in open_also(run).items():
                rows += [place | f | {"figure": f"also.{name}.{f['figure']}"} for f in figures_of(further.metrics)]
            rows += [place | _row(COST + name, value) for name, value in cost_of(run).items() if _is_number(value)]
    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        [
            *(("variant", text), ("seed", pa.int64()), ("model", text), ("role", text)),
            *((FACTOR + name, kind) for name, kind in factors.items()),
            *(("figure", text), ("value", number), ("low", number), ("high", number), ("n", pa.int64())),
            ("folder", text),
        ]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    to.mkdir(parents=True, exist_ok=True)
    with pa.BufferOutputStream() as written:
        pq.write_table(table, written)
    write_aside(to / RESULTS, written.getvalue().to_pybytes())
    return table


def _factors(plan: Plan) -> dict[str, pa.DataType]:
    """Return the column type of every arm's factors, by name: number, or text if some value is text."""
    found: dict[str, list[str | float]] = {}
    for recipe in plan.recipes.values():
        for model in recipe.models:
            for name, value in model.factors.items():
                found.setdefault(name, []).append(value)
    return {name: pa.float64() if all(map(_is_number, found[name])) else pa.string() for name in sorted(found)}


def figures_of(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every figure of a metrics.json as {"figure", "value", "low", "high", "n"}."""
    yield from _walk(metrics, ())
    for template in metrics.get("templates") or []:
        yield _row(f"template.{template['pack']}.{template['template']}", template["acc_t"])


def cost_of(run: Run) -> dict[str, Any]:
    """Return what cost.py measured for a run's model."""
    return dict(read_json(run.spec.folder / COST_FOLDER / STEP)["summary"])


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
