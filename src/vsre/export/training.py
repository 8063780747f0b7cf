"""What a model was trained on, and how, according to the folders of `vsre train` and of the data."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from vsre.errors import VsreError
from vsre.export.origins import data_licence
from vsre.model import resolve_checkpoint
from vsre.report.text import duration
from vsre.train.checkpoints import DONE, read_json
from vsre.train.fingerprint import RUN, START
from vsre.triplets import parquet_files


@dataclass(frozen=True)
class StageFacts:
    """A finished stage. `rows` are name and value for people; `sources` the folders of its triplets and questions."""

    name: str
    rows: dict[str, Any]
    sources: tuple[str, ...]


def stages_of(checkpoint: str | Path, training: str | Path | None = None) -> list[StageFacts]:
    """The finished stages of a run of `vsre train`, in order, up to the checkpoint's own.

    `training` is the run's folder; None: the one that the checkpoint lies in (RUN/NN-STAGE/model), or no stages if it
    lies in none. Raises VsreError if the run's folder holds no finished stage.
    """
    own, run = _folders(checkpoint, training)
    if run is None:
        return []
    done = sorted(run.glob(f"[0-9]*/{DONE}"))
    if not done:
        raise VsreError(f"{run}: no finished stage here. Give the folder that `vsre train --out` wrote.")
    last = own.name if own is not None and own.parent.resolve() == run.resolve() else done[-1].parent.name
    return [_stage(read_json(file)) for file in done if file.parent.name <= last]


def began_with(checkpoint: str | Path, training: str | Path | None = None) -> dict[str, Any]:
    """What a run of `vsre train` began with, as its record says: `checkpoint` or `llm`, and `encoders` where some were
    named; empty if nothing is known. `training` is as for `stages_of`."""
    _, run = _folders(checkpoint, training)
    try:
        return {} if run is None else dict(read_json(run / RUN)[START])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _folders(checkpoint: str | Path, training: str | Path | None) -> tuple[Path | None, Path | None]:
    """The stage's folder that a checkpoint lies in, and its run's, or the run that was named."""
    model = Path(checkpoint).expanduser().resolve()
    own = model.parent if (model.parent / DONE).is_file() else None
    return own, Path(training) if training is not None else own.parent if own is not None else None


def _stage(done: dict[str, Any]) -> StageFacts:
    config = done["config"]
    limit, lora = config.get("max_steps"), config.get("lora")
    rows = {
        "trains": ", ".join(config["train"]),
        "low-rank layers": f"rank {lora['rank']}, alpha {lora['alpha']:g}" if lora else "–",
        "data": ", ".join(_short(source["questions"]) for source in config["data"]),
        "questions": done["questions"],
        "pictures": done["images"],
        "steps": done["steps"],
        "epochs": config["epochs"] if limit is None else f"until step {limit}",
        "pictures a step": config["batch_images"],
        "questions a picture": config["questions_per_image"],
        "learning rate": config["lr"],
        "optimizer": config["optimizer"],
        "schedule": f"{config['schedule']}, warm-up {config['warmup']}",
        "time": duration(done["train_seconds"]),
        "last loss": round(done["last_loss"], 4),
    }
    sources = dict.fromkeys(str(source[kind]) for source in config["data"] for kind in ("triplets", "questions"))
    return StageFacts(str(done["stage"]), rows, tuple(sources))


def made_by(checkpoint: str | Path) -> dict[str, Any]:
    """What the card.json of a shipped model says about how it was made; empty for any other checkpoint."""
    try:
        card = read_json(Path(resolve_checkpoint(checkpoint)) / "card.json")
        return {"objective": card["settings"]["objective"], **card["made"]}
    except (VsreError, OSError, ValueError, KeyError, TypeError):
        return {}


@dataclass(frozen=True)
class DataFacts:
    """A source of training data: its name, what is in it, the protocol of its split, its licence."""

    name: str
    content: str
    protocol: str = ""
    licence: str = ""


def describe_data(source: str) -> DataFacts:
    """What a folder of triplets or questions holds; words that name no folder are kept as they are.

    A folder that is gone is only named: a card can be written after the data were deleted.
    """
    folder = Path(source)
    try:
        table = pads.dataset([str(file) for file in parquet_files(folder)], format="parquet")
    except (VsreError, OSError, pa.ArrowInvalid):
        return DataFacts(_short(source) if folder.is_absolute() else source, "not looked at")
    columns = set(table.schema.names)
    if {"origin", "image_id"} <= columns:
        found = table.to_table(columns=["origin", "image_id"])
        origins = Counter(found["origin"].to_pylist())
        told = ", ".join(f"{n:,} of {origin}" for origin, n in origins.most_common())
        pictures = len(set(found["image_id"].to_pylist()))
        licences = "; ".join(dict.fromkeys(f"{o}: {data_licence(o)}" for o in origins))
        return DataFacts(_short(source), f"triplets: {told}; {pictures:,} pictures", noted_protocol(folder), licences)
    if {"template", "pack"} <= columns:
        found = table.to_table(columns=["template", "pack"])
        packs, templates = set(found["pack"].to_pylist()), set(found["template"].to_pylist())
        asked = f"questions: {len(found):,}, pack {', '.join(sorted(packs))}"
        # Free questions have one template each: their number says nothing.
        shared = 2 * len(templates) <= len(found)
        return DataFacts(_short(source), asked + (f", {len(templates)} templates" if shared else ""))
    raise VsreError(f"{folder}: neither triplets nor questions, by its columns. Name a folder that vsre wrote.")


def noted_protocol(triplets: Path) -> str:
    """The protocol in the summary.json beside a split folder; empty where none was noted."""
    try:
        noted = json.loads((triplets.parent / "summary.json").read_text("utf-8"))["protocol"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return noted if isinstance(noted, str) else ""


def _short(path: str) -> str:
    """The last two names of a path: what lies above means nothing elsewhere."""
    return "/".join(Path(path).parts[-2:])
