"""What boxes hold beyond the rules: random forests on them, fitted on one half of the images, applied to the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from vsre.relations.photo_rules import view
from vsre.relations.rule_forms import Forms
from vsre.relations.study.rows import HALVES, Judged

Array = np.ndarray[Any, np.dtype[Any]]


def add_forest(judged: Judged, halves: Array, forms: Forms, *, seed: int = 0) -> None:
    """Add the ranking "forest" to `judged.scores`: one forest per rule, on its relations as the rule views them.

    The features are those of `diagnose.box_forest`. NaN if no rule covers the relation, if a row does not have one box
    each, and if the other half has labels of one kind only.
    """
    from sklearn.ensemble import RandomForestClassifier  # takes a second to import

    from vsre.diagnose.box_forest import TREES, box_features

    scores, labels = np.full(len(judged.rows), np.nan), judged.labels
    statements = [row.labelled for row in judged.rows]
    for rule in forms.rules.values():
        place = np.array([i for i, s in enumerate(statements) if s is not None and s.relation in rule.relations], int)
        if not len(place):
            continue
        seen = [(s.relation, view(s.pair, rule.relations[s.relation])) for i in place if (s := statements[i])]
        features = box_features((p.subject.box, p.object.box, relation) for relation, p in seen)
        for which in range(HALVES):
            fit, ask = halves[place] == which, halves[place] != which
            if ask.any() and len(set(labels[place[fit]])) == 2:
                forest = RandomForestClassifier(TREES, min_samples_leaf=3, random_state=seed)
                forest.fit(features[fit], labels[place[fit]])
                scores[place[ask]] = forest.predict_proba(features[ask])[:, 1]
    judged.scores["forest"] = scores
