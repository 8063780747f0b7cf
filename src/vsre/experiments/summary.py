"""An experiment's runs taken together: figures over seeds, contrasts with tests, effects of factors.

A seed is a replicate: its own training and, for drawn scenes, its own world and test pictures. Intervals "over seeds"
are Student's t over the seeds' figures; those "over pictures" resample the test pictures of these runs, jointly for the
two that are compared and for seeds that were tested on the same pictures. With one seed only the latter are available.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from vsre.diagnose.bootstrap import none_or_all
from vsre.diagnose.metrics import HEADLINES
from vsre.experiments.files import Plan
from vsre.experiments.table import cost_of
from vsre.report.also import SHOWN, open_also
from vsre.report.compare import blind_floor, paired_draws
from vsre.report.inputs import Run
from vsre.report.seeds import TESTED, known, pooled, same_pictures, spread

Runs = Mapping[str, Mapping[int, Sequence[Run]]]
BESIDE = {
    "Yes/no gap": ("test_g", "absolute_bias"),
    "Answered": ("test_g", "answered"),
    "AUROC": ("test_g", "auroc"),
    "AUROC, one wording": ("test_s", "auroc"),
    "Unseen answered": ("unseen", "answered"),
    "Consistency": ("consistency", "pairwise"),
    "Non-spatial": ("general", "acc_t"),
}
"""Figures shown next to the tested ones: title and place in metrics.json. Over the pool's wordings, not all: many
wordings never trained on get no valid answer, and how many are asked depends on the scale."""
LOOKS = {
    "lowest wording": ("test_g", "acc_t_over_templates", "min"),
    "highest wording": ("test_g", "acc_t_over_templates", "max"),
    "Test-S": ("test_s", "acc_t"),
    "Test-S, grey frame": ("blank", "acc_t"),
    "probes: as it is": ("picture_reliance", "acc_t", "base"),
    "grey frame": ("picture_reliance", "acc_t", "blank"),
    "another picture": ("picture_reliance", "acc_t", "other"),
    "mirrored": ("picture_reliance", "acc_t", "mirror"),
    "things exchanged": ("picture_reliance", "acc_t", "swap"),
}
"""Accuracies that show what answers depend on, by what was asked (vsre.diagnose.reliance)."""
ABILITY = {
    "non-spatial": ("general", "acc_t"),
    "naming": ("general", "naming"),
    "captions": ("general", "captions"),
}
"""Abilities other than relations (vsre.recipes.general)."""


@dataclass(frozen=True)
class Arm:
    """One model of one variant, with its runs in the order of the seeds."""

    name: str
    variant: str
    model: str
    runs: tuple[Run, ...]
    factors: Mapping[str, str | float]
    same_pictures: bool
    """Whether all seeds were tested on the same pictures, as they are unless scenes are drawn."""

    def resample(self, seed: int) -> int:
        """Return the bootstrap seed for the run at index `seed`: the same pictures are resampled alike."""
        return 0 if self.same_pictures else seed

    def pictures(self, runs: Sequence[Run]) -> int:
        """Return how many pictures the seeds' runs have together."""
        return _asked(runs)["pictures"] * (1 if self.same_pictures else len(runs))

    def draws(self, figure: str) -> list[np.ndarray] | None:
        """Return each seed's figure on its pictures and on resamples of them, (1 + R,); None if a run lacks it."""
        return known([paired_draws(None, run, figure, seed=self.resample(i)) for i, run in enumerate(self.runs)])


def arms_of(plan: Plan, runs: Runs, seeds: Sequence[int]) -> list[Arm]:
    """Return the arms; every seed must have run all models. With a single variant an arm is named after its model."""
    found = []
    for variant, recipe in plan.recipes.items():
        for at, model in enumerate(recipe.models):
            name = f"{variant}: {model.name}" if len(plan.recipes) > 1 else model.name
            mine = tuple(runs[variant][seed][at] for seed in seeds)
            found.append(Arm(name, variant, model.name, mine, model.factors, same_pictures(mine)))
    return found


def over(draws: Sequence[np.ndarray], pictures: int | None = None) -> dict[str, Any]:
    """Summarise a figure given as draws (1 + R,) of each seed: {"value", "low", "high", "p", "pictures", "seeds"}.

    `pictures`: for a share, the number of pictures, used for the interval if all or none are right. With one seed
    `low`, `high` and `p` are None.
    """
    if len(draws) > 1:
        found = pooled(draws)
    else:
        value, drawn = float(draws[0][0]), draws[0][1:]
        bounds = [float(v) for v in np.percentile(drawn[np.isfinite(drawn)], (2.5, 97.5))]
        found = {"value": value, "low": None, "high": None, "p": None, "pictures": bounds, "seeds": [round(value, 4)]}
    if pictures is not None and found["value"] in (0.0, 1.0):
        found["pictures"] = [*none_or_all(found["value"], pictures)]
    return found


