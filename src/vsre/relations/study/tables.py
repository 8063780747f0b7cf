"""What `vsre geometry` prints: aims, published rules, and every relation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from vsre.relations.rule_forms import SIDES

TITLES = {
    "held_out": "held out: thresholds chosen on half 0, reported on half 1",
    "two_fold": "two-fold: each half judged by the thresholds chosen on the other",
    "half_1": "thresholds as given, on half 1: the VSR photos on which no shipped threshold was chosen",
    "as_given": "thresholds as given, on all rows (the shipped ones were chosen on half of VSR's photos)",
}

Figures = Mapping[str, Any]

_WORDS = ("", "verdict", "says", "boxes lack", "relations (rows)")


def tables(found: Figures) -> list[Table]:
    """The tables for people, from the figures of `run.study`; percentages, with 95 % intervals over images."""
    parts = [name for name in TITLES if name in found]
    whole = parts[-1]
    return [
        _aims(found, parts),
        *(_published(found[part], TITLES[part]) for part in parts if found[part]["published"]),
        _relations(found[whole], "rules", f"rules, {TITLES[whole]}"),
        _relations(found[whole], "relations", f"relations, {TITLES[whole]}"),
        _undecided(found[whole]),
    ]


def _table(*heads: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for place, head in enumerate(heads):
        words = place == 0 or head in _WORDS
        table.add_column(head, justify="left" if words else "right", overflow="fold")
    return table


def _aims(found: Figures, parts: list[str]) -> Table:
    heads = [head for part in parts for head in (part.replace("_", " "), "", "cover", "n")]
    table = _table("aim", "verdict", "wanted", *heads, title="aims: precision")
    entries = {part: {aim["name"]: aim for aim in found[part]["aims"]} for part in parts}
    for name, aim in entries[parts[-1]].items():
        cells = [escape(name), aim["verdict"].upper(), f"{100 * aim['wanted']:.0f}"]
        for part in parts:
            one = entries[part].get(name)
            if one is None:
                cells += ["-", "", "-", "0"]
                continue
            mark = {True: "met", False: "missed", None: ""}[one["met"]]
            cells += [_figure(one["precision"]), mark, _share(one["coverage"]), f"{one['precision']['n']:,}"]
        table.add_row(*cells)
    return table


def _published(part: Figures, title: str) -> Table:
    heads = ("accuracy", "precision", "cover", "our precision", "cover", "our gain at the same cover")
    table = _table("published", "says", "n", *heads, title=f"published rules, {title}")
    for row in part["published"]:
        same = row["same_coverage"]
        table.add_row(
            row["rule"],
            row["direction"],
            f"{row['n']:,}",
            _share(row["accuracy"]),
            _figure(row["precision"]),
            _share(row["coverage"]),
            _figure(row["ours"]["precision"]),
            _share(row["ours"]["coverage"]),
            f"{_figure(same['gain'], sign=True)} at {100 * same['coverage']:.0f}",
        )
    return table


def _relations(part: Figures, group: str, title: str) -> Table:
    named = group == "relations"
    forest = not named and any("precision_of_forest" in entry["pass"] for entry in part[group].values())
    heads = [head for side in SIDES for head in (side.upper(), "cover", "precision", "recall")]
    if forest:
        heads[3:3], heads[8:8] = ["forest"], ["forest"]
    table = _table(group.removesuffix("s"), "n", *heads, *(("ceiling",) if named else ()), title=title)
    entries = dict(part[group]) if named else {**part[group], "all relations": part["all"]}
    if named:
        decided = {name: entry for name, entry in entries.items() if any(entry[side]["n"] for side in SIDES)}
        entries = dict(sorted(decided.items(), key=lambda item: -item[1]["n"]))
    for name, entry in entries.items():
        cells = [escape(name), f"{entry['n']:,}"]
        for side in SIDES:
            one = entry[side]
            said = [f"{one['n']:,}", _share(one["coverage"]), _figure(one["precision"])]
            said += [_percent(one.get("precision_of_forest"))] if forest else []
            cells += [*said, _share(one["recall"])] if one["n"] else ["-"] * (len(said) + 1)
        table.add_row(*cells, *([_percent(entry["label_ceiling"])] if named else []))
    return table


def _undecided(part: Figures) -> Table:
    """What boxes leave UNDECIDED however they lie, and what they lack."""
    table = _table("verdict", "boxes lack", "relations (rows)", title="left UNDECIDED by boxes alone")
    groups: dict[tuple[str, str], list[str]] = {}
    for name, entry in sorted(part["relations"].items(), key=lambda item: -item[1]["n"]):
        lacks = entry["lacks"]
        both = lacks["pass"] == lacks["fail"]
        for side in ("both",) if both else SIDES:
            why = lacks["pass" if both else side]
            if why:
                groups.setdefault((side, why), []).append(f"{name} ({entry['n']:,})")
    for (side, why), names in sorted(groups.items()):
        table.add_row("PASS and FAIL" if side == "both" else side.upper(), escape(why), escape(", ".join(names)))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _share(figure: Figures) -> str:
    return _percent(figure["value"])


def _figure(figure: Figures, *, sign: bool = False) -> str:
    """ "93.1 (90-96)"."""
    if figure["value"] is None:
        return "-"
    plus = "+" if sign else ""
    low, high = (f"{100 * figure[k]:{plus}.0f}" for k in ("low", "high"))
    return f"{100 * figure['value']:{plus}.1f} " + (f"({low} to {high})" if sign else f"({low}-{high})")
