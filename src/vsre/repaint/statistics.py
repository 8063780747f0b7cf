"""What a repainted set shows, counted from its ledger: how often both things are found and the relation holds, by
setting, relation, class and the painter's numbers, and why pictures were refused or rejected.

The detection rate is over things that a picture was asked to show, each counted once however many statements name it;
the pass rate is over true statements whose two things were found. Both are what the verifier says: `vsre repaint
spot-check` measures the verifier against a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsre.rates import share
from vsre.relations.things import Verdict
from vsre.repaint.ledger import ledger_rows

COLUMNS = (
    "job",
    "setting",
    "subject",
    "relation",
    "object",
    "caption",
    "painter",
    "status",
    "reason",
    "truth",
    "steps",
    "guidance",
    "strength",
    "strength_run",
    "verdicts",
    "statements",
    "picture",
    "dhash",
    "pixels",
    "bytes",
    "seconds",
)


@dataclass
class Tally:
    """Jobs of one group, and what the verifier found in their pictures."""

    jobs: int = 0
    pictures: int = 0
    kept: int = 0
    looked_at: int = 0
    """Pictures that a verifier looked at."""
    things: Counter[bool] = field(default_factory=Counter)
    """Things asked for, once per picture: found or not."""
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    """Of true statements whose two things were found."""
    gone: Counter[bool] = field(default_factory=Counter)
    """Object-absent statements: the subject is gone or not, if that is decided."""

    def add(self, row: Mapping[str, Any]) -> None:
        self.jobs += 1
        self.pictures += row["picture"] is not None
        self.kept += row["status"] == "painted"
        self.looked_at += row["verdicts"] is not None

    def see(self, verdict: Mapping[str, Any]) -> None:
        """Count one verdict on a statement."""
        if verdict["kind"] == "object-absent":
            if verdict["agrees"] is not None:
                self.gone[bool(verdict["agrees"])] += 1
            return
        if verdict["kind"] == "positive" and {verdict["subject"], verdict["object"]} <= verdict["boxes"].keys():
            self.verdicts[Verdict(verdict["verdict"])] += 1

    def figures(self) -> dict[str, Any]:
        """The figures as JSON; rates with Wilson's 95 % interval, None if there was nothing to count."""
        both = self.verdicts.total()
        return {
            "jobs": self.jobs,
            "pictures": self.pictures,
            "kept": share(self.kept, self.looked_at),
            "things_found": share(self.things[True], self.things.total()),
            "relation_holds": share(self.verdicts[Verdict.PASS], both),
            "relation_open": share(self.verdicts[Verdict.UNDECIDED], both),
            "old_subject_gone": share(self.gone[True], self.gone.total()),
        }


def statistics(out: Path | str) -> dict[str, Any]:
    """The figures of a repainted set, as JSON: `all`, and a mapping of groups for `setting`, `relation`, `numbers`;
    `class` has the detection rate of each class asked for. Raises VsreError if there is no ledger."""
    return count(ledger_rows(out, COLUMNS))


def count(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`statistics` from rows of a ledger, with JSON columns parsed."""
    whole = Tally()
    groups: dict[str, dict[str, Tally]] = {name: {} for name in ("setting", "relation", "numbers")}
    classes: dict[str, Counter[bool]] = {}
    reasons: dict[str, Counter[str]] = {"refused": Counter(), "rejected": Counter()}
    open_: Counter[str] = Counter()
    truth: Counter[str] = Counter()
    pictures: Counter[str] = Counter()
    seconds, size = 0.0, 0
    for row in rows:
        mine = [whole, *(groups[name].setdefault(_group(row, name), Tally()) for name in ("setting", "numbers"))]
        for tally in mine:
            tally.add(row)
        seconds, size = seconds + (row["seconds"] or 0.0), size + (row["bytes"] or 0)
        if row["status"] in reasons:
            reasons[row["status"]][row["reason"] or "not stated"] += 1
        if row["picture"] is not None:
            pictures[row["picture"]] += 1
        if row["status"] == "painted":
            truth[row["truth"]] += 1
        asked: dict[str, bool] = {}
        of_relation: dict[str, dict[str, bool]] = {}
        for verdict in row["verdicts"] or ():
            relation = groups["relation"].setdefault(verdict["relation"], Tally())
            if verdict["relation"] not in of_relation:
                relation.add(row)
            named = of_relation.setdefault(verdict["relation"], {})
            for tally in (*mine, relation):
                tally.see(verdict)
            if verdict["kind"] != "object-absent":
                for thing in (verdict["subject"], verdict["object"]):
                    found = thing in verdict["boxes"]
                    asked[thing], named[thing] = asked.get(thing, False) or found, named.get(thing, False) or found
            if verdict["verdict"] == Verdict.UNDECIDED and verdict.get("reason"):
                open_[verdict["reason"]] += 1
        for tally in mine:
            tally.things.update(asked.values())
        for name, named in of_relation.items():
            groups["relation"][name].things.update(named.values())
        for thing, found in asked.items():
            classes.setdefault(thing, Counter())[found] += 1
    return {
        "all": whole.figures(),
        **{name: {key: group[key].figures() for key in sorted(group)} for name, group in groups.items()},
        "class": {name: share(of[True], of.total()) for name, of in sorted(classes.items())},
        "reasons": {status: dict(of.most_common()) for status, of in reasons.items()},
        "undecided": dict(open_.most_common()),
        "truth": dict(truth.most_common()),
        "same_picture_twice": sum(n - 1 for n in pictures.values()),
        "megabytes": round(size / 1e6, 2),
        "seconds": round(seconds, 1),
    }


def _group(row: Mapping[str, Any], name: str) -> str:
    if name == "setting":
        return str(row["setting"])
    told = [f"{key} {row[key]:g}" for key in ("steps", "guidance", "strength") if row[key] is not None]
    if row.get("strength_run") is not None:
        told.append(f"run at {row['strength_run']:.2g}")
    return f"{row['setting']}: {', '.join(told)}" if told else f"{row['setting']}: no numbers"


def with_pictures(out: Path | str) -> Iterator[dict[str, Any]]:
    """The ledger's rows that have a picture, with JSON columns parsed."""
    return (row for row in ledger_rows(out, COLUMNS) if row["picture"] is not None)
