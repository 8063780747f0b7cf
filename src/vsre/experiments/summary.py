"""What an experiment's runs say together: figures over seeds, contrasts with tests, effects of factors.

A seed is a replicate: its own training, and where scenes are drawn its own world and test pictures. Intervals "over
seeds" are Student's t over the seeds' figures; those "over pictures" resample the test pictures of these very runs,
together for the two that are compared, and together for seeds that were tested on the same pictures. With one seed only
the second can be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsre.diagnose.blind import read_statements
from vsre.diagnose.seen import ROW, standing
from vsre.experiments.design import JOIN, fit_effects
from vsre.experiments.files import Plan
from vsre.experiments.schema import Experiment
from vsre.experiments.table import cost_of
from vsre.report.also import SHOWN, open_also
from vsre.report.compare import blind_floor, paired_draws, pairs
from vsre.report.inputs import Run
from vsre.report.results import columns
from vsre.report.seeds import TESTED, holm, pooled

Runs = Mapping[str, Mapping[int, Sequence[Run]]]
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
"""Accuracies that say what answers hang on, by what was asked (vsre.diagnose.reliance)."""
ABILITY = {
    "non-spatial": ("general", "acc_t"),
    "naming": ("general", "naming"),
    "captions": ("general", "captions"),
}
"""What is known beside relations (vsre.recipes.general)."""
TRAINED = {True: "rows it was trained on", False: "other rows"}


@dataclass(frozen=True)
class Arm:
    """One model of one variant over the seeds, in their order."""

    name: str
    variant: str
    model: str
    runs: tuple[Run, ...]
    factors: Mapping[str, str | float]
    same_pictures: bool
    """Whether all seeds were tested on the same pictures, as where they are no drawn scenes."""

    def resample(self, seed: int) -> int:
        """The seed of the bootstrap for the run of a seed's place: the same pictures are resampled alike."""
        return 0 if self.same_pictures else seed

    def draws(self, figure: str) -> list[np.ndarray] | None:
        """The figure of each seed on its pictures and on resamples of them, (1 + R,); None where a run lacks it."""
        return _known([paired_draws(None, run, figure, seed=self.resample(i)) for i, run in enumerate(self.runs)])


def arms_of(plan: Plan, runs: Runs, seeds: Sequence[int]) -> list[Arm]:
    """The arms, every seed of which has run all models; with one variant an arm is called as its model."""
    found = []
    for variant, recipe in plan.recipes.items():
        for at, model in enumerate(recipe.models):
            name = f"{variant}: {model.name}" if len(plan.recipes) > 1 else model.name
            mine = tuple(runs[variant][seed][at] for seed in seeds)
            shown = {frozenset(_images(run)) for run in mine}
            found.append(Arm(name, variant, model.name, mine, model.factors, len(shown) == 1))
    return found


def over(draws: Sequence[np.ndarray]) -> dict[str, Any]:
    """A figure known as draws (1 + R,) of each seed: {"value", "low", "high", "p", "pictures", "seeds"}.

    With one seed `low`, `high` and `p` are None.
    """
    if len(draws) > 1:
        return pooled(draws)
    value, drawn = float(draws[0][0]), draws[0][1:]
    pictures = [float(v) for v in np.percentile(drawn[np.isfinite(drawn)], (2.5, 97.5))]
    return {"value": value, "low": None, "high": None, "p": None, "pictures": pictures, "seeds": [round(value, 4)]}


def arm_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """A row an arm: the tested figures with intervals, the others as mean, lowest and highest seed, and its cost."""
    shown = columns([run for arm in arms for run in arm.runs])
    rows = []
    for arm in arms:
        row: dict[str, Any] = {"arm": arm.name, "factors": dict(arm.factors), "n": _asked(arm.runs)}
        for figure, title in TESTED.items():
            if (draws := arm.draws(figure)) is not None:
                row[title] = over(draws) | {"p": None}  # nobody asks whether an accuracy is 0
        for column in shown:
            spread = _spread([column.of(run).value for run in arm.runs])
            if column.title not in row and spread is not None:
                row[column.title] = spread
        costs = [cost_of(run) for run in arm.runs]
        for name in costs[0]:
            if (spread := _spread([c.get(name) for c in costs])) is not None:
                row["cost." + name] = spread
        rows.append(row)
    return rows


