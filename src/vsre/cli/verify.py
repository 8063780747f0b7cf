"""The verbs that check pictures: `vsre verify TRIPLETS --out FOLDER`, and its sub-verb presets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vsre.cli.groups import PresetName, running_group, show_presets
from vsre.cli.output import JsonFile, console, errors, key_table, progress_bar, write_json
from vsre.errors import VsreError

if TYPE_CHECKING:
    from vsre.repaint.verify import Verifier
    from vsre.verify.config import VerifierConfig

_OUTCOMES = ("pass", "fail", "missing", "undecided")
_CLASSES = 20
"""Classes that are shown; verify.json has them all."""


def register(app: typer.Typer) -> None:
    group = running_group(_HELP)
    for verb in (run, presets):
        group.command()(verb)
    app.add_typer(group, name="verify")


_HELP = "Check whether pictures show what their captions say: `vsre verify TRIPLETS --out FOLDER`."


def run(
    triplets: Annotated[Path, typer.Argument(help="Triplets with their pictures: a folder or a Parquet file.")],
    out: Annotated[Path, typer.Option(help="Folder for verdicts.parquet and verify.json; a run there is resumed.")],
    verifier: Annotated[
        str | None,
        typer.Option(
            help="A preset (`vsre verify presets`), a YAML file, or scene-truth for drawn pictures. Default: coco."
        ),
    ] = None,
    boxes: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Annotated boxes (as for `vsre geometry`) in place of a detector; repeatable."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16, bfloat16.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures checked at once.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never contact the hub: use cached files.")] = False,
    judge: Annotated[
        str | None, typer.Option(help="A vision-language model that is asked about what is left undecided.")
    ] = None,
    judge_server: Annotated[str | None, typer.Option(help="Ask the judge on this OpenAI-compatible server.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many triplets, the first ones.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Check whether pictures show what their captions say: PASS, FAIL or UNDECIDED for each, with all the evidence.

    If the labels come from people or drawn scenes, the verdicts are compared with them.
    """
    from vsre.verify import build_verifier
    from vsre.verify.run import verify_set

    if judge_server is not None and judge is None:
        raise VsreError("--judge-server needs --judge: the model's name on that server.")
    options: dict[str, Any] = {"device": device, "dtype": dtype, "batch_size": batch_size, "offline": offline or None}
    if judge is not None:
        options["judge"] = {"model": judge} | ({"server": judge_server} if judge_server else {})
    looker = _by_boxes(triplets, boxes, verifier, options) if boxes else build_verifier(verifier or "coco", **options)
    with progress_bar("triplets") as tick:
        summary = verify_set(triplets, out, looker, limit=limit, progress=tick)
    _show(summary, out)
    write_json(json_file, summary)


def _by_boxes(triplets: Path, boxes: list[Path], verifier: str | None, options: Mapping[str, Any]) -> Verifier:
    """A verifier with known boxes and whatever else it looks at: depth, outlines, a judge."""
    from vsre.sources.vsr.objects import read_objects
    from vsre.triplets import read_triplets
    from vsre.verify.config import VerifierConfig, load_config
    from vsre.verify.detectors import KnownBoxes
    from vsre.verify.verifier import PictureVerifier

    names = {triplet.image_name for triplet in read_triplets(triplets, images=False)}
    config = (load_config(verifier) if verifier else VerifierConfig()).changed(**options)
    config = config.model_copy(update={"closed": None, "open": None})
    return PictureVerifier(config, known=KnownBoxes(read_objects(boxes, names)))


def presets(name: PresetName = None, json_file: JsonFile = None) -> None:
    """List the verifiers, or show one with the source of each default."""
    from vsre.verify.config import PRESETS

    show_presets(
        PRESETS,
        name,
        json_file,
        head=("preset", "what it looks with", "thresholds of its detectors"),
        cells=lambda config: (config.about, _thresholds(config)),
        notes=(
            "thresholds: from which a box counts; from which a box makes absence doubtful",
            "`vsre verify presets NAME` shows all of it, with the source of each default",
        ),
    )


def _thresholds(config: VerifierConfig) -> str:
    return "; ".join(f"{part.present:g}, {part.absent:g}" for part in (config.closed, config.open) if part)


def _show(summary: Mapping[str, Any], out: Path) -> None:
    figures = summary["figures"]
    head = {key: figures[key] for key in ("triplets", "pictures", "verdicts", "undecided_because")}
    key_table(f"verdicts in {out / 'verdicts.parquet'}", head | {"verifier": summary["verifier"]})
    if "against_labels" in figures:
        _against_labels(figures["against_labels"])
    if "asked_for" in figures:
        _asked_for(figures["asked_for"])
    _classes(figures["classes"])
    if figures["verdicts"]["undecided"] == figures["triplets"]:
        errors.print("[bold]note[/] nothing was decided: see the reasons above.")


def _against_labels(found: Mapping[str, Any]) -> None:
    outcomes = [key for key in _OUTCOMES if key != "missing" or any(found["all"][t][key] for t in ("true", "false"))]
    table = _table("relation", "n", *outcomes, "pass is true", "fail is false")
    table.title = "verdicts on true/false captions; shares in % with 95 % intervals"
    silent = []
    for name, figure in (("all", found["all"]), *found["by_relation"].items()):
        if name != "all" and not figure["decided"]["value"]:
            silent.append(f"{name} ({figure['n']})")
            continue
        counts = [f"{figure['true'][key]}/{figure['false'][key]}" for key in outcomes]
        shares = [_share(figure[key]) for key in ("pass_is_true", "fail_is_false")]
        table.add_row(*map(escape, (name, str(figure["n"]), *counts, *shares)))
    console.print(table)
    if silent:
        console.print(f"nothing decided on {', '.join(silent)}", highlight=False)


def _asked_for(found: Mapping[str, Any]) -> None:
    table = _table("what was asked for", "n", *_OUTCOMES, "borne out")
    table.title = "pictures that were painted; shares in % with 95 % intervals"
    for name, figure in (("all", found["all"]), *found["by_kind"].items(), *found["by_relation"].items()):
        counts = [str(figure[key]) for key in _OUTCOMES]
        table.add_row(*map(escape, (name, str(figure["n"]), *counts, _share(figure["borne_out"]))))
    console.print(table)


def _classes(found: Mapping[str, Any]) -> None:
    table = _table("class", "pictures", "found", "absent", "faint", "other")
    table.title = "how often a class is found where a caption names it; shares in % with 95 % intervals"
    most = sorted(found.items(), key=lambda item: -item[1]["pictures"])[:_CLASSES]
    for name, figure in most:
        absent, faint = (figure.get(state, 0) for state in ("absent", "faint"))
        rest = figure["pictures"] - figure.get("present", 0) - absent - faint
        cells = (name, str(figure["pictures"]), _share(figure["found"]), *map(str, (absent, faint, rest)))
        table.add_row(*map(escape, cells))
    console.print(table)
    if len(found) > len(most):
        console.print(f"the {len(most)} most frequent classes of {len(found)}; verify.json has them all")


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _share(figure: Mapping[str, Any] | None) -> str:
    return "–" if figure is None else "{value:.0%} [{low:.0%}, {high:.0%}]".format(**figure).replace("%", "")
