"""What is tested of an experiment's runs, differences of two arms and effects of factors, with Holm's correction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsre.diagnose.blind import read_statements
from vsre.diagnose.seen import ROW, standing
from vsre.experiments.design import JOIN, fit_effects
from vsre.experiments.schema import Contrast, Experiment
from vsre.experiments.summary import Arm, known, over
from vsre.report.compare import paired_draws, pairs
from vsre.report.inputs import Run
from vsre.report.seeds import TESTED, holm

TRAINED = {True: "rows of its training split", False: "other rows"}


def contrasts(experiment: Experiment, arms: Sequence[Arm]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every comparison of the plan, with Holm's correction; and those that cannot be made, and why.

    Without `compare` each model is compared with those it names, else with the one before it and the first.
    """
    by_name = {arm.name: arm for arm in arms} | {f"{arm.variant}: {arm.model}": arm for arm in arms}
    wanted = [
        (by_name[c.before], by_name[c.after], c)
        for c in experiment.compare
        if c.before in by_name and c.after in by_name
    ]
    lacking = [
        f"{c.before} → {c.after}: an arm of another scale"
        for c in experiment.compare
        if c.before not in by_name or c.after not in by_name
    ]
    if not experiment.compare and experiment.fraction is None:
        for variant in dict.fromkeys(arm.variant for arm in arms):
            mine = [arm for arm in arms if arm.variant == variant]
            wanted += [
                (mine[a], mine[b], Contrast(before=mine[a].name, after=mine[b].name))
                for a, b in pairs([arm.runs[0] for arm in mine], first=True)
            ]
    rows: list[dict[str, Any]] = []
    for before, after, asked in wanted:
        relations, trained = asked.relations, asked.trained
        keys = [None if trained is None else _standing(run, trained) for run in after.runs]
        for figure, title in TESTED.items():
            if any(run.estimate(figure, "acc_t").value is None for run in (*before.runs, *after.runs)):
                continue
            both = enumerate(zip(before.runs, after.runs, keys, strict=True))
            drawn = [
                paired_draws(a, b, figure, seed=after.resample(i), relations=relations, keys=only)
                for i, (a, b, only) in both
            ]
            draws = known(drawn)
            place = {"before": before.name, "after": after.name, "relations": relations, "trained": trained}
            place |= {"figure": title, "beside": asked.beside}
            if draws is not None:
                rows.append(place | over(draws))
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


def _standing(run: Run, trained: bool) -> pa.Array:
    """The keys of a run's statements that stand in its recipe's training split, or of those that do not.

    None at all where the split holds no statement of the test, or is no longer there: nothing is told apart then.
    """
    table = run.samples(("image_id", "caption", "key"))
    folder = run.spec.folder.parent.parent / "triplets" / "train"
    if table is None or not any(folder.glob("*.parquet")):
        return pa.array([], pa.string())
    stands = [where == ROW for where in standing(table, read_statements(folder))]
    if not any(stands):
        return pa.array([], pa.string())
    return pc.unique(table["key"].filter(pa.array([each is trained for each in stands], pa.bool_())))


def _correct(rows: list[dict[str, Any]], experiment: Experiment) -> None:
    """Add p_holm to every row, over those that decide and over all others; None where nothing was tested."""
    deciding = {TESTED[name] for name in experiment.primary}
    for row in rows:
        row["p_holm"] = None
    for family in (True, False):
        tested = [row for row in rows if row["p"] is not None and _decides(row, deciding) is family]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = p


def _decides(row: Mapping[str, Any], deciding: Collection[str]) -> bool:
    return row["figure"] in deciding and not row.get("beside")
