"""The published rules for left, right, above and below compared with ours, on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from vsre.diagnose.bootstrap import Array, Bootstrap, Draws
from vsre.relations.study.baselines import FAMILIES, RULES
from vsre.relations.study.rows import Judged


def published(judged: Judged, image: Array, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The published rules on the rows of their relations, and ours on the same rows; left and right together come last.

    `same_coverage` lets both pass as many rows as the one that passes fewer, namely those that each is surest of by its
    own evidence: that needs no label. `gain` is our precision there minus theirs, resampled together.
    """
    one_each = np.array([row.labelled is not None for row in judged.rows])
    places = {d: np.flatnonzero(np.isin(judged.relations, family) & one_each) for d, family in FAMILIES.items()}
    out = []
    for name, rule in RULES.items():
        evidence = {}
        for direction, mine in places.items():
            subjects = np.array([judged.rows[i].subjects[0] for i in mine]).reshape(-1, 4)
            objects = np.array([judged.rows[i].objects[0] for i in mine]).reshape(-1, 4)
            evidence[direction] = rule(subjects, objects, direction)
        for directions in (*((d,) for d in FAMILIES), ("left", "right")):
            mine = np.concatenate([places[d] for d in directions])
            if len(mine):
                theirs = np.concatenate([evidence[d] for d in directions])
                entry = _side_by_side(theirs, judged, mine, image, bootstrap)
                family = [relation for d in directions for relation in FAMILIES[d]]
                out.append({"rule": name, "direction": " or ".join(directions), "relations": family} | entry)
    return out


def _side_by_side(theirs: Array, judged: Judged, mine: Array, image: Array, bootstrap: Bootstrap) -> dict[str, Any]:
    labels, n, zero = judged.labels[mine], len(mine), np.zeros(len(mine), int)
    said, ours = theirs > 0, judged.verdicts[mine] > 0
    lead = np.where(ours, judged.lead[mine], -np.inf)
    k = min(int(said.sum()), int(ours.sum()))

    def ratio(top: Array, bottom: Array) -> Draws:
        return bootstrap.figures(
            np.divide, *(bootstrap.per_image(image[mine], zero, 1, v.astype(float)) for v in (top, bottom))
        )

    def surest(evidence: Array) -> Array:
        picked = np.zeros(n, bool)
        picked[np.argsort(-evidence, kind="stable")[:k]] = True
        return picked

    everything = np.ones(n, bool)
    best = {"theirs": surest(theirs), "ours": surest(lead)}
    precision = {who: ratio(picked & labels, picked) for who, picked in best.items()}
    return {
        "n": n,
        "accuracy": ratio(said == labels, everything).figure(0, n),
        "precision": ratio(said & labels, said).figure(0, int(said.sum())),
        "coverage": ratio(said, everything).figure(0, n),
        "ours": {
            "precision": ratio(ours & labels, ours).figure(0, int(ours.sum())),
            "coverage": ratio(ours, everything).figure(0, n),
        },
        "same_coverage": {
            "coverage": k / n,
            **{who: draws.figure(0, k) for who, draws in precision.items()},
            "gain": precision["ours"].minus(precision["theirs"]).figure(0, k),
        },
    }
