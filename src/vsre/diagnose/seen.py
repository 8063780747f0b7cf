"""Which part of a test is in the training data, and how a model does there and elsewhere: the effect of leaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vsre.diagnose.blind import Statement
from vsre.diagnose.metrics import Answered, by_group

ROW, IMAGE, NEW = "training row", "training image", "new image"
"""The picture with this caption is in the training triplets; the picture with other captions; neither."""


def standing(samples: pa.Table, train: Sequence[Statement]) -> list[str]:
    """ROW, IMAGE or NEW for each sample; pictures are the same if their content is (`image_id`)."""
    rows = {(s.image_id, s.caption) for s in train}
    images = {image for image, _ in rows}
    asked = zip(samples["image_id"].to_pylist(), samples["caption"].to_pylist(), strict=True)
    return [ROW if pair in rows else IMAGE if pair[0] in images else NEW for pair in asked]


def by_training(samples: pa.Table, train: Sequence[Statement], *, seed: int = 0) -> dict[str, Any]:
    """The rates of all templates together, as `by_relation` has them, for each of ROW, IMAGE and NEW that occurs.

    A model that does better on training rows than on new images remembers them; but these are different questions and
    may differ in difficulty: compare with a model trained on neither.
    """
    data = Answered(samples, seed=seed)
    if not len(data.key):
        return {}
    names, codes = np.unique(np.array(standing(data.table, train)), return_inverse=True)
    return by_group(data, codes, names.tolist())
