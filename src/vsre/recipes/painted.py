"""What a report says about pictures that a verifier checked: pass rates, and how reliable the verifier is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vsre.rates import share_text
from vsre.repaint.statistics_page import write_statistics
from vsre.verify import build_verifier
from vsre.verify.scene_check import ABSENT, ALL, TrueBoxes, compare, confusion, scene_statements

UNITS = 60
"""Pairs of drawn scenes on which a verifier is measured."""

_RATES = {
    "kept": "kept",
    "things_found": "things found",
    "relation_holds": "relation holds",
    "old_subject_gone": "old subject gone",
}


def look_at_painted(painted: Path, verifier: str, *, drawn: bool, seed: int) -> dict[str, Any]:
    """Return rows for the report: "pictures", one per setting, and "verifier", its verdicts on drawn scenes against
    the truth.

    `drawn`: the recipe's world is drawn, so that a verifier can be measured on scenes of the test split (else
    "verifier" is empty). Also writes the statistics page to the pictures' folder.
    """
    figures = write_statistics(painted, seed=seed)
    pictures = [
        {
            "setting": name,
            "jobs": found["jobs"],
            "pictures": found["pictures"],
            **{label: share_text(found[rate]) for rate, label in _RATES.items()},
        }
        for name, found in figures["setting"].items()
    ]
    rows: list[dict[str, Any]] = []
    if drawn:
        statements = list(scene_statements(UNITS, seed))
        for who, judge in (("this verifier", build_verifier(verifier)), ("the same rules on true boxes", TrueBoxes())):
            tables = confusion(compare(judge, statements))
            rows += [_row(who, tables[name], kind) for name, kind in _KINDS.items() if name in tables]
    return {"pictures": pictures, "verifier": rows, "page": str(painted / "statistics.html")}


_KINDS = {ALL: "both things are there", ABSENT: "the subject is not there"}


def _row(who: str, table: dict[str, Any], kind: str) -> dict[str, Any]:
    counts = {
        f"{truth}: {outcome}": table[truth][outcome]
        for truth in ("true", "false")
        for outcome in ("pass", "fail", "missing", "undecided")
    }
    rates = {"PASS is true": "pass", "FAIL is false": "fail", "missing is false": "missing"}
    return {
        "who": who,
        "statements": kind,
        **counts,
        **{label: share_text(table[outcome]["precision"]) for label, outcome in rates.items()},
    }
