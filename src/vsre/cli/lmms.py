"""Verbs for use with other tools: testset (a Hugging Face data set), lmms-eval (tasks for lmms-eval)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, key_table, progress_bar, write_json


def register(app: typer.Typer) -> None:
    app.command()(testset)
    app.command("lmms-eval")(lmms_eval)


def testset(
    triplets: Annotated[Path, typer.Argument(help="Triplets: a split folder, such as data/vsr/test.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the data set.")],
    pack: Annotated[
        list[str] | None, typer.Option(help="Template packs, one configuration each; default: test-s, pool, held-out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after this many triplets, at the end of a picture.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="How training data were kept apart, for the card; default: as in `vsre vsr`.")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", "--license", help="The licence, for the card.")] = None,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Also upload it to the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Let --push make a public repository, or fill one.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Write the expanded test sets as a Hugging Face data set: one row per question, with its picture, and a card."""
    from vsre.lmms.hub import push as upload
    from vsre.lmms.testset import PACKS, write_testset

    with progress_bar("questions") as tick:
        summary = write_testset(
            triplets, out, pack or PACKS, limit=limit, protocol=protocol or _noted(triplets), licence=licence,
            progress=tick,
        )  # fmt: skip
    table = Table("configuration", "pack", "wordings", "questions", "MB", title=f"{out}", title_justify="left")
    for name, config in summary["configs"].items():
        size = f"{config['bytes'] / 1e6:,.1f}"
        table.add_row(name, escape(config["pack"]), str(len(config["templates"])), f"{config['questions']:,}", size)
    console.print(table)
    shown = {"triplets": summary["triplets"], "pictures": summary["images"], "protocol": summary["protocol"]}
    key_table("of which", shown | {f"skipped.{name}": n for name, n in summary["skipped"].items() if n})
    if summary["set_aside"]:
        key_table(f"set aside, with row and reason in {out / 'set_aside.jsonl'}", summary["set_aside"])
    first = next(iter(summary["configs"]))
    console.print(f'open it: datasets.load_dataset("{out}", "{first}")', highlight=False, markup=False, soft_wrap=True)
    if push:
        console.print(f"pushed: {upload(out, push, private=not public)}", highlight=False, markup=False, soft_wrap=True)
    write_json(json_file, summary)


def _noted(triplets: Path) -> str | None:
    """The protocol in the summary.json that `vsre vsr` wrote beside the split folders."""
    try:
        noted = json.loads((triplets.parent / "summary.json").read_text("utf-8"))["protocol"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noted if isinstance(noted, str) else None


def lmms_eval(
    data: Annotated[str, typer.Argument(help="The data set: a folder of `vsre testset`, or OWNER/NAME on the hub.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tasks.")],
    json_file: JsonFile = None,
) -> None:
    """Write tasks over a test set for an unmodified lmms-eval: the scores are those of `vsre diagnose`."""
    from vsre.lmms.taskpack import write_tasks

    made = write_tasks(data, out)
    table = Table("task", "wordings", "most tokens", title=f"tasks in {out}", title_justify="left")
    for group, tasks in made["groups"].items():
        table.add_row(group, str(sum(made["tasks"][task]["templates"] for task in tasks)), "")
        for task in tasks:
            table.add_row(f"  {task}", *_row(made["tasks"][task]))
    grouped = {task for tasks in made["groups"].values() for task in tasks}
    for task, figures in made["tasks"].items():
        if task not in grouped:
            table.add_row(task, *_row(figures))
    console.print(table)
    names = ",".join([*(task for task in made["tasks"] if task not in grouped), *made["groups"]])
    console.print(
        "run them (lmms-eval exits 0 even when it fails: look for the results file):\n"
        f"  lmms-eval eval --model vsre --model_args pretrained=zoo:vsre --include_path {out} --tasks {names} "
        "--log_samples --output_path results",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    write_json(json_file, made)


def _row(task: dict[str, int]) -> tuple[str, str]:
    return str(task["templates"]), str(task["max_new_tokens"])
