"""Verbs that ask and measure: ask, diagnose, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vsre.cli.output import JsonFile, console, write_json
from vsre.errors import VsreError
from vsre.sources.images import load_image


def register(app: typer.Typer) -> None:
    app.command()(ask)
    app.command()(diagnose)
    app.command()(report)


def ask(
    model: Annotated[str, typer.Argument(help="A folder, a hub id, or zoo:NAME; zoo:vsre is the shipped one.")],
    picture: Annotated[Path, typer.Argument(help="A picture: JPEG, PNG ...")],
    questions: Annotated[list[str], typer.Argument(help="Questions about it, each in quotes.")],
    pack: Annotated[list[str] | None, typer.Option(help="Template packs to ask through; default: pool.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the picture and all answers.")] = None,
    device: str = "auto",
    dtype: str = "auto",
    json_file: JsonFile = None,
) -> None:
    """Ask a model about one picture: does its answer hold in other words, and does it hang on the picture?

    "Is the cup left of the laptop?" is asked through all templates of a pack and with every probe: a grey picture, the
    mirrored one, the inverse, the opposite, the denial ... Any other question is asked as it stands. The shipped model
    knows drawn scenes (`vsre scenes`); photographs need a real one.
    """
    from vsre.diagnose import TransformersEngine
    from vsre.diagnose.one_picture import ask_picture
    from vsre.report.one_picture import probe_table, summary, thumbnail, write_page

    try:
        data = picture.read_bytes()
    except OSError as error:
        raise VsreError(f"{picture}: cannot be read ({error.strerror}).") from error
    load_image(data, name=str(picture))  # before the model, which may take minutes to load
    engine = TransformersEngine(model, device=device, dtype=dtype)
    found = [ask_picture(engine, data, question, packs=pack or ["pool"]) for question in questions]
    if console.is_terminal:
        console.print(thumbnail(data))
    for one in found:
        console.print(summary(one))
        if one.probes:
            console.print(probe_table(one))
    if html is not None:
        console.print(f"page: {write_page(html, picture, data, model, found)}", highlight=False, soft_wrap=True)
    write_json(json_file, [one.to_json() for one in found])


def diagnose(
    model: Annotated[str, typer.Argument(help="Any image-text-to-text model: a folder, a hub id, or zoo:NAME.")],
    triplets: Annotated[Path, typer.Option("--triplets", "-t", help="The test triplets: a split folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; a second call goes on from here.")],
    pack: Annotated[list[str] | None, typer.Option(help="Template packs; default: test-s, pool, held-out.")] = None,
    train_triplets: Annotated[
        Path | None, typer.Option("--train", help="Training triplets, to fit the blind floor on.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="The protocol the model was trained under, for the record.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many triplets, up to the end of a picture.")] = None,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure a model: VSR under every template, bias, consistency, and the blind floor beside it."""
    from vsre.diagnose import TransformersEngine, load_run
    from vsre.diagnose import diagnose as run
    from vsre.report import ReportRun, result_table

    packs = pack or ["test-s", "pool", "held-out"]
    metrics = run(
        TransformersEngine(model, device=device, dtype=dtype),
        triplets,
        packs,
        out,
        limit=limit,
        seed=seed,
        protocol=protocol,
        train_path=train_triplets,
    )
    console.print(result_table([ReportRun(name=model, folder=out)]))
    for line in answered_by(load_run(out).run["engine"] or {"way": "not recorded"}):
        console.print(line, highlight=False, markup=False)
    write_json(json_file, metrics)


def answered_by(notes: dict[str, Any]) -> list[str]:
    """How an engine answered, from its notes, in lines for people."""
    lines = [f"answered by: {notes['way']}" + (f" ({notes['why']})" if notes.get("why") else "")]
    if notes.get("plain_prompts") and notes["way"] != "plain":
        lines.append(f"{notes['plain_prompts']:,} prompts were asked whole ({notes['plain_prompts_why']})")
    if notes.get("plain_batches"):
        lines.append(f"batches of one length only: {notes['plain_batches']}")
    return lines


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `vsre diagnose`, the baseline first.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    triplets: Annotated[
        Path | None, typer.Option("--triplets", "-t", help="The tested triplets, for pictures and boxes.")
    ] = None,
    title: str = "Does the model see where things are?",
    json_file: JsonFile = None,
) -> None:
    """Write one self-contained HTML report over diagnosed runs."""
    from vsre.report import ReportMeta, ReportRun, as_json, result_table, write_report

    specs = [
        ReportRun(name=folder.name, folder=folder, role="base" if i == 0 else "rung") for i, folder in enumerate(runs)
    ]
    path = write_report(out, specs, ReportMeta(title=title, triplets=triplets, command="vsre report"))
    console.print(result_table(specs))
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    write_json(json_file, {"report": str(path), "results": as_json(specs)})
