"""Verbs that train, ask, diagnose and report: train, ask, diagnose, report, zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.output import JsonFile, console, errors, key_table, write_json
from vsre.errors import VsreError

zoo = typer.Typer(help="The shipped tiny models: list them, or make one from nothing.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(ask)
    app.command()(diagnose)
    app.command()(report)
    app.add_typer(zoo, name="zoo")


def train(
    stages: Annotated[Path, typer.Argument(help="YAML file: the ordered list of stages with their data.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; a second call goes on from here.")],
    checkpoint: Annotated[str | None, typer.Option(help="Tune this model: a hub id, a folder, or zoo:base.")] = None,
    llm: Annotated[str | None, typer.Option(help="Build VSRE on this language model ...")] = None,
    encoders: Annotated[str, typer.Option(help="... and these encoders, by comma.")] = "clip,siglip,dinov2,sam",
    keep_cls: Annotated[bool, typer.Option(help="Keep the CLS tokens of CLIP and DINOv2.")] = False,
    feature_cache: Annotated[
        Path | None, typer.Option(help="Where features of frozen encoders are kept; default: OUT/cache/features.")
    ] = None,
    no_feature_cache: Annotated[bool, typer.Option("--no-feature-cache", help="Encode every picture anew.")] = False,
    seed: int = 0,
    plan_only: Annotated[bool, typer.Option("--plan", help="Check grids and token budget, load nothing.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Train through stages: adapters, then adapters and language model, or any other list.

    Encoders are clip, siglip, dinov2, sam (the paper's checkpoints), zoo:NAME, a hub id or a folder.
    """
    from vsre.model import plan_checkpoints
    from vsre.recipes.start import encoder_specs, open_model
    from vsre.train import load_stages, run_stages

    if (checkpoint is None) == (llm is None):
        raise VsreError("Give --checkpoint to tune a model, or --llm (with --encoders) to build VSRE on one.")
    todo = load_stages(stages)
    names = [e.strip() for e in encoders.split(",") if e.strip()]
    if llm is not None:
        made = plan_checkpoints(llm, encoder_specs(names), keep_cls=keep_cls)
        table = Table("encoder", "input", "grid", "visual tokens", "adapter", "adapter parameters")
        for r in made.rows:
            table.add_row(r.encoder, str(r.image_size), r.grid, str(r.tokens), r.adapter, f"{r.adapter_parameters:,}")
        errors.print(table)
        errors.print(f"{made.tokens:,} visual tokens of {made.positions:,} positions; {made.text_room:,} left for text")
        if plan_only:
            return write_json(json_file, {"tokens": made.tokens, "positions": made.positions})
    model, processor = open_model(checkpoint, llm, names, seed=seed, keep_cls=keep_cls)
    kept = False if no_feature_cache else feature_cache or True
    summary = run_stages(model, processor, todo, out, seed=seed, feature_cache=kept)
    shown = {f"{i:02d}": {k: v for k, v in s.items() if k != "config"} for i, s in enumerate(summary["stages"], 1)}
    key_table(f"trained: {summary['model']}", shown)
    write_json(json_file, summary)
    return None


