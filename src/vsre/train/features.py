"""Frozen encoders run once per image: a cache on disk of their features, in bf16, before any projector or adapter.

CACHE/clip-<revision>/shard-<id>.safetensors    one tensor per image, named by its content id; crc32 in the metadata

A revision is a hash of the encoder's weights and of everything else that determines its features, so any number of runs
may share a folder. A shard appears whole or not at all; it is memory-mapped, and its contents are checked when first
read. Four encoders of the paper's size take 5.4 MB per image (arXiv 2412.18224, section on the model).
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vsre.errors import VsreError
from vsre.train.memory import out_of_memory
from vsre.train.processes import processes
from vsre.train.vision import AT_ONCE, FrozenVision

SHARD = 64
"""Images per file, and the most whose features are in memory while the cache is filled."""
OPEN_FILES = 256
WAIT = 30.0
"""Seconds of one turn of waiting for another run that is filling the same folder."""

_DAMAGE = (SafetensorError, OSError, KeyError, ValueError)


class FeatureCache:
    """The features of images by content id, for one model's frozen encoders."""

    def __init__(self, folder: Path, vision: FrozenVision) -> None:
        self.vision = vision
        self.folder = folder
        self.folders = {name: folder / f"{name}-{revision}" for name, revision in vision.revisions.items()}
        self.damaged = 0
        self._files: list[Path] = []
        # Encoder -> image -> the number of its file; ~number once the checksum has been verified.
        self._at: dict[str, dict[str, int]] = {}
        self._opened = lru_cache(OPEN_FILES)(_open)
        self.scan()

    def scan(self) -> None:
        """Index what is there; a file that cannot be read as one of ours is removed and counted as damaged."""
        self._files, self._at = [], {name: {} for name in self.folders}
        ids: dict[str, str] = {}  # one string per image, shared by the encoders
        for name, folder in self.folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.glob("shard-*.safetensors")):
                try:
                    found = [ids.setdefault(image, image) for image in self._opened(file)[0].keys()]  # noqa: SIM118
                except _DAMAGE as error:
                    self._remove(file, error)
                    continue
                self._at[name].update(dict.fromkeys(found, len(self._files)))
                self._files.append(file)

    def _remove(self, file: Path, error: Exception) -> None:
        self.damaged += 1
        self._opened.cache_clear()
        if not isinstance(error, OSError):  # too many open files or a lost mount say nothing about its contents
            file.unlink(missing_ok=True)

    def missing(self, images: Sequence[str]) -> list[str]:
        """Those of these ids, in order, for which some encoder's features are missing."""
        return [i for i in images if any(i not in at for at in self._at.values())]

    def read(self, image: str) -> dict[str, torch.Tensor] | None:
        """bf16 features by encoder, each (tokens, channels) or (channels, g, g), mapped from disk.

        None if they are missing or damaged. A damaged file is removed with all that it holds, so that the next run
        makes it again.
        """
        found = {}
        for name, at in self._at.items():
            number = at.get(image)
            if number is None:
                return None
            path = self._files[max(number, ~number)]
            try:
                file, sums = self._opened(path)
                tensor = file.get_tensor(image)
                if number >= 0:
                    if checksum(tensor) != sums[image]:
                        raise ValueError("checksum")
                    at[image] = ~number
            except _DAMAGE as error:
                self._remove(path, error)
                lost = max(number, ~number)
                self._at[name] = {i: n for i, n in at.items() if max(n, ~n) != lost}
                return None
            found[name] = tensor
        return found

    def write(self, features: dict[str, dict[str, torch.Tensor]]) -> None:
        """Add images: {id: {encoder: features}}. Written aside and renamed, so that a kill leaves no partial shard."""
        label = f"{next(iter(features))[-16:]}-{len(features)}-{os.getpid()}"
        for name, folder in self.folders.items():
            tensors = {image: found[name].contiguous() for image, found in features.items()}
            sums = {image: checksum(tensor) for image, tensor in tensors.items()}
            part = folder / f"{label}.part"
            save_file(tensors, part, metadata={"crc32": json.dumps(sums)})
            part.replace(folder / f"shard-{label}.safetensors")

    def fill(self, images: Sequence[str], pixels: Callable[[str], torch.Tensor]) -> int:
        """Encode those of these ids that are missing; returns how many this process encoded. `pixels(id)` is (3, H, W).

        Processes of one run share the work. If another run is filling the same folder, wait for it and use what it
        made.
        """
        state = processes()
        with self._locked(state):
            todo: list[str] = []
            if state.is_main_process:
                for folder in self.folders.values():
                    for part in folder.glob("*.part"):  # left by a killed process, since we hold the lock
                        part.unlink()
                self.scan()
                todo = self.missing(images)
            mine = _from_main(todo)[state.process_index :: state.num_processes]
            for start in range(0, len(mine), SHARD):
                made: dict[str, dict[str, torch.Tensor]] = {}
                for at in range(start, min(start + SHARD, len(mine)), AT_ONCE):
                    some = mine[at : min(at + AT_ONCE, start + SHARD)]
                    encoded = self.vision.features(torch.stack([pixels(i) for i in some]))
                    for k, image in enumerate(some):
                        made[image] = {name: value[k].cpu() for name, value in encoded.items()}
                self.write(made)
        self.scan()
        return len(mine)

    @contextmanager
    def _locked(self, state: PartialState) -> Iterator[None]:
        """One lock for the whole folder: runs that share only some encoders write to the same places too."""
        lock = FileLock(self.folder / "fill.lock")
        held = False
        while not held:  # in short turns, as the other processes must not wait longer than their backend allows
            if state.is_main_process:
                with suppress(Timeout):
                    lock.acquire(timeout=WAIT)
            held = _from_main(lock.is_locked)
        try:
            yield
            state.wait_for_everyone()
        finally:
            lock.release()  # does nothing if this process does not hold it


