"""What a reader of a run's figures should know about its answers: errors that can be retried, answers cut short."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

CUT_SHARE = 0.05
"""With a larger share of answers cut at the token limit the result carries a warning."""


def answer_warnings(samples: pa.Table, probes: pa.Table | None = None) -> list[str]:
    """Warnings about a run's samples and those of its probes (tables of `samples.SCHEMA`)."""
    told = []
    tables = [table for table in (samples, probes) if table is not None]
    if errors := sum(len(table) - table["error"].null_count for table in tables):
        of_probes = (
            f" ({len(probes) - probes['error'].null_count} of the probes among them)" if probes is not None else ""
        )
        told.append(
            f"{errors} questions{of_probes} ended in an error and are not asked again automatically: "
            "use `vsre diagnose --retry-errors` (in Python retry_errors=True) if the cause was temporary."
        )
    return [*told, *cut_warnings(tables)]


def cut_warnings(tables: Sequence[pa.Table]) -> list[str]:
    """A warning if many answers were cut short; `tables` have a column `cut`."""
    known = sum(len(table) - table["cut"].null_count for table in tables)
    cut = sum(pc.sum(table["cut"]).as_py() or 0 for table in tables)
    if cut <= CUT_SHARE * known:
        return []
    return [
        f"{cut} of {known} answers ({100 * cut / known:.1f} %) were cut at the token limit, so how they end is "
        "unknown: look at the samples (column cut), and if it matters run into another folder with a larger "
        "--max-tokens (in Python Decoding(N, N))."
    ]