def contrasts(experiment: Experiment, arms: Sequence[Arm]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every comparison of the plan, with Holm's correction; and those that cannot be made, and why.

    Without `compare` each model is compared with those it names, else with the one before it and the first.
    """
    by_name = {arm.name: arm for arm in arms} | {f"{arm.variant}: {arm.model}": arm for arm in arms}
    wanted = [
        (by_name[c.before], by_name[c.after], c.relations, c.trained)
        for c in experiment.compare
        if c.before in by_name and c.after in by_name  # else a variant of another scale
    ]
    if not experiment.compare and experiment.fraction is None:
        for variant in dict.fromkeys(arm.variant for arm in arms):
            mine = [arm for arm in arms if arm.variant == variant]
            wanted += [(mine[a], mine[b], [], None) for a, b in pairs([arm.runs[0] for arm in mine], first=True)]
    rows: list[dict[str, Any]] = []
    lacking: list[str] = []
    for before, after, relations, trained in wanted:
        keys = [None if trained is None else _standing(run, trained) for run in after.runs]
        for figure, title in TESTED.items():
            if any(run.estimate(figure, "acc_t").value is None for run in (*before.runs, *after.runs)):
                continue
            both = enumerate(zip(before.runs, after.runs, keys, strict=True))
            drawn = [
                paired_draws(a, b, figure, seed=after.resample(i), relations=relations, keys=only)
                for i, (a, b, only) in both
            ]
            known = _known(drawn)
            place = {"before": before.name, "after": after.name, "relations": relations, "trained": trained}
            place |= {"figure": title}
            if known is not None:
                rows.append(place | over(known))
            else:
                about = [*relations, *([] if trained is None else [TRAINED[trained]])]
                why = f"nothing was asked about {', '.join(about)}, or" if about else ""
                lacking.append(f"{before.name} → {after.name}, {title}: {why} not about the same pictures")
    _correct(rows, experiment)
    return rows, lacking


def effects(experiment: Experiment, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """What each effect of a fraction adds to each tested figure, with Holm's correction.

    A seed more is no arm more: what the linear model does not hold of an arm comes back with every seed. So an arm's
    figure is the mean of its seeds, and the arms are what effects are judged by.
    """
    if experiment.fraction is None:
        return []
    names = {part for effect in experiment.fraction.effects for part in effect.split(JOIN)}
    mine = [arm for arm in arms if names <= arm.factors.keys()]
    rows: list[dict[str, Any]] = []
    for figure, title in TESTED.items():
        draws = [arm.draws(figure) for arm in mine]
        means = [np.mean(d, axis=0) for d in draws if d is not None]
        if len(means) == len(mine):
            found = fit_effects([arm.factors for arm in mine], experiment.fraction.effects, np.stack(means))
            rows += [{"figure": title} | row for row in found]
    _correct(rows, experiment)
    return rows


def also_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Test-G of each arm on every further test set, and how much it is above the own one; pictures drawn apart."""
    rows = []
    for arm in arms:
        own, sets = arm.draws(SHOWN), [open_also(run) for run in arm.runs]
        for name in sets[0]:
            theirs = [further[name] for further in sets if name in further]
            draws = _known([paired_draws(None, run, SHOWN, seed=1000 + i) for i, run in enumerate(theirs)])
            if own is not None and draws is not None and len(draws) == len(own):
                above = over([a - b for a, b in zip(draws, own, strict=True)])
                rows.append({"arm": arm.name, "set": name, "n": _asked(theirs), "figure": over(draws), "above": above})
    return rows


def look_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """A row an arm of what its answers hang on, wording and picture; empty where no picture was taken away."""
    rows = _measured(arms, LOOKS)
    return rows if any("grey frame" in title for row in rows for title in row) else []


def ability_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """A row an arm of what it knows beside relations; empty where that was not measured."""
    rows = _measured(arms, ABILITY)
    return rows if any(len(row) > 1 for row in rows) else []


def _measured(arms: Sequence[Arm], figures: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """A row an arm with those of the figures, titles and places in metrics.json, that every seed has."""
    rows: list[dict[str, Any]] = []
    for arm in arms:
        found = {title: _spread([run.estimate(*path).value for run in arm.runs]) for title, path in figures.items()}
        rows.append({"arm": arm.name} | {title: spread for title, spread in found.items() if spread is not None})
    return rows


def floors(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """For each variant the best guesser that sees no picture, by seed."""
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
    """acc_t under all wordings of each relation with at least so many statements a seed, a row a relation, by arm."""
    found: dict[str, dict[str, Any]] = {}
    for arm in arms:
        counted = [run.statements("relation") for run in arm.runs]
        for relation in sorted({name for counts in counted for name in counts}):
            counts = [c.get(relation, 0) for c in counted]
            spread = _spread([run.estimate("by_relation", relation, "acc_t").value for run in arm.runs])
            if spread is not None and min(counts) >= least:
                row = found.setdefault(relation, {"relation": relation, "statements": sum(counts)})
                row[arm.name] = spread["value"]
    return [found[relation] for relation in sorted(found)]


def _known(drawn: Sequence[np.ndarray | None]) -> list[np.ndarray] | None:
    """The draws of all seeds; None where one has none, or no figure."""
    known = [d for d in drawn if d is not None and np.isfinite(d[0])]
    return known if known and len(known) == len(drawn) else None


def _correct(rows: list[dict[str, Any]], experiment: Experiment) -> None:
    """Add p_holm to every row, over those of figures that decide and over the others; None where nothing was tested."""
    deciding = {TESTED[name] for name in experiment.primary}
    for row in rows:
        row["p_holm"] = None
    for family in (True, False):
        tested = [row for row in rows if row["p"] is not None and (row["figure"] in deciding) is family]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = p


def _spread(values: Sequence[Any]) -> dict[str, Any] | None:
    """Mean, lowest and highest of the seeds' figures; None where one is missing."""
    known = [float(v) for v in values if isinstance(v, int | float)]
    if not known or len(known) < len(values):
        return None
    rounded = [round(v, 4) for v in known]
    return {"value": float(np.mean(known)), "low": min(known), "high": max(known), "seeds": rounded, "range": True}


def _standing(run: Run, trained: bool) -> pa.Array:
    """The keys of a run's statements that stand in its own training triplets, or of those that do not."""
    table = run.samples(("image_id", "caption", "key"))
    if table is None:
        return pa.array([], pa.string())
    train = read_statements(run.spec.folder.parent.parent / "triplets" / "train")
    stands = pa.array([(where == ROW) is trained for where in standing(table, train)], pa.bool_())
    return pc.unique(table["key"].filter(stands))


def _images(run: Run) -> list[str]:
    table = run.samples(("image_id",))
    return [] if table is None else pc.unique(table["image_id"]).to_pylist()


def _asked(runs: Sequence[Run]) -> dict[str, int]:
    """How many pictures and statements the seeds were asked about, on average."""
    found = []
    for run in runs:
        table = run.samples(("image_id", "key"))
        if table is not None:
            found.append([len(pc.unique(table[name])) for name in ("image_id", "key")])
    pictures, statements = np.mean(found, axis=0).round().astype(int).tolist() if found else (0, 0)
    return {"pictures": pictures, "statements": statements}
