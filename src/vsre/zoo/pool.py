"""Scenes for pretraining: rendered once at the encoders' size, kept memory-mapped, reproducible from their seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.files import locked, write_aside
from vsre.sources.scenes import masks, object_list, paint, scene_stream
from vsre.zoo.text import Fact

CHUNK = 500


@dataclass(frozen=True)
class Pool:
    """images uint8 (n, S, S, 3); objects uint8 (n, S, S): 0 = background, k = facts[i][k-1] is visible there."""

    images: NDArray[np.uint8]
    objects: NDArray[np.uint8]
    facts: list[list[Fact]]

    def __len__(self) -> int:
        return len(self.facts)


def _draw(seed: int, start: int, n: int, size: int, exclude: tuple[str, ...]) -> tuple[Any, Any, Any]:
    images = np.empty((n, size, size, 3), np.uint8)
    objects = np.empty((n, size, size), np.uint8)
    facts = []
    for i, scene in zip(range(n), scene_stream(seed, start=start, exclude=exclude), strict=False):
        images[i], objects[i] = paint(scene, size), 0
        visible = masks(scene, size)
        for rank, index in enumerate(reversed(scene.order), start=1):  # the order of object_list
            objects[i][visible[index] > 0] = rank
        facts.append([[fact.name, *fact.box] for fact in object_list(scene)])
    return images, objects, facts


def make_pool(
    folder: Path,
    n: int,
    seed: int,
    size: int,
    *,
    exclude: tuple[str, ...] = (),
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> Pool:
    """Render (or reopen) `n` scenes of stream `seed` in `folder`; a finished pool is never drawn again.

    If another process is drawing the same pool, wait for it.
    """
    spec = {"n": n, "seed": seed, "size": size, "exclude": sorted(exclude)}
    name = f"pool-{seed}-{n}-{size}"
    done = folder / f"{name}.json"
    shapes = {"images": (n, size, size, 3), "objects": (n, size, size)}
    files = {k: folder / f"{name}.{k}.npy" for k in shapes}
    with locked(folder, name, wait=True):
        if not (done.is_file() and json.loads(done.read_text(encoding="utf-8"))["spec"] == spec):
            # Aside, since another process may have the present pool open.
            asides = {k: file.with_name(f".{file.name}.part") for k, file in files.items()}
            arrays = {k: np.lib.format.open_memmap(asides[k], "w+", np.uint8, shapes[k]) for k in shapes}
            facts: list[Any] = []
            for images, objects, some in _chunks(n, workers, partial(_draw, seed, size=size, exclude=exclude)):
                at = slice(len(facts), len(facts) + len(some))
                arrays["images"][at], arrays["objects"][at] = images, objects
                facts += some
                progress(len(facts))
            done.unlink(missing_ok=True)
            for k, array in arrays.items():
                array.flush()
                asides[k].replace(files[k])
            write_aside(done, json.dumps({"spec": spec, "facts": facts}))
        raw = json.loads(done.read_text(encoding="utf-8"))["facts"]
        return Pool(
            images=np.load(files["images"], mmap_mode="r"),
            objects=np.load(files["objects"], mmap_mode="r"),
            facts=[[Fact(name, tuple(box)) for name, *box in some] for some in raw],
        )


def _chunks(n: int, workers: int, draw: Callable[[int, int], tuple[Any, Any, Any]]) -> Iterator[tuple[Any, Any, Any]]:
    """The results of `draw(start, number)` over all of `n`, in order."""
    starts = range(0, n, CHUNK)
    numbers = [min(CHUNK, n - start) for start in starts]
    if min(workers, len(starts)) <= 1:
        yield from map(draw, starts, numbers)
        return
    # Not forked: a worker would keep the pool's lock if its parent were killed.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, starts, numbers)
