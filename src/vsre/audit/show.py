"""An audit for people: the verdict, what both sides share, what a guesser without pictures scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vsre.audit.fields import OTHER
from vsre.audit.verdict import percent
from vsre.report.text import clean

_ENOUGH = 20  # test rows of a relation for its balance to be mentioned

_SHORT = {
    "verbatim_rows": "test rows in training",
    "near_rows": "test rows there with a near copy of the picture",
    "derived_rows": "test rows that follow from training rows",
    "same_images": "test pictures in training",
    "near_images": "near copies of test pictures",
    "made_from_images": "test pictures made into training pictures",
    "same_captions": "test captions in training",
    "one_label_captions": "captions with one label",
    "conflicts_between": "test rows in training with the other label",
    "conflicts_in_train": "training rows with both labels",
    "conflicts_in_test": "test rows with both labels",
    "repeated_in_train": "repeated training rows",
    "repeated_in_test": "repeated test rows",
}

_FLOORS = {
    "constant": "one answer to all, the better one",
    "majority": "the commonest label of training",
    "per_relation": "the commonest label of the relation",
    "ngrams": "the caption's words",
    "leave_one_out": "training labels of the same caption (learnt)",
    "opposite": "the opposite of the same caption's labels",
    "lookup": "the identical row, or labels of the same caption",
    "lookup_or_opposite": "the identical row, or the opposite",
}


def show(figures: Mapping[str, Any]) -> RenderableType:
    """Return the audit for rich to print; text from data is shown as it is, never as markup."""
    verdict = figures["verdict"]
    head = Text(verdict["line"], style="bold red" if verdict["leaks"] else "bold green")
    if verdict["small"]:
        head.stylize("not bold yellow")
    parts: list[RenderableType] = [head, *(_side(figures, side) for side in ("train", "test")), Text()]
    parts += [*_findings(figures["findings"]), _guesses(figures)]
    parts += [Text(line) for line in _labels(figures)]
    parts += [Text(f"Note: {clean(line)}", style="yellow") for line in verdict["warnings"]]
    parts += [Text(f"Limit: {clean(line)}", style="dim") for line in verdict["limits"]]
    return Group(*parts)


def _side(figures: Mapping[str, Any], name: str) -> Text:
    side, content = figures[name], figures["pictures"]["with_content"][name]
    text = f"{name:<5} {side['rows']:,} rows, {side['images']:,} pictures"
    text += f" ({content:,} by content), " if content else " (by name), "
    text += f"{side['captions']:,} captions, " if side["captions"] else ""
    files = ", ".join(side["files"][:4]) + (f" and {len(side['files']) - 4} more" if len(side["files"]) > 4 else "")
    return Text(f"{text}{percent(side['true'] / side['rows'])} true ({clean(files)})", style="dim")


def _findings(findings: Mapping[str, Any]) -> list[RenderableType]:
    """Return what was found, each with one example, and in one line what was not."""
    table = Table("found", "count", "share", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, finding in findings.items():
        if not finding["count"]:
            continue
        what = Text(finding["meaning"])
        for line in (_more(name, finding), _example(finding)):
            if line:
                what.append(f"\n  {line}", style="dim")
        table.add_row(what, f"{finding['count']:,} of {finding['of']:,}", percent(finding["share"]))
    absent = [_SHORT[name] for name, finding in findings.items() if not finding["count"]]
    found: list[RenderableType] = [table] if table.row_count else []
    return found + ([Text(f"Not found: {', '.join(absent)}.", style="dim")] if absent else [])


def _more(name: str, finding: Mapping[str, Any]) -> str:
    if name == "verbatim_rows":
        return f"{finding['same_label']:,} with the same label, {finding['other_label']:,} with the other"
    if name == "derived_rows":
        grades = ", ".join(f"{n:,} {grade}" for grade, n in finding["by_grade"].items() if n)
        return f"{grades}; {finding['label_agrees']:,} have the label that follows"
    if name in ("same_images", "near_images", "made_from_images"):
        mirrored = f", {finding['mirrored']:,} mirrored" if finding.get("mirrored") else ""
        return f"used by {finding['rows']:,} test rows{mirrored}"
    if name == "same_captions":
        return f"{finding['captions']:,} of {finding['of_captions']:,} captions"
    if name == "one_label_captions":
        return f"{finding['label_repeated']:,} have that label, {finding['label_reversed']:,} the other"
    return ""


def _example(finding: Mapping[str, Any]) -> str:
    if not finding["examples"]:
        return ""
    first = finding["examples"][0]
    if "rows" in first:
        return clean(f"{' = '.join(first['rows'][:3])} “{first['caption']}”")
    if "test" not in first:
        return clean(first["image"] + (f" = {first['train_image']}" if "train_image" in first else ""))
    source = f" = {first['train']}" if "train" in first else ""
    other = f" “{first['train_caption']}”" if "train_caption" in first else ""
    return clean(f"{first['test']} “{first['caption']}”{source}{other}")


def _guesses(figures: Mapping[str, Any]) -> Table:
    table = Table("test accuracy without a picture, from", "", "95 % interval", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, what in _FLOORS.items():
        figure = figures["floors"].get(name)
        if figure:
            table.add_row(what, percent(figure["value"]), _interval(figure))
    for field in figures["fields"]:
        if field["tells_label"] and field["kind"] == OTHER:
            one = field["one_label"]
            sure = f" ({one['right']:,} of {one['rows']:,} rows with a one-label value)" if one["rows"] else ""
            text = Text(clean(f"the field {field['field']}{sure}"), style="yellow")
            table.add_row(text, percent(field["accuracy"]["value"]), _interval(field["accuracy"]))
    return table


def _labels(figures: Mapping[str, Any]) -> Iterator[str]:
    ceiling = figures["label_ceiling"]["test"]
    if ceiling:
        yield (
            f"Label ceiling from the votes: {percent(ceiling['value'])} [{_interval(ceiling)}]; "
            f"{percent(ceiling['share_with_dissent'])} of {ceiling['n']:,} test rows have a dissenting vote."
        )
    relations = figures["balance"]["by_relation"]
    shares = {name: n["test_true"] / n["test_rows"] for name, n in relations.items() if n["test_rows"] >= _ENOUGH}
    skewed = sorted(shares, key=lambda name: -abs(shares[name] - 0.5))[:4]
    if skewed:
        said = ", ".join(f"{name} {percent(shares[name])} of {relations[name]['test_rows']:,}" for name in skewed)
        yield clean(f"Balance: {percent(figures['balance']['test_true'])} true; most one-sided: {said}.")
    left = figures["clean"]
    yield f"Clean test rows: {left['rows']:,} ({percent(left['share'])}) on {left['images']:,} pictures."


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f"{100 * figure['low']:.1f} to {100 * figure['high']:.1f}"
