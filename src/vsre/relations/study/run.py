"""How well the rules for photographs agree with people: `vsre geometry`.

Images are split in two halves by the hash of their file names. Thresholds are chosen on one half and reported on the
other (`held_out`: chosen on half 0, as shipped), and with the halves swapped too (`two_fold`), so that every row is
judged once by thresholds it had no part in. Intervals are bootstrapped over images.
"""

from __future__ import annotations

import datetime
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vsre.errors import VsreError
from vsre.relations.photo_rules import RuleBook, rules_from
from vsre.relations.rule_forms import Forms, Provenance, Thresholds, load_forms
from vsre.relations.study.choosing import FEWEST, PRICE, choose_thresholds
from vsre.relations.study.figures import figures
from vsre.relations.study.rows import HALVES, Judged, Row, Rows, half, read_rows
from vsre.relations.things import NO, Verdict

Array = np.ndarray[Any, np.dtype[Any]]

NOTE = (
    "Boxes are taken as given. With boxes that people drew (COCO) this measures the rules alone, and no detector: its "
    "missed, doubled and misplaced boxes come on top."
)
SPLIT = "halves of the images: first byte of the SHA-256 of the file name, modulo 2"


def study(
    triplets: Sequence[Path],
    boxes: Sequence[Path],
    *,
    fixed: bool = False,
    thresholds: Path | None = None,
    forest: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Any], Thresholds | None]:
    """Measure the rules on labelled statements: returns the figures, and the thresholds chosen on half 0.

    With `fixed`, or with a file of `thresholds`, nothing is chosen: all rows are judged by those (`as_given`), and
    those of half 1 are also shown separately (`half_1`), since the shipped thresholds were chosen on VSR's half 0.
    `forest` adds what random forests on the same boxes, fitted on the other half, reach at the same coverage. Raises
    VsreError if rows or boxes cannot be read (`rows.read_rows`), and if a half holds too little to choose on.
    """
    found = read_rows(triplets, boxes)
    rows, halves = found.rows, np.array([half(r.triplet.image_name) for r in found.rows])
    head: dict[str, Any] = {
        "note": NOTE,
        "data": [f"{Path(p).resolve().parent.name}/{Path(p).name}" for p in (*triplets, *boxes)],
        "rows": len(rows),
        "images": len({r.triplet.image_name for r in rows}),
        "set_aside": dict(found.set_aside),
        "boxes": _candidate_counts(rows),
        "python": platform.python_version(),
    }
    if fixed or thresholds is not None:
        book = rules_from(thresholds)
        judged = judge_rows(rows, [book] * HALVES, halves)
        parts = {"as_given": judged} | ({"half_1": judged.only(halves == 1)} if (halves == 1).any() else {})
        out = {name: figures(part, [book], resamples=resamples, seed=seed) for name, part in parts.items()}
        return head | {"split": SPLIT, "thresholds": book.provenance.model_dump()} | out, None
    forms = load_forms()
    chosen = [_chosen_on(found, halves, h, forms, ", ".join(head["data"])) for h in range(HALVES)]
    books = [RuleBook(forms, c) for c in chosen]
    # Each row is judged by the thresholds of the half that its image does not belong to.
    judged = judge_rows(rows, books[::-1], halves)
    if forest:
        from vsre.relations.study.forest import add_forest

        add_forest(judged, halves, forms, seed=seed)
    return head | {
        "split": SPLIT,
        "halves": [{"rows": c.provenance.rows, "images": c.provenance.images} for c in chosen],
        "price": PRICE,
        "thresholds": [c.model_dump(by_alias=True)["thresholds"] for c in chosen],
        "held_out": figures(judged.only(halves == 1), books[:1], resamples=resamples, seed=seed),
        "two_fold": figures(judged, books, resamples=resamples, seed=seed),
    }, chosen[0]


def judge_rows(rows: Sequence[Row], books: Sequence[RuleBook], halves: Array) -> Judged:
    """Judge every row by the rules for its half; what cannot be judged is UNDECIDED and says why."""
    verdicts, lead, reasons = np.zeros(len(rows), int), np.full(len(rows), NO), []
    for i, (row, h) in enumerate(zip(rows, halves, strict=True)):
        relation, one = row.triplet.relation, row.labelled
        if one is not None:
            judgement = books[h].judge_pair(relation, one.pair)
            lead[i] = books[h].evidence(relation, one.pair).true
        else:
            judgement = books[h].judge(relation, list(row.subjects), list(row.objects))
        verdicts[i] = (judgement.verdict is Verdict.PASS) - (judgement.verdict is Verdict.FAIL)
        reasons.append(judgement.reason)
    return Judged(list(rows), verdicts, lead, reasons)


def _chosen_on(found: Rows, halves: Array, which: int, forms: Forms, data: str) -> Thresholds:
    mine = [row for row, h in zip(found.rows, halves, strict=True) if h == which]
    statements = [one for row in mine if (one := row.labelled) is not None]
    if len(statements) < FEWEST:
        raise VsreError(
            f"half {which} of the images has {len(statements)} rows with one box each for subject and object: too few "
            "to choose thresholds on. Measure the shipped ones with --fixed."
        )
    provenance = Provenance(
        data=data,
        half=f"{which}; {SPLIT}",
        rows=len(mine),
        images=len({row.triplet.image_name for row in mine}),
        price=PRICE,
        fewest=FEWEST,
        forms=forms.digest,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return Thresholds(provenance=provenance, thresholds=choose_thresholds(forms, statements))


def _candidate_counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows have one box each, several of a class, or none."""
    counts = Counter(
        "missing" if not (row.subjects and row.objects) else "one each" if row.labelled else "several" for row in rows
    )
    return dict(counts.most_common())