def arm_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return one row per arm: tested figures with intervals, others as mean, lowest and highest seed, and its cost."""
    beside = _measured(arms, BESIDE)
    rows = []
    for arm, others in zip(arms, beside, strict=True):
        row: dict[str, Any] = {"arm": arm.name, "factors": dict(arm.factors), "n": _asked(arm.runs)}
        for figure, title in TESTED.items():
            if (draws := arm.draws(figure)) is not None:
                row[title] = over(draws, arm.pictures(arm.runs)) | {"p": None}  # no test of an accuracy against 0
        row |= {title: figure for title, figure in others.items() if title in BESIDE}
        costs = [cost_of(run) for run in arm.runs]
        for name in costs[0]:
            if (paid := spread([c.get(name) for c in costs])) is not None:
                row["cost." + name] = paid
        rows.append(row)
    return rows


def also_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return Test-G of each arm on every further test set, and how far it is above that on its own test set.

    The two sets' pictures are resampled separately, but jointly for a single seed and the same scenes.
    """
    rows = []
    for arm in arms:
        own, sets = arm.draws(SHOWN), [open_also(run) for run in arm.runs]
        for name in sets[0]:
            theirs = [further[name] for further in sets if name in further]
            draws = known([paired_draws(None, run, SHOWN, seed=1000 + i) for i, run in enumerate(theirs)])
            if own is not None and draws is not None and len(draws) == len(own):
                above = over([a - b for a, b in zip(draws, own, strict=True)])
                paired = theirs[0].estimate("also", "less_own", SHOWN)
                if len(theirs) == 1 and paired.value is not None:  # the same scenes: more precise when paired
                    above |= {"value": paired.value, "pictures": [paired.low, paired.high]}
                rows.append(
                    {
                        "arm": arm.name,
                        "set": name,
                        "n": _asked(theirs),
                        "figure": over(draws, arm.pictures(theirs)),
                        "above": above,
                    }
                )
    return rows


def look_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return one row per arm of how it depends on wording and picture; empty if no picture was ever taken away."""
    rows = _measured(arms, LOOKS)
    return rows if any("grey frame" in title for row in rows for title in row) else []


def ability_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return one row per arm of its abilities other than relations; empty if they were not measured."""
    rows = _measured(arms, ABILITY)
    return rows if any(len(row) > 1 for row in rows) else []


def _measured(arms: Sequence[Arm], figures: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return one row per arm with those `figures` (title: place in metrics.json) that every seed has."""
    rows: list[dict[str, Any]] = []
    for arm in arms:
        found = {title: spread([run.estimate(*path).value for run in arm.runs]) for title, path in figures.items()}
        rows.append({"arm": arm.name} | {title: figure for title, figure in found.items() if figure is not None})
    return rows


def floors(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return, for each variant, the best guesser that sees no picture, by seed."""
    found = []
    for variant in dict.fromkeys(arm.variant for arm in arms):
        arm = next(arm for arm in arms if arm.variant == variant)
        best = [blind_floor(run) for run in arm.runs]
        values = [e.value for _, e in best if e.value is not None]
        if values:
            by = " or ".join(dict.fromkeys(name for name, _ in best))
            found.append({"variant": variant, "goes by": by, "value": float(np.mean(values)), "seeds": values})
    return found


def relation_rows(arms: Sequence[Arm], *, least: int = 20) -> list[dict[str, Any]]:
    """Return Test-G by relation and arm, one row per relation with at least so many statements in each seed."""
    found: dict[str, dict[str, Any]] = {}
    for arm in arms:
        by_seed = [_by_relation(run) for run in arm.runs]
        for relation in sorted(set.intersection(*map(set, by_seed))):
            seen = [by[relation] for by in by_seed]
            if min(statements for statements, _ in seen) >= least:
                row = found.setdefault(
                    relation, {"relation": relation, "statements": round(np.mean([n for n, _ in seen]))}
                )
                row[arm.name] = float(np.mean([right for _, right in seen]))
    return [found[relation] for relation in sorted(found)]


def _by_relation(run: Run) -> dict[str, tuple[int, float]]:
    """Return, by relation, how many statements were asked in the pool's wordings, and the share answered correctly."""
    table = run.samples(("pack", "relation", "key", "correct"), pc.field("pack") == HEADLINES["test_g"])
    if table is None:
        return {}
    counted = table.drop_null().group_by("relation").aggregate([("key", "count_distinct"), ("correct", "mean")])
    columns = (counted[name].to_pylist() for name in ("relation", "key_count_distinct", "correct_mean"))
    return {relation: (statements, right) for relation, statements, right in zip(*columns, strict=True)}


def _asked(runs: Sequence[Run]) -> dict[str, int]:
    """Return how many pictures and statements a seed was asked about, on average."""
    found = []
    for run in runs:
        table = run.samples(("image_id", "key"))
        if table is not None:
            found.append([len(pc.unique(table[name])) for name in ("image_id", "key")])
    pictures, statements = np.mean(found, axis=0).round().astype(int).tolist() if found else (0, 0)
    return {"pictures": pictures, "statements": statements}