def ask(
    picture: Annotated[Path, typer.Argument(help="A picture: JPEG, PNG ...")],
    questions: Annotated[list[str], typer.Argument(help="Questions about it, each in quotes.")],
    model: Annotated[str, typer.Option(help="A folder, a hub id, or zoo:NAME.")] = "zoo:vsre",
    device: str = "auto",
    dtype: str = "auto",
    json_file: JsonFile = None,
) -> None:
    """Ask a model about one picture: its answer, and how likely "Yes" is against "No".

    The shipped model knows drawn scenes (`vsre scenes`) and the wordings of the packs; photographs need a real one.
    """
    from vsre.diagnose import Prompt, TransformersEngine
    from vsre.rewrite import FORMATS

    try:
        data = picture.read_bytes()
    except OSError as error:
        raise VsreError(f"{picture}: cannot be read ({error.strerror}).") from error
    prompts = [Prompt(question, FORMATS["yes-no"].options, "full") for question in questions]
    (replies,) = TransformersEngine(model, device=device, dtype=dtype).answer([(data, prompts)])
    table, found = Table("question", "answer", "p(yes)"), []
    for question, reply in zip(questions, replies, strict=True):
        if reply.error is not None:
            raise VsreError(f"{picture}: {reply.error}")
        share = "–" if reply.p_yes is None else f"{reply.p_yes:.2f}"
        answer = (reply.text or "").strip()
        table.add_row(escape(question), escape(answer), share)
        found.append({"question": question, "answer": answer, "p_yes": reply.p_yes})
    console.print(table)
    write_json(json_file, found)


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


@zoo.command("ls")
def zoo_ls(json_file: JsonFile = None) -> None:
    """The shipped models, their sizes and what they know."""
    import json

    from vsre.zoo.train import ORDER, WEIGHTS

    table, rows = Table("model", "MB", "trained by", "figures"), []
    for name in ORDER:
        card = WEIGHTS / name / "card.json"
        if not card.is_file():
            table.add_row(name, "–", f"not here; vsre zoo train {name}", "")
            continue
        record = json.loads(card.read_text())
        size = sum(f.stat().st_size for f in card.parent.iterdir()) / 1e6
        rows.append({"name": name, "megabytes": round(size, 2), "figures": record["figures"]})
        shown = ", ".join(f"{k} {v}" for k, v in record["figures"].items())
        table.add_row(f"zoo:{name}", f"{size:.1f}", escape(record["settings"]["objective"]), escape(shown))
    console.print(table)
    write_json(json_file, rows)


@zoo.command("probe")
def zoo_probe(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Vision encoders: zoo:NAME, a folder, a hub id; default: the zoo's four.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Where the scenes are drawn.")] = Path("zoo-work"),
    scenes: Annotated[int, typer.Option(help="Scenes to fit on; a third as many are measured on.")] = 1500,
    json_file: JsonFile = None,
) -> None:
    """What frozen features tell of space: linear probes of class at a place, position and relation."""
    from vsre.zoo.pool import make_pool
    from vsre.zoo.probes import probe_checkpoint
    from vsre.zoo.train import load_settings

    settings = load_settings()
    train, test = (
        make_pool(work / "pools", n, settings[which]["seed"], settings["size"])
        for which, n in (("pool", scenes), ("held_out_scenes", max(1, scenes // 3)))
    )
    table = Table("encoder", "weights", "class at a place", "position (R2)", "relation")
    found = {}
    for name in checkpoints or [f"zoo:{n}" for n in ("clip", "siglip", "dinov2", "sam")]:
        found[name] = probe_checkpoint(name, train, test)
        for weights, figures in found[name].items():
            shown = (figures[k] for k in ("class_at_place", "position", "relation"))
            table.add_row(escape(name), weights, *(f"{value:.3f}" for value in shown))
    console.print(table)
    write_json(json_file, found)


@zoo.command("train")
def zoo_train(
    name: Annotated[str, typer.Argument(help="A model of `vsre zoo ls`, or all.")],
    work: Annotated[Path, typer.Option(help="Scenes, logs and checkpoints; a second call goes on from here.")] = Path(
        "zoo-work"
    ),
    out: Annotated[Path | None, typer.Option(help="Where to write; default: into the package.")] = None,
    steps: Annotated[int | None, typer.Option(help="Fewer steps, for a trial.")] = None,
) -> None:
    """Make a shipped model from nothing."""
    from vsre.zoo.train import ORDER, WEIGHTS, train_zoo

    for each in ORDER if name == "all" else (name,):
        train_zoo(
            each,
            work,
            out or WEIGHTS,
            steps=steps,
            say=lambda text: console.print(escape(text), highlight=False),
        )
