"""Tests on an experiment's runs: differences between two arms and effects of factors, with Holm's correction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsre.diagnose.blind import read_statements
from vsre.diagnose.seen import ROW, standing
from vsre.experiments.design import JOIN, fit_effects
from vsre.experiments.part import both_there
from vsre.experiments.schema import Contrast, Experiment
from vsre.experiments.summary import Arm, over
from vsre.relations.ontology import RELATIONS
from vsre.report.compare import answer_draws, paired_answers
from vsre.report.inputs import Run
from vsre.report.seeds import TESTED, holm, known

Answers = tuple[pa.Table, pa.Table]
"""The answers of two runs to the same statements about the same pictures."""
TRAINED = {True: "rows of its training split", False: "other rows"}


def contrasts(experiment: Experiment, arms: Sequence[Arm]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for every comparison that the experiment names, and a line for each that cannot be made, with why.

    A row has the difference as `over` gives it, and in `from` and `to` what the two arms reached on these statements.
    """
    rows: list[dict[str, Any]] = []
    parts: list[_Part] = []
    wanted, lacking = _wanted(experiment, arms)
    for before, after, asked in wanted:
        relations = [name for name in RELATIONS if name not in asked.but] if asked.but else asked.relations
        keys = [None if asked.trained is None else _standing(run, asked.trained) for run in after.runs]
        for figure, title in TESTED.items():
            lacks = {run.estimate(figure, "acc_t").value is None for run in (*before.runs, *after.runs)}
            if lacks == {True}:
                continue  # these wordings were not asked
            both = zip(before.runs, after.runs, keys, strict=True)
            answers = [paired_answers(a, b, figure, relations=relations, keys=only) for a, b, only in both]
            full = [pair for pair in answers if pair is not None]
            row = _row(full, after) if len(full) == len(answers) and lacks == {False} else None
            if asked.together:
                parts.append(_Part(before, asked, title, full if row else None))
            if row is None:
                about = statements(asked.relations, asked.but, asked.trained)
                why = f"nothing was asked about {about}, or " if about else ""
                why += "nothing was answered, or not the same statements about the same pictures"
                lacking.append(f"{before.name} → {after.name}, {title}: {why}")
                continue
            place: dict[str, Any] = {"before": before.name, "after": after.name, "relations": asked.relations}
            place |= {"but": asked.but, "trained": asked.trained, "figure": title, "secondary": asked.secondary}
            rows.append(place | row)
    return [*_together(parts), *rows], lacking


def statements(relations: Sequence[str], but: Sequence[str], trained: bool | None) -> str:
    """Return which statements a comparison is about, in words; empty for all."""
    about = [*relations, *([f"all but {', '.join(but)}"] if but else [])]
    return ", ".join([*about, *([] if trained is None else [TRAINED[trained]])])


@dataclass(frozen=True)
class _Part:
    """A comparison that is part of a pooled one, with the answers of its seeds; None if it could not be made."""

    before: Arm
    asked: Contrast
    figure: str
    answers: list[Answers] | None


def _together(parts: Sequence[_Part]) -> Iterator[dict[str, Any]]:
    """Yield each pooled comparison, over the statements of all its parts; none if a part is missing."""
    for name, figure in dict.fromkeys((part.asked.together, part.figure) for part in parts):
        mine = [part for part in parts if (part.asked.together, part.figure) == (name, figure)]
        answers = [part.answers for part in mine if part.answers is not None]
        if len(answers) < len(mine):
            continue
        before = mine[0].before
        sides = (zip(*seed, strict=True) for seed in zip(*answers, strict=True))
        joined = [(pa.concat_tables(old), pa.concat_tables(new)) for old, new in sides]
        relations = [relation for part in mine for relation in part.asked.relations]
        place = {"before": before.name, "after": name, "relations": relations, "but": [], "trained": None}
        if (row := _row(joined, before)) is not None:
            yield place | {"figure": figure, "secondary": False} | row


def _wanted(experiment: Experiment, arms: Sequence[Arm]) -> tuple[list[tuple[Arm, Arm, Contrast]], list[str]]:
    """Return the pairs to compare, and a line for each that lacks an arm."""
    by_name = {f"{arm.variant}: {arm.model}": arm for arm in arms}
    wanted = [(by_name[c.before], by_name[c.after], c) for c in both_there(experiment.compare, by_name)]
    lost = [c for c in experiment.compare if c.before not in by_name or c.after not in by_name]
    return wanted, [f"{c.before} → {c.after}: an arm of another scale" for c in lost]


def _row(answers: Sequence[Answers], arm: Arm) -> dict[str, Any] | None:
    """Return the difference over the seeds' paired answers, with both arms' figures; None if there is no figure."""
    before, after = (
        [answer_draws(pair[end], seed=arm.resample(i)) for i, pair in enumerate(answers)] for end in (0, 1)
    )
    draws = known([b - a for a, b in zip(before, after, strict=True)])
    if draws is None:
        return None
    asked = [len(pc.unique(new["key"])) for _, new in answers]
    pictures = [len(pc.unique(new["image_id"])) for _, new in answers]
    n = pictures[0] if arm.same_pictures else sum(pictures)
    return over(draws) | {"from": over(before, n), "to": over(after, n), "statements": round(np.mean(asked))}


def effects(experiment: Experiment, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return what each effect of a fraction adds to each tested figure, over all seeds and in each.

    Another seed is not another arm: what the linear model misses about an arm recurs with every seed. So an arm's
    figure is the mean of its seeds, and effects are tested against the variation between arms. Interactions are
    secondary.
    """
    if experiment.fraction is None:
        return []
    asked = experiment.fraction.effects
    names = {part for effect in asked for part in effect.split(JOIN)}
    mine = [arm for arm in arms if names <= arm.factors.keys()]
    factors = [arm.factors for arm in mine]
    rows: list[dict[str, Any]] = []
    for figure, title in TESTED.items():
        draws = [drawn for arm in mine if (drawn := arm.draws(figure)) is not None]
        if len(draws) < len(mine):
            continue
        by_seed = [fit_effects(factors, asked, np.stack(seed)[:, :1]) for seed in zip(*draws, strict=True)]
        for at, row in enumerate(fit_effects(factors, asked, np.stack([np.mean(d, axis=0) for d in draws]))):
            seeds = [round(found[at]["value"], 4) for found in by_seed]
            rows.append({"figure": title, "secondary": JOIN in row["effect"], "seeds": seeds} | row)
    return rows


def _standing(run: Run, trained: bool) -> pa.Array:
    """Return the keys of a run's statements that are in its recipe's training split, or of those that are not.

    Empty if the split contains no test statement or no longer exists: there is nothing to separate then.
    """
    table = run.samples(("image_id", "caption", "key"))
    folder = run.spec.folder.parent.parent / "triplets" / "train"
    if table is None or not any(folder.glob("*.parquet")):
        return pa.array([], pa.string())
    stands = [where == ROW for where in standing(table, read_statements(folder))]
    if not any(stands):
        return pa.array([], pa.string())
    return pc.unique(table["key"].filter(pa.array([each is trained for each in stands], pa.bool_())))


def correct(rows: Sequence[dict[str, Any]], experiment: Experiment) -> None:
    """Add to every row, comparisons and effects alike, whether it is primary, and p_holm over all primary or over all
    secondary rows; None if not tested."""
    figures = {TESTED[name] for name in experiment.primary}
    for row in rows:
        row["p_holm"], row["primary"] = None, row["figure"] in figures and not row["secondary"]
    for family in (True, False):
        tested = [row for row in rows if row["p"] is not None and row["primary"] is family]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = p
