"""Where a model's parts come from, and under which licences they were published, as far as that is known."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vsre.errors import VsreError
from vsre.model import VsreConfig, resolve_checkpoint
from vsre.model.checkpoints import ZOO_PREFIX

UNKNOWN = "unknown"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@cache
def _known() -> dict[str, dict[str, str]]:
    content: dict[str, dict[str, str]] = yaml.safe_load(
        files("vsre.export").joinpath("licences.yaml").read_text("utf-8")
    )
    return content


def licence_of(checkpoint: str | Path) -> str:
    """The licence of a checkpoint: as `licences.yaml` has it for exactly this id, or the checkpoint's own card says.

    Anything else is "unknown": nothing follows from a similar name.
    """
    known = _known()["models"].get(str(checkpoint))
    if known is not None:
        return known
    try:
        card = Path(resolve_checkpoint(checkpoint)) / "README.md"
    except VsreError:
        return UNKNOWN
    return _stated(card) or UNKNOWN


def data_licence(origin: str) -> str:
    """The licence of rows of one origin, by what comes before its colon ("repaint:t2i")."""
    return _known()["data"].get(origin.split(":")[0], UNKNOWN)


def _stated(card: Path) -> str | None:
    if not card.is_file():
        return None
    from huggingface_hub import ModelCard

    try:
        stated = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (ValueError, yaml.YAMLError):  # a card that cannot be read states nothing
        return None
    return str(stated) if stated else None


def is_hub_id(checkpoint: str | Path) -> bool:
    """Whether a checkpoint is OWNER/NAME of the hub and no folder here."""
    return _HUB_ID.fullmatch(str(checkpoint)) is not None and not Path(checkpoint).exists()


def is_published(checkpoint: str | Path) -> bool:
    """Whether a checkpoint means the same elsewhere: a hub id, or a model shipped with vsre."""
    return is_hub_id(checkpoint) or str(checkpoint).startswith(ZOO_PREFIX)


def public_name(checkpoint: str | Path) -> str:
    """A checkpoint's name for use elsewhere: a hub id or `zoo:NAME` in full, but only the last name of a path."""
    return str(checkpoint) if is_published(checkpoint) else Path(checkpoint).name


def model_parts(
    config: Any, checkpoint: str | Path, llm: str | None = None, start: str | None = None
) -> list[dict[str, str]]:
    """One row per part: part, checkpoint, what is taken from it, licence.

    `llm` is the language model's checkpoint; None: as the config names it, if it does. `start` is the checkpoint that
    was trained further; None: unknown, or the checkpoint itself if it is published and not VSRE.
    """
    text = config.get_text_config(decoder=True)
    language = llm or getattr(text, "_name_or_path", "") or UNKNOWN
    rows = []
    if isinstance(config, VsreConfig):
        for spec in config.specs:
            taken = f"layer {spec.layer} at {spec.image_size} pixels, {spec.grid}x{spec.grid} patches"
            cls = {"none": "no CLS token", "drop": "CLS dropped", "keep": "CLS kept"}[spec.cls]
            rows.append(_row(f"encoder {spec.name}", spec.checkpoint, f"{taken}, {cls}"))
        if config.fusion:
            taken = ", ".join(f"{name} {value}" for name, value in config.fusion.items())
            rows.append({"part": "fusion", "checkpoint": "–", "taken": taken, "licence": "–"})
    elif text is not config:
        vision = getattr(config, "vision_config", None)
        rows.append(_row("vision encoder", getattr(vision, "_name_or_path", "") or UNKNOWN, _kind(vision)))
    rows.append(_row("language model", language, _kind(text)))
    if start is None and not isinstance(config, VsreConfig) and is_published(checkpoint):
        start = str(checkpoint)
    if start is not None:
        rows.append(_row("trained from", start, "all of it"))
    return rows


def _kind(config: Any) -> str:
    sizes = {"layers": "num_hidden_layers", "width": "hidden_size"}
    told = [f"{name} {getattr(config, field)}" for name, field in sizes.items() if hasattr(config, field)]
    return ", ".join([getattr(config, "model_type", UNKNOWN), *told])


def _row(part: str, checkpoint: str, taken: str) -> dict[str, str]:
    return {
        "part": part,
        "checkpoint": UNKNOWN if checkpoint == UNKNOWN else public_name(checkpoint),
        "taken": taken,
        "licence": UNKNOWN if checkpoint == UNKNOWN else licence_of(checkpoint),
    }
