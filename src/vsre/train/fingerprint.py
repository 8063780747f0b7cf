"""What a run is made of, written down at its start: a folder never mixes two configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vsre.errors import VsreError
from vsre.model.text import text_parts
from vsre.train.checkpoints import write_json
from vsre.train.stages import IMMATERIAL, DataSource, Stage
from vsre.triplets import parquet_files

RUN = "run.json"
START = "start"
"""The key in a run's record of the checkpoints it began with, as they were named. They are reported, never compared:
what counts is the model's fingerprint."""
_STORE = "2"
"""The version of what a store holds; after a change, runs build their stores again."""


def data_fingerprint(path: Path) -> str:
    """A hash of the sizes and footers of a folder's Parquet files; footers hold row counts and column
    statistics.
    """
    digest = hashlib.sha256()
    for file in parquet_files(path):
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 8))
            footer = int.from_bytes(stream.read(4), "little")
            stream.seek(max(0, size - 8 - footer))
            digest.update(f"{file.name} {size} ".encode() + stream.read())
    return digest.hexdigest()


def model_fingerprint(model: Any) -> str:
    """A hash of the configuration and of the first and last values of every weight, quick at any size."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in model.state_dict().items():
        flat = weight.detach().reshape(-1)
        ends = torch.cat([flat[:32], flat[-32:]]).to("cpu", torch.float64)
        digest.update(f"{name} {tuple(weight.shape)} ".encode() + ends.numpy().tobytes())
    return digest.hexdigest()


def text_fingerprint(processor: Any) -> str:
    """A hash of what turns questions into tokens: vocabulary, special tokens, chat template."""
    return hashlib.sha256(json.dumps(text_parts(processor), sort_keys=True, default=str).encode()).hexdigest()


def source_fingerprint(source: DataSource, text: str, max_tokens: int | None) -> str:
    parts = (_STORE, data_fingerprint(source.triplets), data_fingerprint(source.questions), text, str(max_tokens))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def store_folder(cache: Path, source: DataSource, text: str, max_tokens: int | None) -> Path:
    """The folder of a source's store in a run's cache, named by a hash of everything it is made from."""
    return cache / source_fingerprint(source, text, max_tokens)[:16]


def describe_run(model: Any, processor: Any, stages: Sequence[Stage], seed: int) -> dict[str, Any]:
    """Everything that determines the weights a run ends with, as JSON."""
    return {
        "seed": seed,
        "model": model_fingerprint(model),
        "processor": text_fingerprint(processor),
        "stages": [stage.model_dump(mode="json", exclude=set(IMMATERIAL)) for stage in stages],
        "data": [
            [{"triplets": data_fingerprint(s.triplets), "questions": data_fingerprint(s.questions)} for s in stage.data]
            for stage in stages
        ],
    }


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """One line for every place where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif old != new:
        shown = [v[:12] if isinstance(v, str) and len(v) == 64 else json.dumps(v, default=str) for v in (old, new)]
        yield f"{path}: {shown[0]} there, {shown[1]} now"


def claim_folder(folder: Path, run: dict[str, Any], *, resume: bool) -> None:
    """Claim a folder for this run, or confirm that it is this run's already. Raises VsreError if it holds another."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RUN
    if record.is_file():
        if not resume:
            raise VsreError(f"{folder}: a run is already there. Resume it, or choose another folder.")
        there = json.loads(record.read_text())
        there.pop(START, None)
        for stage in there["stages"]:  # in a run begun before these were left out
            for key in IMMATERIAL:
                stage.pop(key, None)
        if differing := list(differences(there, run)):
            lines = "\n  ".join(differing)
            raise VsreError(f"{folder}: holds a different run:\n  {lines}\nChoose another folder, or remove it.")
    else:
        write_json(record, run)


def note_start(folder: Path, start: Mapping[str, Any]) -> None:
    """Add to a run's record what it began with, unless that is recorded already."""
    content = json.loads((folder / RUN).read_text())
    if START not in content:
        write_json(folder / RUN, content | {START: dict(start)})
