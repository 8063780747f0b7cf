"""A model as a plain transformers folder: weights, processor, the code they need, and a card."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vsre
from vsre.errors import VsreError
from vsre.export.bundle import bundle
from vsre.export.card import CardFacts, write_card
from vsre.export.opening import open_for_export
from vsre.export.origins import model_parts, public_name
from vsre.export.results import measured
from vsre.export.training import began_with, describe_data, made_by, stages_of
from vsre.model import VsreConfig, VsreForConditionalGeneration, VsreImageProcessor, VsreProcessor
from vsre.train.checkpoints import no_bars, write_json

CODE = "modeling_vsre"
RECORD = "export.json"
"""Marks a folder as an export, which may be replaced or pushed."""

_AUTO_MAPS: dict[str, dict[str, type]] = {
    "config.json": {"AutoConfig": VsreConfig, "AutoModelForImageTextToText": VsreForConditionalGeneration},
    "processor_config.json": {"AutoProcessor": VsreProcessor},
}


def export_model(
    checkpoint: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    results: Sequence[str | Path] = (),
    training: str | Path | None = None,
    data: Sequence[str] = (),
    base: str | Path | None = None,
    llm: str | None = None,
    start: str | None = None,
    licence: str | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Write `checkpoint` to the folder `out` so that transformers alone loads it; returns the content of export.json.

    A VSRE model brings its code along in one file, cut out of this package (`bundle`), and is loaded with
    `trust_remote_code=True`; any other model is plain already. A PEFT adapter is merged into `base`, or into the
    model that it names. `dtype` rounds the weights; None keeps them as they are.

    The card says what is known and nothing else. `results` are run folders of `vsre diagnose`; one that asked other
    weights is shown as a comparison. `training` is a folder of `vsre train`, found automatically if the checkpoint lies
    in one. `data` are folders of triplets or questions, or words. `llm` is the language model's checkpoint, if the
    model does not name it, `start` the checkpoint that training started from, `licence` the one under which you publish
    (a licence id of the hub). `llm` and `start` are found automatically if the run's record has them.

    The folder appears once it is complete. Raises VsreError for a model or run that cannot be read, and if `out` holds
    anything but an earlier export.
    """
    out = Path(out)
    _check_free(out)
    runs = [Path(run) for run in results]
    for run in runs:
        if not (run / "metrics.json").is_file():
            raise VsreError(f"{run}: no metrics.json here, so nothing was measured. Give a folder of `vsre diagnose`.")
    stages, began = stages_of(checkpoint, training), began_with(checkpoint, training)
    loaded = open_for_export(checkpoint, base=base, dtype=dtype)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with no_bars():
        loaded.model.save_pretrained(part)
    loaded.processor.save_pretrained(part)
    _forget_paths(part / "config.json")
    own = isinstance(loaded.model, VsreForConditionalGeneration)
    if own:
        _add_code(part)
    facts = CardFacts(
        name=name or _name_of(checkpoint),
        own_code=own,
        parts=model_parts(loaded.model.config, checkpoint, llm or began.get("llm"), start or began.get("checkpoint")),
        parameters=loaded.model.num_parameters(),
        dtype=str(loaded.dtype).removeprefix("torch."),
        visual_tokens=loaded.model.config.image_tokens if own else None,
        stages=stages,
        data=[describe_data(each) for each in [*(d for stage in stages for d in stage.sources), *data]],
        results=measured(runs, loaded.model),
        licence=licence,
        made={} if stages else made_by(checkpoint),
    )
    write_card(part, facts)
    record = {
        "vsre": vsre.__version__,
        "name": facts.name,
        "model": type(loaded.model).__name__,
        "code": f"{CODE}.py" if own else None,
        "dtype": facts.dtype,
        "parameters": facts.parameters,
        "megabytes": round(sum(f.stat().st_size for f in part.iterdir()) / 1e6, 2),
        "results": [{"model": r.run.name, "same_weights": r.same_weights} for r in facts.results],
        "stages": [stage.name for stage in stages],
    }
    write_json(part / RECORD, record)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
    return record


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and ((out / RECORD).is_file() or not any(out.iterdir()))):
        raise VsreError(f"{out}: holds something other than an export. Choose a new or empty folder.")


def model_code() -> str:
    """VSRE's configuration, model and processor as one Python file that needs torch, transformers, numpy and Pillow."""
    return bundle(
        [VsreConfig, VsreForConditionalGeneration, VsreImageProcessor, VsreProcessor],
        package="vsre",
        docstring="VSRE for transformers' Auto classes: configuration, model, processor.\n\n"
        f"Cut out of the package vsre {vsre.__version__} (Apache-2.0) by `vsre export`: make changes there.\n",
    )


def _add_code(folder: Path) -> None:
    """Write the model's code and point the Auto classes to it."""
    (folder / f"{CODE}.py").write_text(model_code(), "utf-8")
    for file, classes in _AUTO_MAPS.items():
        content = json.loads((folder / file).read_text("utf-8"))
        content["auto_map"] = {auto: f"{CODE}.{found.__name__}" for auto, found in classes.items()}
        if "image_processor" in content:
            content["image_processor"]["auto_map"] = {"AutoImageProcessor": f"{CODE}.{VsreImageProcessor.__name__}"}
        write_json(folder / file, content)


def _forget_paths(file: Path) -> None:
    """Shorten the parts' paths, which mean nothing on another machine, to their last names."""
    content = json.loads(file.read_text("utf-8"))
    for entry in content.get("encoders") or []:
        entry["spec"]["checkpoint"] = public_name(entry["spec"]["checkpoint"])
    for part in (content, content.get("text_config"), content.get("vision_config")):
        if isinstance(part, dict) and part.get("_name_or_path"):
            part["_name_or_path"] = public_name(part["_name_or_path"])
    write_json(file, content)


def _name_of(checkpoint: str | Path) -> str:
    """A name for the card: for a stage's folder (runs/a/02-expert/model), the run's and the stage's."""
    path = Path(checkpoint)
    if path.name == "model" and path.is_dir():
        return f"{path.resolve().parents[1].name}-{re.sub(r'^[0-9]+-', '', path.resolve().parent.name)}"
    return str(checkpoint).rstrip("/").replace(":", "-").split("/")[-1]
