"""Verbs that exchange models and data with other tools: export, convert (from and to LLaVA), llava-json (LLaVA's)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vsre.cli.output import JsonFile, console, errors, key_table, progress_bar, write_json

convert = typer.Typer(help="Convert LLaVA checkpoints to one-encoder VSRE models, and back.", no_args_is_help=True)
llava_json = typer.Typer(help="LLaVA's training files: write questions to one, or read one as questions.")


def register(app: typer.Typer) -> None:
    app.command()(export)
    app.add_typer(convert, name="convert")
    app.add_typer(llava_json, name="llava-json")


def export(
    model: Annotated[str, typer.Argument(help="A folder, zoo:NAME, a hub id, or a folder with a PEFT adapter.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; an earlier export there is replaced.")],
    name: Annotated[str | None, typer.Option(help="The model's name, for the card.")] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Run folder of `vsre diagnose`, for the card; repeat for several.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="Run folder of `vsre train`; default: the one that contains MODEL.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="More data it was trained on: a folder of triplets or questions, or text.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="What to merge a PEFT adapter into; default: as it says.")] = None,
    llm: Annotated[
        str | None, typer.Option(help="The language model's checkpoint, for the card; default: as recorded.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="What training started from, for the card; default: as recorded.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="The licence you publish under, for the card.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Round the weights, for example to bfloat16.")] = None,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Also upload it to the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Let --push create a public repository.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Write a model as a plain transformers folder: weights, processor, their code, and a model card.

    It loads with AutoModelForImageTextToText and AutoProcessor, with only transformers installed.
    """
    from vsre.export import export_model, push_model

    record = export_model(
        model, out, name=name, results=results or (), training=training, data=data or (), base=base, llm=llm,
        start=start, licence=licence, dtype=dtype,
    )  # fmt: skip
    key_table(f"exported: {out}", {k: v for k, v in record.items() if k != "results"})
    for run in record["results"]:
        if not run["same_weights"]:
            errors.print(f"{escape(run['model'])}: different weights from these; in the card as a comparison")
    if push:
        address = push_model(out, push, private=not public)
        console.print(f"pushed: {address}", highlight=False, markup=False, soft_wrap=True)
    write_json(json_file, record)


@convert.command("from-llava")
def from_llava(
    checkpoint: Annotated[
        str, typer.Argument(help="A LLaVA checkpoint for transformers: a folder, zoo:base, a hub id.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the one-encoder VSRE model.")],
    dtype: Annotated[str | None, typer.Option(help="Default: the checkpoint's own.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Convert LLaVA to a VSRE model with one encoder: the same weights and logits; pictures are seen whole."""
    from vsre.export.llava import convert_from_llava

    report = convert_from_llava(checkpoint, out, dtype=dtype)
    key_table(f"VSRE in {out}", report)
    write_json(json_file, report)


@convert.command("to-llava")
def to_llava(
    checkpoint: Annotated[str, typer.Argument(help="A VSRE model with one encoder and LLaVA's projector.")],
    out: Annotated[Path, typer.Argument(help="Folder for the LLaVA model.")],
    dtype: Annotated[str | None, typer.Option(help="Default: the checkpoint's own.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Convert a one-encoder VSRE model to LLaVA, if LLaVA can express it: the same weights and logits."""
    from vsre.export.llava import convert_to_llava

    report = convert_to_llava(checkpoint, out, dtype=dtype)
    key_table(f"LLaVA in {out}", report)
    write_json(json_file, report)


@llava_json.command("export")
def llava_json_export(
    questions: Annotated[Path, typer.Argument(help="Questions: a folder of `vsre rewrite`.")],
    triplets: Annotated[Path, typer.Argument(help="The triplets they ask about, with pictures.")],
    out: Annotated[Path, typer.Argument(help="Folder for llava.json and images/.")],
    json_file: JsonFile = None,
) -> None:
    """Write questions as LLaVA's training JSON: one conversation per question, pictures next to it."""
    from vsre.sources.llava import write_llava_json

    with progress_bar("questions") as tick:
        summary = write_llava_json(questions, triplets, out, progress=tick)
    key_table(f"written: {out / 'llava.json'}", summary)
    write_json(json_file, summary)


@llava_json.command("import")
def llava_json_import(
    file: Annotated[Path, typer.Argument(help="LLaVA's training JSON: a list, or one object per line.")],
    out: Annotated[Path, typer.Argument(help="Folder for triplets/ and questions/, as a stage's data source.")],
    images: Annotated[Path, typer.Option("--images", "-i", help="The folder that its picture paths are relative to.")],
    turns: Annotated[
        str, typer.Option(help="first: the first question of a conversation; each: every one, on its own.")
    ] = "first",
    held_out: Annotated[
        Path | None, typer.Option(help="Test triplets whose pictures are left out, by content or file name.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only this many rows of the file.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Read general training data, for use alongside spatial questions, from LLaVA's training JSON."""
    from vsre.sources.llava import read_llava_json

    with progress_bar("rows") as tick:
        summary = read_llava_json(file, out, images=images, turns=turns, limit=limit, held_out=held_out, progress=tick)
    key_table(f"read to {out}", {k: v for k, v in summary.items() if k != "set_aside"})
    if summary["set_aside"]:
        key_table(f"set aside, with row and reason in {out / 'set_aside.jsonl'}", summary["set_aside"])
    console.print(
        f"in a stage: data: [..., {{triplets: {out / 'triplets'}, questions: {out / 'questions'}}}]",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    write_json(json_file, summary)
