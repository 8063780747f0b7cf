"""Precision, recall and coverage of verdicts against labels, with intervals, alongside the published rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vsre.diagnose.bootstrap import Array, Bootstrap, Draws
from vsre.relations.ontology import RELATIONS
from vsre.relations.photo_rules import RuleBook
from vsre.relations.rule_forms import Side
from vsre.relations.study.baselines import FAMILIES
from vsre.relations.study.published import published
from vsre.relations.study.rows import Judged

PRIOR = 0.3
"""A share of true statements that painters reach: precision is also given for this share."""

PRIOR_PRECISION = f"precision_if_{PRIOR:.0%}_true"
SIGNS: dict[Side, int] = {"pass": 1, "fail": -1}
FRAMES: dict[Any, str] = {1: "the viewer's", 0: "the object's own", 2: "both"}
"""VSR's `reference_frame`."""


def figures(judged: Judged, books: Sequence[RuleBook], *, resamples: int, seed: int) -> dict[str, Any]:
    """The figures of `relations`, `rules`, `aims` and `published`, every one with its interval and n.

    `books` are the rules that judged, each a part of the rows; their forms are the same.
    """
    forms = books[0].forms
    names, image = np.unique([row.triplet.image_name for row in judged.rows], return_inverse=True)
    bootstrap = Bootstrap(len(names), resamples=resamples, seed=seed)
    labels, relations = judged.labels, judged.relations
    present = [name for name in RELATIONS if name in set(relations)]
    groups = {name: relations == name for name in present}
    rules = {f"rule {name}": np.isin(relations, list(rule.relations)) for name, rule in forms.rules.items()}
    aims = {f"aim {aim.name}": np.isin(relations, aim.relations) for aim in forms.aims}
    everything = groups | {k: v for k, v in (rules | aims).items() if v.any()} | {"all": np.ones(len(labels), bool)}
    table = _table(judged, everything, image, bootstrap)
    for name in present:
        table[name] |= {
            "label_ceiling": RELATIONS[name].label_ceiling,
            "lacks": {side: min((book.lacks(name, side) for book in books), key=len) for side in SIGNS},
            "undecided": dict(Counter(r for r, is_ in zip(judged.reasons, groups[name], strict=True) if is_ and r)),
        }
    return {
        "rows": len(labels),
        "images": len(names),
        "relations": {name: table[name] for name in present},
        "rules": {name.removeprefix("rule "): table[name] for name in rules if name in table},
        "all": table["all"],
        "aims": [
            _aim(aim.name, aim.verdict, aim.precision, table[f"aim {aim.name}"])
            for aim in forms.aims
            if f"aim {aim.name}" in table
        ],
        "published": published(judged, image, bootstrap),
        "reference_frames": _frames(judged),
    }


def _table(judged: Judged, groups: dict[str, Array], image: Array, bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
    """The figures of each group of rows (n,) bool."""
    members = [np.flatnonzero(is_) for is_ in groups.values()]
    row, code = np.concatenate(members), np.repeat(np.arange(len(groups)), [len(m) for m in members])
    labels, verdicts = judged.labels, judged.verdicts
    agreed = np.array([bool(r.unanimous) for r in judged.rows])
    counted = {"n": np.ones(len(labels), bool), "pass own": labels, "fail own": ~labels}
    for side, sign in SIGNS.items():
        said, right = verdicts == sign, labels == (sign > 0)
        counted |= {
            f"{side} said": said,
            f"{side} hit": said & right,
            f"{side} said agreed": said & agreed,
            f"{side} hit agreed": said & right & agreed,
        }
    total = {
        name: bootstrap.per_image(image[row], code, len(groups), v[row].astype(float)) for name, v in counted.items()
    }
    out: dict[str, dict[str, Any]] = {
        name: {"n": int(is_.sum()), "true_share": float(labels[is_].mean())} for name, is_ in groups.items()
    }
    for side, sign in SIGNS.items():
        said, hit, own, n = total[f"{side} said"], total[f"{side} hit"], total[f"{side} own"], total["n"]
        prior = PRIOR if sign > 0 else 1 - PRIOR
        shares = {"precision": (hit, said), "recall": (hit, own), "coverage": (said, n)}
        if agreed.any():
            shares["precision_undisputed"] = total[f"{side} hit agreed"], total[f"{side} said agreed"]
        drawn = {figure: bootstrap.figures(np.divide, *share) for figure, share in shares.items()}
        recall, alarm = drawn["recall"].all, bootstrap.figures(np.divide, said - hit, n - own).all
        with np.errstate(invalid="ignore"):
            at_prior = prior * recall / (prior * recall + (1 - prior) * alarm)
        drawn[PRIOR_PRECISION] = Draws(at_prior, drawn["precision"].units)  # of the same pictures
        rows = {figure: below.sum(0) for figure, (_, below) in shares.items()} | {PRIOR_PRECISION: said.sum(0)}
        for i, name in enumerate(groups):
            out[name][side] = {"n": int(said[:, i].sum())} | {
                figure: draws.figure(i, int(rows[figure][i])) for figure, draws in drawn.items()
            }
            for ranking, scores in judged.scores.items():
                right = labels == (sign > 0)
                mine = members[i][np.isfinite(scores[members[i]])]
                top = mine[np.argsort(-sign * scores[mine], kind="stable")[: out[name][side]["n"]]]
                out[name][side][f"precision_of_{ranking}"] = float(right[top].mean()) if len(top) else None
    return out


def _aim(name: str, side: str, wanted: float, entry: dict[str, Any]) -> dict[str, Any]:
    figure = entry[side]["precision"]
    reached = None if figure["value"] is None else figure["value"] >= wanted
    coverage = entry[side]["coverage"]
    return {"name": name, "verdict": side, "wanted": wanted, "precision": figure, "coverage": coverage, "met": reached}


def _frames(judged: Judged) -> dict[str, dict[str, int]]:
    """Verdicts on true statements about left and right, by the frame that their annotators meant, if VSR gives it."""
    sides = set(FAMILIES["left"] + FAMILIES["right"])
    out: dict[str, dict[str, int]] = {}
    for row, verdict in zip(judged.rows, judged.verdicts, strict=True):
        audit: Any = row.triplet.provenance.get("audit") or {}
        frame = FRAMES.get(audit.get("reference_frame"))
        if frame and row.triplet.label and row.triplet.relation in sides:
            counts = out.setdefault(frame, {"n": 0, "pass": 0, "fail": 0})
            counts["n"] += 1
            counts["pass"] += verdict > 0
            counts["fail"] += verdict < 0
    return {name: {k: int(v) for k, v in out[name].items()} for name in FRAMES.values() if name in out}
