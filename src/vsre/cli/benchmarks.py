"""The verb that runs benchmarks: benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.engine import (
    Body,
    Cache,
    Concurrency,
    Device,
    Dtype,
    KeyEnv,
    MaxTokens,
    NoKey,
    NoLogprobs,
    Server,
    Temperature,
    open_engine,
)
from vsre.cli.output import JsonFile, console, write_json
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.diagnose import Engine


def register(app: typer.Typer) -> None:
    app.command()(benchmark)


def benchmark(
    model: Annotated[
        str | None, typer.Argument(help="Any image-text-to-text model: a folder, a hub id, or zoo:NAME.")
    ] = None,
    copies: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=PATH...", help="Benchmarks, each with your copy: a file, folder or hub id."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output folder, one folder per benchmark; run again to resume.")
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List the benchmarks, the file each needs, and where to get it.")
    ] = False,
    mode: Annotated[
        str, typer.Option(help="official (the benchmark's own way), generate, likelihood, or both.")
    ] = "official",
    images: Annotated[
        list[Path] | None, typer.Option("--images", "-i", help="Folders with pictures that are not next to the file.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after this many questions, at the end of a group.")] = None,
    sample: Annotated[int | None, typer.Option(help="Draw about this many questions by --seed, whole groups.")] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again the questions that ended in an error.")
    ] = False,
    max_tokens: MaxTokens = None,
    seed: int = 0,
    server: Server = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    no_key: NoKey = False,
    temperature: Temperature = None,
    body: Body = None,
    no_logprobs: NoLogprobs = False,
    concurrency: Concurrency = 8,
    device: Device = "auto",
    dtype: Dtype = "auto",
    cache: Cache = None,
    json_file: JsonFile = None,
) -> None:
    """Score a model on the spatial parts of benchmarks, each by its own rules, alongside our reading and the floors.

    `vsre benchmark llava-hf/llava-1.5-7b-hf mme=MME_Benchmark cv-bench=CV-Bench -o runs/llava`
    """
    from vsre.benchmarks import BENCHMARKS

    if listed:
        console.print(_list(), highlight=False, soft_wrap=True)
        fields = ("title", "about", "wants", "source", "citation", "rule")
        return write_json(json_file, {n: {f: getattr(b, f) for f in fields} for n, b in BENCHMARKS.items()})
    if model is None or not copies or out is None:
        raise VsreError(
            "Give a model, one or more NAME=PATH and --out FOLDER. `vsre benchmark --list` gives the names and the "
            "file each needs."
        )

    def engine() -> Engine:
        return open_engine(
            model,
            server=server,
            key_env=key_env,
            no_key=no_key,
            temperature=temperature,
            body=body,
            no_logprobs=no_logprobs,
            max_tokens=max_tokens,
            concurrency=concurrency,
            device=device,
            dtype=dtype,
            cache=cache,
        )

    how = {"mode": mode, "limit": limit, "sample": sample, "seed": seed, "retry_errors": retry_errors}
    return _run(engine, copies, out, images or [], how, json_file)


def _run(
    open_: Callable[[], Engine],
    copies: Sequence[str],
    out: Path,
    images: Sequence[Path],
    how: Mapping[str, Any],
    json_file: Path | None,
) -> None:
    """Run the benchmarks and print their figures; `how` holds further arguments of `run_benchmark`."""
    from vsre.benchmarks import load_benchmark_run, open_copy, run_benchmark
    from vsre.cli.diagnosis import answered_by

    # All copies before the model, which may take minutes to load: a wrong path is reported at once.
    opened = [open_copy(*_named(copy), images=images) for copy in copies]
    names = [copy.benchmark.name for copy in opened]
    if len(set(names)) < len(names):
        raise VsreError(f"{', '.join(names)}: a benchmark is named twice. Give each once, or use another --out.")
    for copy in opened:
        copy.benchmark.ways(how["mode"])
    engine = open_()
    found = {}
    for copy in opened:
        folder = out / copy.benchmark.name
        metrics = run_benchmark(engine, copy.benchmark.name, copy, folder, **how)
        found[copy.benchmark.name] = metrics
        console.print(figure_table(metrics))
        for line in (*said_about(metrics), *answered_by(load_benchmark_run(folder).run["engine"] or {"way": "?"})):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(f"run: {folder}", highlight=False, markup=False, soft_wrap=True)
    write_json(json_file, found)
    if any(m["asked"] and m["errors"] == m["asked"] for m in found.values()):
        raise typer.Exit(1)


def _named(copy: str) -> tuple[str, str]:
    name, equals, path = copy.partition("=")
    if not equals or not path:
        raise VsreError(f"{copy}: give NAME=PATH, such as mme=MME_Benchmark. `vsre benchmark --list` gives the names.")
    return name, path


def _list() -> str:
    from vsre.benchmarks import BENCHMARKS

    told = []
    for name, b in BENCHMARKS.items():
        lines = (f"{b.title}: {b.about} ({b.citation})", f"wants: {b.wants}", f"from: {b.source}", f"score: {b.rule}")
        told.append("\n".join([f"[bold]{escape(name)}[/]", *(f"  {escape(line)}" for line in lines)]))
    return "\n".join(told)


def figure_table(metrics: Mapping[str, Any]) -> Table:
    """The benchmark's own score and our reading, with intervals, next to chance and the largest constant floor."""
    from vsre.benchmarks.scoring import CONSTANT_FLOORS

    readings, floor = metrics["readings"], metrics["floor"]
    shown = [name for name, r in readings.items() if r["official"] or name == "reading"] or list(readings)[:1]
    heads = [f"official: {name}" if readings[name]["official"] else f"ours: {name}" for name in shown]
    table = Table("figure", *heads, "n", "chance", "constant", title=escape(metrics["title"]))
    for figure in readings[shown[0]]["figures"] if shown else ():
        unit = 1 if figure in metrics["points"] else 100
        told = [readings[name]["figures"].get(figure) for name in shown]
        least = [floor[part].get(figure) for part in CONSTANT_FLOORS if part in floor]
        best = max((value for value in least if value is not None), default=None)
        chance = _number(floor["chance"].get(figure), unit)
        cells = ["–" if f is None else _interval(f, unit) for f in told]
        table.add_row(escape(figure), *cells, f"{(told[0] or {}).get('n', 0):,}", chance, _number(best, unit))
    if any(readings[name]["way"] == "generate" for name in shown):
        told = [_interval(r["answered"], 100) if r["way"] == "generate" else "–" for r in map(readings.get, shown) if r]
        table.add_row("answered", *told, "", "", "")
    return table


