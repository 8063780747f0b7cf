"""Spot checks by a person: a page of painted pictures to mark true or false, and the verifier's confusion matrix from
the marks.

The page shows a picture and a statement about it, and hides the verifier's opinion until the person has marked it, so
as not to lead them. FAIL is two verdicts here: because of where things are ("fail"), and because one of them was not
found ("missing"). Equally many statements of each verdict are drawn at random, so that rare verdicts are seen; how
often each verdict occurs in the whole set is recorded, and weights the share for the whole set.

OUT/spot-check/index.html   the page; marks stay in the browser, and its button saves them to a file
OUT/spot-check/items.json   what was asked, with the verdicts
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from vsre.errors import VsreError
from vsre.rates import share
from vsre.relations.things import Verdict
from vsre.repaint.ledger import read_pictures
from vsre.repaint.pages import judged_picture, thumbnail, uri, write_page
from vsre.repaint.statistics import with_pictures

FOLDER, PAGE, ITEMS = "spot-check", "index.html", "items.json"
MARKS = ("true", "false", "unclear")
STRATA = ("pass", "fail", "missing", "undecided")
_SIDE = 420


def write_spot_check(out: Path | str, *, statements: int = 60, seed: int = 0) -> Path:
    """Write the page for some of the verdicts of a repainted set; returns its path.

    Statements about a missing thing are left out: the matrix is about captions whose truth the verifier judged. Raises
    VsreError if there is no ledger, and if no verifier looked.
    """
    if statements < 1:
        raise VsreError("--statements must be at least 1.")
    out = Path(out)
    strata: dict[str, list[dict[str, Any]]] = {name: [] for name in STRATA}
    for row in with_pictures(out):
        for verdict in row["verdicts"] or ():
            if verdict["kind"] != "object-absent":
                said = _stratum(verdict)
                strata[said].append({"job": row["job"], "setting": row["setting"], **verdict, "verdict": said})
    population = {verdict: len(found) for verdict, found in strata.items()}
    if not sum(population.values()):
        raise VsreError(f"{out}: no verifier has looked at these pictures, so there is nothing to check.")
    chosen = _chosen(strata, statements, Random(seed))
    pictures = dict(read_pictures(out, {item["job"] for item in chosen}))
    shown = []
    for item in chosen:
        image = pictures[item["job"]]
        item["id"] = hashlib.sha256(f"{item['job']}/{item['caption']}".encode()).hexdigest()[:12]
        shown.append(
            {
                **{k: item[k] for k in ("id", "caption", "verdict", "setting")},
                "reason": item.get("reason", ""),
                "plain": uri(thumbnail(image, _SIDE)),
                "boxed": judged_picture(image, _SIDE, item),
            }
        )
    kept = [
        {k: item[k] for k in ("id", "job", "setting", "caption", "relation", "verdict", "margin")} for item in chosen
    ]
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
    record = {"check": digest, "seed": seed, "population": population, "items": kept}
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ITEMS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return write_page(
        folder / PAGE, "spot_check.html.j2", name=out.name, check=digest, items=shown, population=population
    )


def _stratum(verdict: Mapping[str, Any]) -> str:
    """One of STRATA."""
    there = {verdict["subject"], verdict["object"]} <= verdict["boxes"].keys()
    return "missing" if verdict["verdict"] == Verdict.FAIL and not there else str(verdict["verdict"])


def _chosen(strata: Mapping[str, list[dict[str, Any]]], statements: int, rng: Random) -> list[dict[str, Any]]:
    """Equally many of each verdict, in random order; places that one cannot fill go to the others."""
    for found in strata.values():
        rng.shuffle(found)
    chosen: list[dict[str, Any]] = []
    depth = 0
    while len(chosen) < statements and any(depth < len(found) for found in strata.values()):
        chosen += [found[depth] for found in strata.values() if depth < len(found)]
        depth += 1
    chosen = chosen[:statements]
    rng.shuffle(chosen)
    return chosen


def score_marks(out: Path | str, marks: Path | str) -> dict[str, Any]:
    """The confusion matrix of a person's marks, as JSON.

    `matrix`: one of STRATA -> counts of "true", "false" and "unclear"; `pass_is_true`, `fail_is_false` and
    `missing_is_false` with Wilson's 95 % interval; `set_is_true` is the share of all statements of the set that would
    be marked true, each verdict weighted by how often it occurs in the set (None if a verdict that occurs was not
    marked). Raises VsreError for marks of another page, and for a file without marks.
    """
    record = json.loads(_text(Path(out) / FOLDER / ITEMS, "Write the page first: vsre repaint spot-check OUT."))
    try:
        given = json.loads(_text(Path(marks), "Save the marks with the page's button."))
        check, found = given["check"], dict(given["marks"])
    except (ValueError, TypeError, KeyError) as error:
        raise VsreError(f"{marks}: not a file of marks saved by the page's button.") from error
    if check != record["check"]:
        raise VsreError(f"{marks}: these marks were made on another page than {Path(out) / FOLDER / PAGE}.")
    verdicts = {item["id"]: item["verdict"] for item in record["items"]}
    wrong = [(name, mark) for name, mark in found.items() if name not in verdicts or mark not in MARKS]
    if wrong:
        raise VsreError(f"{marks}: the mark {wrong[0][1]!r} of {wrong[0][0]!r} is none that the page makes.")
    counts = Counter((verdicts[name], mark) for name, mark in found.items())
    matrix = {name: {mark: counts[name, mark] for mark in MARKS} for name in STRATA}
    clear = {verdict: row["true"] + row["false"] for verdict, row in matrix.items()}
    return {
        "marked": len(found),
        "of": len(verdicts),
        "matrix": matrix,
        "pass_is_true": share(matrix["pass"]["true"], clear["pass"]),
        "fail_is_false": share(matrix["fail"]["false"], clear["fail"]),
        "missing_is_false": share(matrix["missing"]["false"], clear["missing"]),
        "set_is_true": _weighted(matrix, clear, record["population"]),
        "population": record["population"],
    }


def _weighted(
    matrix: Mapping[str, Mapping[str, int]], clear: Mapping[str, int], population: Mapping[str, int]
) -> float | None:
    there = {verdict: n for verdict, n in population.items() if n}
    if any(not clear[verdict] for verdict in there):
        return None
    whole = sum(there.values())
    return round(sum(n / whole * matrix[verdict]["true"] / clear[verdict] for verdict, n in there.items()), 4)


def _text(path: Path, hint: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VsreError(f"{path}: cannot be read. {hint}") from error
