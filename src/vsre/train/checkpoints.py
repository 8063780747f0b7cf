"""Checkpoints that are complete or do not count: a marker is written last, and nothing counts without one.

A checkpoint holds what the stage trains, not what it freezes: that is in the model the stage began with.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging as transformers_logging

from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.model.checkpoints import load_weights as read_model
from vsre.train.optimizer import moment_bytes

MARKER = "complete.json"
DONE = "done.json"
TRAINED = "trained.safetensors"


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of one."""
    write_aside(path, json.dumps(content, indent=2) + "\n")
    _sync(path.parent)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def mark_complete(folder: Path) -> None:
    """Flush a checkpoint's files to disk, then write the marker, which lists them with their sizes."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MARKER)
    for file in files:
        _sync(file)
    write_json(folder / MARKER, {str(p.relative_to(folder)): p.stat().st_size for p in files})


def is_complete(folder: Path) -> bool:
    try:
        files = json.loads((folder / MARKER).read_text())
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError):
        return False


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def complete_checkpoints(stage_folder: Path) -> list[Path]:
    """A stage's complete checkpoints, oldest first. Half-written ones are removed."""
    complete = []
    for folder in stage_folder.glob("checkpoint-*"):
        if is_complete(folder):
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return sorted(complete, key=step_of)


def keep_last(stage_folder: Path, count: int) -> None:
    for folder in complete_checkpoints(stage_folder)[:-count]:
        (folder / MARKER).unlink()
        shutil.rmtree(folder)


@contextmanager
def no_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def save_model(model: Any, processor: Any, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Save the released form: safetensors, config and processor, in a folder that appears once it is complete.

    `state` has the weights if the model's own are spread over processes.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with no_bars():
        model.save_pretrained(part, state_dict=state)
    processor.save_pretrained(part)
    for file in part.rglob("*"):
        _sync(file)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def load_weights(model: Any, folder: Path) -> None:
    """Load the weights saved in a folder into a model, all of them or none.

    They are read through `from_pretrained`, because `save_pretrained` renames the parameters of some models
    (LLaVA) and only `from_pretrained` renames them back. It maps the files, so that nothing is held twice if they
    have the model's dtype. Raises VsreError if a parameter is missing or has another shape.
    """
    try:
        with no_bars():
            saved = read_model(type(model), str(folder), _widest(model)).state_dict()
    except (RuntimeError, KeyError, ValueError) as error:
        raise VsreError(f"{folder}: its weights cannot be read ({error}).") from error
    _check_shapes(folder, saved, model.state_dict())
    model.load_state_dict(saved, strict=True)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, each once, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_trained(model: nn.Module, folder: Path) -> None:
    """Write what trains to FOLDER/trained.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: p.detach().contiguous() for name, p in trained(model).items()}, folder / TRAINED)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Load what `save_trained` wrote into a model, all of it or nothing.

    Raises VsreError if a parameter is missing, unexpected, or has another shape.
    """
    if not (folder / TRAINED).is_file():  # a checkpoint of the whole model
        return load_weights(model, folder)
    ours = trained(model)
    with safe_open(folder / TRAINED, framework="pt") as file, torch.no_grad():
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check_shapes(folder, saved, ours)
        for name, parameter in ours.items():
            parameter.copy_(saved[name])
    return None


def _check_shapes(folder: Path, saved: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor]) -> None:
    """Raise VsreError naming the first weight that a folder and the model do not have alike."""
    there, here = ({n: tuple(t.shape) for n, t in of.items()} for of in (saved, ours))
    wrong = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    if wrong:
        first = wrong[0]
        raise VsreError(
            f"{folder}: its weights do not fit this model: {first} is {there.get(first, 'missing')} there and "
            f"{here.get(first, 'missing')} in the model ({len(wrong)} weights differ). Use the model that the run "
            "began with, or another folder."
        )


def _widest(model: nn.Module) -> torch.dtype:
    """The floating-point type that holds every weight of a model without rounding."""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else torch.float32


def checkpoint_bytes(model: nn.Module, *, muon: bool) -> int:
    """The approximate size of a checkpoint in bytes: what trains, and its optimizer moments."""
    return sum(p.nbytes for p in trained(model).values()) + moment_bytes(model, muon=muon)


NO_SPACE = ("os error 28", "No space left on device", "inline_container", "iostream error")
"""How safetensors, and torch's file writer, which does not name the cause, report a file that could not be written."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in NO_SPACE):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn a full disk inside the block into a VsreError that says how to continue."""
    try:
        yield
    except Exception as error:
        if isinstance(error, VsreError) or not is_disk_full(error):
            raise
        last = complete_checkpoints(folder)
        kept = f"The last complete checkpoint, {last[-1].name}, is unharmed" if last else "No checkpoint was complete"
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
        raise VsreError(
            f"{folder}: the disk is full ({free / 1e6:,.0f} MB free). {kept}. Free some space and run the "
            "same command again: it continues from there."
        ) from error


def check_disk(folder: Path, needed: int) -> None:
    """Refuse to start a run that cannot be saved; `needed` is what it will write, in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise VsreError(
            f"{folder}: the run needs about {needed / 1e9:,.2f} GB for data, checkpoints and weights, "
            f"{free / 1e9:,.2f} GB are free. Free some space, choose another folder, or lower "
            "keep_checkpoints."
        )
