"""The same prompts read another way: by the likelier of the options instead of the answer given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vsre.diagnose.bootstrap import Array

if TYPE_CHECKING:
    from vsre.diagnose.metrics import Answered


def by_likelihood(data: Answered, headlines: Mapping[str, str]) -> dict[str, Any]:
    """acc_t of the likelier option, as {"sum" | "mean": {headline | "all": figure}}.

    "sum" takes log P of a whole option, "mean" that per token, which favours neither the longer nor the shorter one.
    Empty if the engine gave no likelihoods. `headlines` maps names to packs.
    """
    packs = np.array([pack for pack, _ in data.templates], dtype=object)
    columns = {name: np.flatnonzero(packs == pack) for name, pack in headlines.items()}
    columns["all"] = np.arange(len(packs))
    found: dict[str, Any] = {}
    for name, margin in _margins(data.table).items():
        known = ~np.isnan(margin)
        if not known.any():
            continue
        image, group = data.image[known], data.template[known]
        right = ((margin > 0) == data.truth)[known].astype(np.float64)
        sums = [data.bootstrap.per_image(image, group, len(packs), v) for v in (right, np.ones(len(right)))]
        draws, n = data.bootstrap.figures(np.divide, *sums), sums[1].sum(0)
        found[name] = {k: draws.mean(c).figure(0, int(n[c].sum())) for k, c in columns.items() if len(c)}
    return found


def _margins(table: pa.Table) -> dict[str, Array]:
    """log P of yes minus log P of no, (n,), of whole options and per token; NaN if unknown."""
    yes, no = (_floats(table[name]) for name in ("logp_yes", "logp_no"))
    found = {"sum": yes - no}
    if "tokens_yes" in table.column_names:  # samples of an earlier version have no lengths
        found["mean"] = yes / _floats(table["tokens_yes"]) - no / _floats(table["tokens_no"])
    return found


def _floats(column: pa.ChunkedArray) -> Array:
    return column.to_numpy().astype(np.float64)