def _from_main(value: Any) -> Any:
    """The main process's value, in every process."""
    return broadcast_object_list([value])[0]


def _open(file: Path) -> tuple[Any, dict[str, int]]:
    opened = safe_open(file, framework="pt")
    return opened, json.loads((opened.metadata() or {})["crc32"])


def checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def use_features(trainer: Any, folder: Path, console: Console, *, reserved: int = 0) -> str:
    """Fill the cache with the pictures of a VsreTrainer's data and let its collator read it; returns what was done.

    Nothing is done if the encoders train or are of a kind that `frozen_vision` does not know, or if what is missing
    takes more than half of the disk that is free once the run's own files, `reserved` bytes, are written. Raises
    VsreError if there is not enough memory for one picture.
    """
    vision, data, collator = trainer.vision, trainer.train_dataset, trainer.data_collator
    if vision is None:
        return "not kept: the encoders train, or are of a kind whose features cannot be extracted"
    state = processes()
    with state.main_process_first():
        cache = FeatureCache(folder, vision)
    numbers = {data.image_id(i): i for i in range(data.n_images)}
    missing = cache.missing(list(numbers))
    # What the main process sees of the disk decides for all.
    count, free = _from_main((len(missing), max(0, shutil.disk_usage(folder).free - reserved)))
    said = f"{len(numbers):,} pictures"
    if count:
        with _on_device(vision, trainer.args.device):
            each = sum(t.nbytes for t in vision.features(collator.pixels(0)[None]).values())
            size = f"{count:,} of {len(numbers):,} pictures x {each:,} bytes = {count * each / 1e9:,.3f} GB"
            if count * each > free // 2:
                return f"not kept: {size} are more than half of the {free / 1e9:,.3f} GB that stay free at {folder}"
            if state.is_main_process:
                console.print(f"frozen features to compute: {size}", highlight=False)
            began = time.perf_counter()
            cache.fill(list(numbers), lambda image: collator.pixels(numbers[image]))
            said += f", {count:,} of them encoded in {time.perf_counter() - began:.1f} s"
    if cache.damaged:
        said += f", {cache.damaged} damaged file(s) passed over"
    collator.read_from(cache)
    return said


@contextmanager
def _on_device(vision: FrozenVision, device: torch.device) -> Iterator[None]:
    """Within it, the encoders are on the training device: FSDP and DeepSpeed have not moved the model there yet."""
    try:
        with vision.placed(device):
            yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise VsreError(
            f"out of memory: {device} has no room for one picture in the frozen encoders. Stop other programs on it, "
            "set bf16: true, or take fewer or smaller encoders."
        ) from error
