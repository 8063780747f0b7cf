"""The verdict of an audit in one line, and the line that a report on a leaking protocol opens with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vsre.audit.fields import CONTENT, OTHER, PROVENANCE, VOTES
from vsre.audit.labels import told
from vsre.sources.protocols import PROTOCOLS, TEST_IMAGE, TEST_ROW

SMALL = 0.01
"""If training touches less than this share of the test rows, shared rows and pictures are called a small leak."""

_GUESSERS = {
    "per_relation": "by the relation alone",
    "ngrams": "by the caption's words",
    "leave_one_out": "by training labels of the same caption",
}


def verdict(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return `leaks`, `small`, the `line` for people, the `reasons` it sums up, `warnings` that are not leaks, and
    `limits`: what could not be compared."""
    rows, images, clean = figures["test"]["rows"], figures["test"]["images"], figures["clean"]
    shared = _shared(figures["findings"], rows, images, figures["floors"].get("lookup_or_opposite"))
    words = _words(figures["floors"])
    named = [f["field"] for f in figures["fields"] if f["tells_label"] and f["kind"] == OTHER]
    fields = [f"the field{'s' * (len(named) > 1)} {_listed(named)} reveal{'s' * (len(named) == 1)} the label"] * bool(
        named
    )
    touched = rows - clean["rows"]
    small = bool(shared) and not words and not fields and touched < SMALL * rows
    reasons = [*shared, *words, *fields]
    left = f"Clean by picture: {clean['rows']:,} test rows on {clean['images']:,} pictures."
    if not reasons:
        line = f"No leak found by these checks in {rows:,} test rows."
    else:
        said = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        line = f"{'SMALL LEAK' if small else 'LEAKS'}: {said}. {left}"
    return {
        "leaks": bool(reasons),
        "small": small,
        "line": line,
        "reasons": reasons,
        "warnings": _warnings(figures),
        "limits": _limits(figures),
    }


def leak_summary(leak: Mapping[str, Any] | Any | str | None) -> str | None:
    """Return one line for the first screen of a report about a model, None if there is no leak to report.

    `leak` is the name of a protocol, an `Audit`, or an audit's figures as in its JSON. A protocol leaks if it keeps
    test rows or test images in training; a name that is not a protocol of vsre says nothing and gives None.
    """
    if leak is None:
        return None
    if isinstance(leak, str):
        protocol = PROTOCOLS.get(leak)
        if protocol is None or {TEST_ROW, TEST_IMAGE} <= set(protocol.removes):
            return None
        kept = "rows and test pictures" if TEST_ROW not in protocol.removes else "pictures"
        return (
            f"Leaky protocol “{leak}”: test {kept} are left in the training data, so these figures measure memory as "
            f"well as sight. On VSR's published files 830 of the 1,222 test rows (67.9 %) are trained on word for word."
        )
    figures = leak if isinstance(leak, Mapping) else leak.figures
    found = figures.get("verdict", {})
    if not found.get("leaks"):
        return None
    return found["line"] + ("" if found["small"] else " Scores on this test measure memory as well as sight.")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shared(findings: Mapping[str, Any], rows: int, images: int, lookup: Mapping[str, Any] | None) -> list[str]:
    verbatim, near, derived = (findings[name] for name in ("verbatim_rows", "near_rows", "derived_rows"))
    same, copies, made = (findings[name] for name in ("same_images", "near_images", "made_from_images"))
    reasons = []
    if verbatim["count"]:
        reasons.append(
            f"{_of(verbatim['count'], rows, 'test row')} ({percent(verbatim['share'])}) are in the training files"
            + (f", {verbatim['other_label']:,} with the other label" if verbatim["other_label"] else "")
            + (f": looking them up, without a picture, scores {percent(lookup['value'])}" if lookup else "")
        )
    if near["count"]:
        reasons.append(f"{_of(near['count'], rows, 'test row')} are there with a near copy of the picture")
    if same["count"]:
        text = f"{_of(same['count'], images, 'test picture')} ({percent(same['share'])}) are trained on"
        reasons.append(f"{text}, used by {same['rows']:,} test rows")
    if copies["count"]:
        reasons.append(f"{_of(copies['count'], images, 'test picture')} have a near copy in training")
    if made["count"]:
        reasons.append(f"{_of(made['count'], images, 'test picture')} were made into training pictures, or from them")
    if derived["count"]:
        reasons.append(f"{_of(derived['count'], rows, 'test row')} follow from training rows")
    return reasons


def _words(floors: Mapping[str, Any]) -> list[str]:
    """Return the best guesser that knows only the words, if its interval is above the better constant's."""
    found = told(dict(floors))
    if not found:
        return []
    best = max(found, key=lambda name: floors[name]["value"])
    figure = floors[best]
    return [
        f"captions reveal the label: a guesser without pictures scores {percent(figure['value'])} "
        f"[{100 * figure['low']:.1f}, {100 * figure['high']:.1f}] {_GUESSERS[best]} "
        f"(a constant answer {percent(floors['constant']['value'])})"
    ]


def _warnings(figures: Mapping[str, Any]) -> list[str]:
    found = []
    findings = figures["findings"]
    for side in ("train", "test"):
        entry = findings[f"conflicts_in_{side}"]
        if entry["count"]:
            found.append(
                f"{entry['count']:,} {side} rows ({entry['pairs']:,} pictures with captions) have both labels."
            )
        if figures[side]["set_aside"]["rows"]:
            found.append(f"{figures[side]['set_aside']['rows']:,} {side} rows could not be used and are in no figure.")
    telling = {
        kind: [f["field"] for f in figures["fields"] if f["tells_label"] and f["kind"] == kind] for kind in _KEPT
    }
    for kind, why in _KEPT.items():
        if telling[kind]:
            found.append(f"{_listed(telling[kind])} reveal the label: {why}.")
    return found


def _limits(figures: Mapping[str, Any]) -> list[str]:
    found, pictures = [], figures["pictures"]
    by_name = [side for side in ("train", "test") if pictures["with_content"][side] < figures[side]["images"]]
    if by_name:
        some = "Pictures" if not any(pictures["with_content"].values()) else f"Some {' and '.join(by_name)} pictures"
        found.append(f"{some} are known by file name only: name their folders (--images) to find copies of them.")
    if any(pictures["with_content"].values()) and not figures["settings"]["near"]:
        found.append("Near copies were not looked for (--no-near).")
    if pictures["unreadable"]["count"]:
        found.append(
            f"{pictures['unreadable']['count']:,} pictures cannot be opened, so their near copies were not looked for; "
            f"the first: {pictures['unreadable']['first'][0]}"
        )
    if pictures["names_of_several"]:
        found.append(
            f"{pictures['names_of_several']:,} file names stand for different pictures, distinguished by content."
        )
    if "questions" in figures["train"]["kinds"] + figures["test"]["kinds"]:
        found.append(
            "Questions are known by their key, without a caption: captions and blind floors cannot be compared."
        )
    return found


_KEPT = {
    VOTES: "the labels were made from these votes, keep them from every model",
    PROVENANCE: "vsre shows no model a row's provenance, keep it that way",
    CONTENT: "what the statement is about gives its label away, see the blind floors",
}


def _of(count: int, of: int, what: str) -> str:
    return f"{count:,} of {of:,} {what}s"


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")
