"""Figures of verdicts on a set of triplets: about the verifier if labels are trusted, about the pictures if labels only
say what was asked for.

A label is trusted if a person gave it or the picture was drawn to match it. A repainted triplet's label that is
`intended` or `verified` is not: nobody vouches for it, or only a verifier does. Intervals are Wilson's, 95 %; they
ignore that statements about one picture are not independent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from vsre.rates import share
from vsre.relations.things import Verdict
from vsre.verify.presence import State

COLUMNS = (
    "image_id", "subject", "relation", "object", "label", "kind", "truth", "verdict", "missing", "reason",
    "subject_state", "object_state",
)  # fmt: skip
"""The columns of `vsre.verify.verdicts.SCHEMA` that the figures are made from."""

OUTCOMES = ("pass", "fail", "missing", "undecided")
"""FAIL is split in two: because of where things are, and because one of them is missing."""

_NOT_LOOKED_AT = "not looked at"
"""The state of a thing for which the verifier gives none, for example if a picture cannot be opened."""

_ASKED_FOR = ("intended", "verified")


class _Like(NamedTuple):
    """Verdicts that are counted together."""

    relation: str
    label: bool
    kind: str | None
    truth: str | None
    outcome: str
    reason: str
    bears_out: bool


_Counted = Sequence[tuple[_Like, int]]


def figures(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of rows with COLUMNS, as JSON: counts of verdicts and reasons, the confusion with trusted labels,
    what became of what was asked for, and how often each class is found. The rows are read once."""
    pictures: set[str] = set()
    states: dict[tuple[str, str], str | None] = {}
    alike: Counter[_Like] = Counter()
    for row in rows:
        pictures.add(row["image_id"])
        alike[_like(row)] += 1
        for part in ("subject", "object"):
            # An object-absent caption names a thing that is not there.
            if not (row["kind"] == "object-absent" and part == "subject"):
                states[row["image_id"], row[part]] = row[f"{part}_state"]
    counted = list(alike.items())
    because = _counter((like.reason, n) for like, n in counted if like.outcome == "undecided")
    found: dict[str, Any] = {
        "triplets": alike.total(),
        "pictures": len(pictures),
        "verdicts": _outcomes(counted),
        "undecided_because": dict(because.most_common()),
    }
    if labelled := [(like, n) for like, n in counted if like.truth not in _ASKED_FOR]:
        found["against_labels"] = {"all": confusion(labelled), "by_relation": _by("relation", labelled, confusion)}
    if asked_for := [(like, n) for like, n in counted if like.truth in _ASKED_FOR]:
        found["asked_for"] = {
            "all": borne_out(asked_for),
            "by_kind": _by("kind", asked_for, borne_out),
            "by_relation": _by("relation", asked_for, borne_out),
        }
    return found | {"classes": classes(states)}


def confusion(counted: _Counted) -> dict[str, Any]:
    """Counts and shares of the verdicts on true and on false captions.

    `pass_is_true`, `fail_is_false` and `missing_is_false` are the shares of verdicts that the labels confirm,
    `true_found` and `false_found` the shares of labels that a verdict confirms, with FAIL for either reason.
    """
    table = {
        name: _outcomes([(like, n) for like, n in counted if like.label is label])
        for name, label in (("true", True), ("false", False))
    }
    true, false = table["true"], table["false"]
    total = sum(true.values()) + sum(false.values())
    return {
        "n": total,
        **table,
        "pass_is_true": share(true["pass"], true["pass"] + false["pass"]),
        "fail_is_false": share(false["fail"], true["fail"] + false["fail"]),
        "missing_is_false": share(false["missing"], true["missing"] + false["missing"]),
        "true_found": share(true["pass"], sum(true.values())),
        "false_found": share(false["fail"] + false["missing"], sum(false.values())),
        "decided": share(total - true["undecided"] - false["undecided"], total),
    }


def borne_out(counted: _Counted) -> dict[str, Any]:
    """Verdicts on what a painter was asked for, and the share that confirms it (see `vsre.repaint.verify`)."""
    total = sum(n for _, n in counted)
    return {
        "n": total,
        **_outcomes(counted),
        "borne_out": share(sum(n for like, n in counted if like.bears_out), total),
    }


def classes(states: Mapping[tuple[str, str], str | None]) -> dict[str, dict[str, Any]]:
    """Class -> in how many pictures a caption names it as present, and how often it was found where it was looked for;
    `states` holds the states of `presence`."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (_, name), state in states.items():
        counts[name][state or _NOT_LOOKED_AT] += 1
    return {
        name: {"pictures": of.total(), **of, "found": share(of[State.PRESENT], of.total() - of[_NOT_LOOKED_AT])}
        for name, of in sorted(counts.items())
    }


def _like(row: Mapping[str, Any]) -> _Like:
    outcome = "missing" if row["missing"] else str(row["verdict"])
    if row["kind"] == "object-absent":
        gone = row["subject_state"] == State.ABSENT and row["object_state"] == State.PRESENT
        bears_out = outcome == "missing" and gone
    else:
        bears_out = outcome == (Verdict.PASS if row["label"] else Verdict.FAIL)
    return _Like(row["relation"], row["label"], row["kind"], row["truth"], outcome, row["reason"], bears_out)


def _outcomes(counted: _Counted) -> dict[str, int]:
    counts = _counter((like.outcome, n) for like, n in counted)
    return {name: counts[name] for name in OUTCOMES}


def _counter(counted: Iterable[tuple[str, int]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, n in counted:
        counts[name] += n
    return counts


def _by(field: str, counted: _Counted, of: Callable[[_Counted], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    groups: defaultdict[str, list[tuple[_Like, int]]] = defaultdict(list)
    for like, n in counted:
        groups[str(getattr(like, field))].append((like, n))
    return {name: of(groups[name]) for name in sorted(groups)}
