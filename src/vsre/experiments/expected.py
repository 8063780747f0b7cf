"""Estimating how long an experiment will take on this machine before it starts.

Training is counted in floating-point operations (recipes/hours.py). On a CPU they are divided by this machine's
measured speed at matrix products of a tiny model's size, times the share of it that training in the embedded world was
found to reach; on a GPU by a share of the model's peak. Diagnosis is counted in prompts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from vsre.experiments.files import Plan
from vsre.experiments.run import chains_of, is_done, recipe_folders
from vsre.experiments.workers import default_jobs
from vsre.recipes.estimate import Machine, estimate
from vsre.recipes.hours import ASSUMED, PEAKS, peak
from vsre.recipes.schema import Recipe, SceneSource
from vsre.recipes.steps import is_made
from vsre.recipes.validate import check
from vsre.rewrite import load_pack

SHARE = 0.45
"""Share of a core's speed at matrix products that training the shipped models reaches (docs/experiments.md)."""
PROMPTS = 250.0
"""Prompts a core answers per second with the shipped models, some tens per picture (measured: 130 to 460)."""
STATEMENTS_A_UNIT = 14
"""Statements about a unit of test scenes if no limit is set."""
PROBES = 15
"""Prompts per probed triplet."""
A_MODEL, A_WORLD = 15.0, 60.0
"""Further seconds: to load, save and report a model; to draw and repaint a world."""


def expected_seconds(plan: Plan, jobs: int | None = None, out: Path | None = None) -> float:
    """Estimate the wall time of all runs of a plan, `jobs` at once, without those that are done in `out`.

    More jobs than there are GPUs or cores are no faster. Steps whose data is not at hand count as nothing.
    """
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name().lower().replace(" ", "")
        gpu = next((kind for kind in PEAKS if kind in name), "a100")
        speed = {bf16: peak(gpu, bf16=bf16) * ASSUMED for bf16 in (True, False)}
    else:
        speed = dict.fromkeys((True, False), _core() * SHARE)
    training = {variant: _training(recipe, speed) for variant, recipe in plan.recipes.items()}
    seconds, chains = 0.0, 0
    for (variant, _), (recipe, folder) in recipe_folders(plan, out or Path()).items():
        left = {m.name for m in recipe.models if out is None or not is_done(folder, m.name)}
        seconds += sum(training[variant].get(name, 0.0) for name in left) + len(left) * _asking(recipe)
        if out is None or not is_made(folder / "triplets"):
            seconds += A_WORLD * (1 + len(recipe.diagnose.also))
        chains += sum(not left.isdisjoint(chain) for chain in chains_of(recipe))
    return seconds / min(jobs or default_jobs(), default_jobs(), max(1, chains))


def _training(recipe: Recipe, speed: Mapping[bool, float]) -> dict[str, float]:
    """Estimate the seconds of all stages, by model, from an estimate for one GPU of known peak, converted back to
    operations. `speed` is operations per second with bf16 and without."""
    kind = "h100"
    found = check(recipe, online=False, gpus=1, paths=False)
    stages = {(m.name, s.name): s for m in recipe.models for s in m.parsed_stages()}
    total: dict[str, float] = {}
    for row in estimate(recipe, found, Machine(gpus=1, gpu=kind, utilisation=1.0)):
        bf16 = stages[row.model, row.stage].bf16
        operations = (row.hours or 0.0) * 3600 * peak(kind, bf16=bf16)
        total[row.model] = total.get(row.model, 0.0) + operations / speed[bf16]
    return total


def _asking(recipe: Recipe) -> float:
    """Estimate the seconds that loading, asking and reporting a model takes."""
    spec = recipe.diagnose

    def asked(units: int | None, packs: Sequence[str] | None) -> float:
        statements = spec.limit or 1000
        if isinstance(recipe.source, SceneSource):
            a_unit = min(STATEMENTS_A_UNIT, 2 * (spec.per_image or STATEMENTS_A_UNIT))
            drawn = (units or recipe.source.test_units) * a_unit
            statements = min(spec.limit or drawn, drawn)
        names = spec.packs if packs is None else packs
        return statements * sum(min(spec.templates or 1000, len(load_pack(name).templates)) for name in names)

    prompts = asked(None, None) + sum(asked(also.units, also.packs) for also in spec.also.values())
    prompts += asked(None, ["test-s"]) * spec.blank + PROBES * (spec.probes or 0) + 2 * (spec.general or 0)
    return prompts / PROMPTS + A_MODEL


@cache
def _core() -> float:
    """Measure one core's floating-point operations per second, in float32 products of a tiny model's size."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = torch.randn(4096, 128), torch.randn(128, 512)
        for _ in range(5):
            a @ b
        rounds, began = 0, time.perf_counter()
        while time.perf_counter() - began < 0.3:
            a @ b
            rounds += 1
        return rounds * 2.0 * 4096 * 128 * 512 / (time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)


def clock(seconds: float) -> str:
    """Format seconds as 40 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