def _interval(figure: Mapping[str, Any], unit: float) -> str:
    value, low, high = (_number(figure[part], unit) for part in ("value", "low", "high"))
    return f"{value} \\[{low}, {high}]"


def said_about(metrics: Mapping[str, Any]) -> list[str]:
    """Lines about other readings, warnings, and what could not be used, read or scored."""
    lines = []
    also = {n: next(iter(r["figures"].items())) for n, r in metrics["readings"].items() if not r["official"]}
    also.pop("reading", None)
    if also:
        figure = next(iter(also.values()))[0]
        told = (
            f"{name} {_number(f['value'], 1 if figure in metrics['points'] else 100)}" for name, (_, f) in also.items()
        )
        lines.append(f"{figure} by other readings: {', '.join(told)}")
    lines += [f"warning: {warning}" for warning in metrics["warnings"]]
    lines += [f"missing: {name} ({why})" for name, why in metrics["missing"].items()]
    if aside := metrics["set_aside"]:
        parts = ", ".join(f"{n} {reason}" for reason, n in aside.items())
        lines.append(f"rows set aside: {parts} (set_aside.jsonl has them)")
    if metrics["errors"]:
        parts = "; ".join(f"{n} x {reason}" for reason, n in metrics["error_reasons"].items())
        lines.append(f"errors: {metrics['errors']} of {metrics['asked']}: {parts}")
    if metrics["unscored"]:
        lines.append(f"not scored: {metrics['unscored']} questions whose answers are withheld")
    return lines


def _number(value: float | None, unit: float) -> str:
    return "–" if value is None else f"{unit * value:.1f}"
