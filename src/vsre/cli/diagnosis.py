"""Verbs that ask and measure: ask, diagnose, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vsre.cli.engine import (
    Body,
    Cache,
    Concurrency,
    Device,
    DeviceMap,
    Dtype,
    KeyEnv,
    MaxTokens,
    NoKey,
    NoLogprobs,
    PriceIn,
    PriceOut,
    Quantization,
    RemoteCode,
    Revision,
    Server,
    Temperature,
    open_engine,
)
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
    pack: Annotated[list[str] | None, typer.Option(help="Template packs to ask with; default: pool.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the picture and all answers.")] = None,
    max_tokens: MaxTokens = None,
    server: Server = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    no_key: NoKey = False,
    temperature: Temperature = None,
    body: Body = None,
    no_logprobs: NoLogprobs = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json_file: JsonFile = None,
) -> None:
    """Ask a model about one picture: does its answer hold in other words, and does it depend on the picture?

    "Is the cup left of the laptop?" is asked with all templates of a pack and with every probe: a grey picture, the
    mirrored one, the inverse, the opposite, the denial ... Any other question is asked as is. The shipped model only
    knows drawn scenes (`vsre scenes`); photographs need a real one.
    """
    from vsre.diagnose.one_picture import ask_picture
    from vsre.report.one_picture import probe_table, summary, thumbnail, write_page

    try:
        data = picture.read_bytes()
    except OSError as error:
        raise VsreError(f"{picture}: cannot be read ({error.strerror}).") from error
    load_image(data, name=str(picture))  # before the model, which may take minutes to load
    engine = open_engine(
        model,
        server=server,
        key_env=key_env,
        no_key=no_key,
        temperature=temperature,
        body=body,
        no_logprobs=no_logprobs,
        max_tokens=max_tokens,
        device=device,
        dtype=dtype,
    )
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
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; run again to resume.")],
    pack: Annotated[list[str] | None, typer.Option(help="Template packs; default: test-s, pool, held-out.")] = None,
    train_triplets: Annotated[
        Path | None, typer.Option("--train", help="Training triplets to fit the blind floor on.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="The protocol the model was trained under, for the record.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after this many triplets, at the end of a picture.")] = None,
    sample: Annotated[int | None, typer.Option(help="Draw pictures by --seed up to this many triplets.")] = None,
    per_image: Annotated[
        int | None, typer.Option(help="At most this many triplets of each picture; default: all.")
    ] = None,
    probes: Annotated[
        int, typer.Option(help="Ask this many triplets again with picture or words changed; 0: none.")
    ] = 400,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Ask everything without the pictures.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again the run's questions that ended in an error.")
    ] = False,
    max_tokens: MaxTokens = None,
    server: Server = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    no_key: NoKey = False,
    temperature: Temperature = None,
    body: Body = None,
    no_logprobs: NoLogprobs = False,
    concurrency: Concurrency = 8,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: RemoteCode = False,
    cache: Cache = None,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure a model: VSR under every template, bias, consistency, the blind floor, and whether it looks at all."""
    from vsre.diagnose import diagnose as run
    from vsre.diagnose import load_run
    from vsre.report import ReportRun, result_table
    from vsre.report.inputs import open_run
    from vsre.report.reliance import reliance_line, reliance_table

    engine = open_engine(
        model,
        server=server,
        key_env=key_env,
        no_key=no_key,
        temperature=temperature,
        body=body,
        no_logprobs=no_logprobs,
        max_tokens=max_tokens,
        concurrency=concurrency,
        price_in=price_in,
        price_out=price_out,
        device=device,
        dtype=dtype,
        revision=revision,
        quantization=quantization,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
        picture="none" if no_picture else "shown",
        cache=cache,
    )
    metrics = run(
        engine,
        triplets,
        pack or ["test-s", "pool", "held-out"],
        out,
        limit=limit,
        sample=sample,
        per_image=per_image,
        probes=None if no_picture or not probes else probes,
        seed=seed,
        protocol=protocol,
        train_path=train_triplets,
        retry_errors=retry_errors,
    )
    row = ReportRun(name=model, folder=out)
    console.print(result_table([row]))
    if (table := reliance_table(open_run(row))) is not None:
        console.print(table)
        console.print(f"does it look? {reliance_line(open_run(row))}", highlight=False, markup=False)
    record = load_run(out).run
    for line in answered_by(record["engine"] or {"way": "not recorded"}):
        console.print(line, highlight=False, markup=False)
    if "without_picture" in record:
        console.print(f"not asked without a picture: {record['without_picture']}", highlight=False, markup=False)
    for warning in metrics["warnings"]:
        console.print(f"warning: {warning}", highlight=False, markup=False)
    write_json(json_file, metrics)


def answered_by(notes: dict[str, Any]) -> list[str]:
    """Lines that say how an engine answered, from its notes."""
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
    """Write one self-contained HTML report on diagnosed runs."""
    from vsre.report import ReportMeta, ReportRun, as_json, result_table, write_report

    specs = [
        ReportRun(name=folder.name, folder=folder, role="base" if i == 0 else "rung") for i, folder in enumerate(runs)
    ]
    path = write_report(out, specs, ReportMeta(title=title, triplets=triplets, command="vsre report"))
    console.print(result_table(specs))
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    write_json(json_file, {"report": str(path), "results": as_json(specs)})
