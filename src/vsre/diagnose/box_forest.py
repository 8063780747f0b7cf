"""What boxes alone reveal: a random forest on the two boxes and the relation, a reference for models of layouts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vsre.diagnose.bootstrap import Array, Bootstrap
from vsre.errors import VsreError
from vsre.relations.ontology import RELATIONS
from vsre.triplets import Box, parquet_files

COLUMNS = ("image_id", "relation", "label", "subject_box", "object_box")
TREES = 300


def box_forest(train: Any, test: Any, *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Accuracy on a test folder of a forest fitted on a training folder, with its interval over test images.

    Rows without both boxes are left out on both sides; `n` counts the rows tested. The forest sees no picture and no
    class names. Raises VsreError if either side has no row with both boxes.
    """
    from sklearn.ensemble import RandomForestClassifier  # takes a second to import

    known, labels, _ = _rows(train)
    asked, truth, image_ids = _rows(test)
    # Few rows for many relations: leaves of three keep single rows from being memorised.
    forest = RandomForestClassifier(TREES, min_samples_leaf=3, random_state=seed)
    right = (forest.fit(known, labels).predict(asked) == truth).astype(float)
    images, image = np.unique(image_ids, return_inverse=True)
    bootstrap = Bootstrap(len(images), resamples=resamples, seed=seed)
    one = np.zeros_like(image)
    sums = (bootstrap.per_image(image, one, 1, values) for values in (right, np.ones(len(right))))
    return {"n_train": len(labels), **bootstrap.figures(np.divide, *sums).figure(0, len(right))}


def _rows(path: Any) -> tuple[Array, Array, Array]:
    """Features (n, F), labels (n,) and image ids (n,) of the rows that have both boxes."""
    table = pa.concat_tables([pq.read_table(file, columns=list(COLUMNS)) for file in parquet_files(path)])
    rows = [row for row in table.to_pylist() if row["subject_box"] and row["object_box"]]
    if not rows:
        raise VsreError(f"{path}: no row has the boxes of both its things.")
    features = box_features((r["subject_box"], r["object_box"], r["relation"]) for r in rows)
    return features, np.array([r["label"] for r in rows], bool), np.array([r["image_id"] for r in rows])


def box_features(pairs: Iterable[tuple[Box, Box, str]]) -> Array:
    """(n, F): both boxes, their areas and aspects, their relative position, and the relation, one of VSR's 66."""
    boxes, relations = [], []
    numbers = {name: i for i, name in enumerate(RELATIONS)}
    for subject, other, relation in pairs:
        boxes.append([*subject, *other])
        relations.append(numbers.get(relation, len(numbers)))
    a, b = np.array(boxes).reshape(-1, 2, 4).transpose(1, 0, 2)  # (n, 4) each
    (wa, ha), (wb, hb) = ((v[:, 2:] - v[:, :2]).T for v in (a, b))
    apart = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2  # (n, 2), between the centres
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    gap = low - high  # (n, 2), negative where they overlap
    common = np.clip(-gap, 0, None).prod(1)
    areas = wa * ha, wb * hb
    columns = [
        a, b, areas[0], areas[1], wa / ha, wb / hb, apart, np.hypot(*apart.T), gap, np.clip(gap, 0, None).max(1),
        common / areas[0], common / areas[1], common / (areas[0] + areas[1] - common), np.log(areas[0] / areas[1]),
        a - b, np.eye(len(numbers) + 1)[relations],
    ]  # fmt: skip
    return np.concatenate([c.reshape(len(a), -1) for c in columns], 1)
