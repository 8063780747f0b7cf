"""The statistics of a repainted set as a page with pictures: OUT/statistics.html and OUT/statistics.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from vsre.errors import VsreError
from vsre.rates import share_text
from vsre.repaint.ledger import read_pictures
from vsre.repaint.pages import judged_picture, thumbnail, uri, write_page
from vsre.repaint.statistics import statistics, with_pictures

_SIDE = 220
_RATES = ("kept", "things_found", "relation_holds", "relation_open", "old_subject_gone")
_FEW = 30
"""A rate over fewer is shown in grey."""


def write_statistics(out: Path | str, *, examples: int = 6, seed: int = 0) -> dict[str, Any]:
    """Count the ledger of a repainted set and write the page and the JSON; returns the figures.

    `examples`: number of pictures shown per setting and outcome (kept, turned down), drawn at random. Raises VsreError
    if there is no ledger.
    """
    if examples < 0:
        raise VsreError("--examples must be at least 0.")
    out = Path(out)
    figures = statistics(out)
    (out / "statistics.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_page(
        out / "statistics.html",
        "statistics.html.j2",
        name=out.name,
        whole=figures["all"],
        figures=figures,
        tables=[
            ("setting", "By setting", _rows(figures["setting"])),
            ("relation", "By relation", _rows(figures["relation"])),
            ("numbers", "By the painter's numbers", _rows(figures["numbers"])),
        ],
        classes=[(name, share_text(rate), _few(rate)) for name, rate in _worst_first(figures["class"])],
        rates={name: share_text(figures["all"][name]) for name in _RATES},
        shown=list(_shown(out, examples, Random(seed))),
    )
    return figures


def _rows(groups: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per group, the largest first; each rate as text and whether it is based on few."""
    ordered = sorted(groups.items(), key=lambda item: (-item[1]["jobs"], item[0]))
    return [
        {
            "name": name,
            "jobs": found["jobs"],
            "pictures": found["pictures"],
            "rates": [(share_text(found[rate]), _few(found[rate])) for rate in _RATES],
        }
        for name, found in ordered
    ]


def _few(rate: Mapping[str, Any] | None) -> bool:
    return rate is None or rate["n"] < _FEW


def _worst_first(classes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(classes.items(), key=lambda item: (item[1]["value"] if item[1] else 2.0, item[0]))


def _shown(out: Path, examples: int, rng: Random) -> Iterator[dict[str, Any]]:
    """Groups of pictures: a setting, what became of them, and a random sample of them with what is said and found."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    met: dict[tuple[str, str], int] = {}
    for row in with_pictures(out):
        key = (row["setting"], row["status"])
        sample = groups.setdefault(key, [])
        met[key] = met.get(key, 0) + 1
        if len(sample) < examples:
            sample.append(row)
        elif (place := rng.randrange(met[key])) < examples:
            sample[place] = row
    pictures = dict(read_pictures(out, {row["job"] for sample in groups.values() for row in sample}))
    for (setting, status), sample in sorted(groups.items()):
        yield {
            "setting": setting,
            "status": {"painted": "kept", "rejected": "turned down"}[status],
            "count": met[setting, status],
            "cards": [_card(row, pictures[row["job"]]) for row in sample],
        }


def _card(row: Mapping[str, Any], image: bytes) -> dict[str, Any]:
    verdicts = row["verdicts"] or []
    said = [
        {"caption": v["caption"], "kind": v["kind"], "verdict": v["verdict"], "reason": v.get("edit") or v["reason"]}
        for v in verdicts
    ] or [{"caption": s["caption"], "kind": s["kind"], "verdict": "", "reason": ""} for s in row["statements"]]
    return {
        "picture": judged_picture(image, _SIDE, verdicts[0]) if verdicts else uri(thumbnail(image, _SIDE)),
        "source": row["caption"],
        "reason": row["reason"] or "",
        "said": said,
    }
