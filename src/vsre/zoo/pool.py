"""Scenes for pretraining: rendered once at the encoders' size, kept memory-mapped, remade from their seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.sources.scenes import masks, object_list, paint, scene_stream
from vsre.zoo.text import Fact

CHUNK = 500


@dataclass(frozen=True)
class Pool:
    """images uint8 (n, S, S, 3); objects uint8 (n, S, S): 0 = background, k = facts[i][k-1] is what one sees there."""

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
    """Render (or reopen) `n` scenes of stream `seed` in `folder`; a finished chunk is never drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"n": n, "seed": seed, "size": size, "exclude": sorted(exclude)}
    name = f"pool-{seed}-{n}-{size}"
    done = folder / f"{name}.json"
    shapes = {"images": (n, size, size, 3), "objects": (n, size, size)}
    files = {k: folder / f"{name}.{k}.npy" for k in shapes}
    if not (done.is_file() and json.loads(done.read_text())["spec"] == spec):
        arrays = {k: np.lib.format.open_memmap(files[k], "w+", np.uint8, shapes[k]) for k in shapes}
        facts: list[Any] = []
        starts = range(0, n, CHUNK)
        with ProcessPoolExecutor(workers) as workers_:
            jobs = [workers_.submit(_draw, seed, s, min(CHUNK, n - s), size, exclude) for s in starts]
            for s, job in zip(starts, jobs, strict=True):
                images, objects, some = job.result()
                arrays["images"][s : s + len(some)] = images
                arrays["objects"][s : s + len(some)] = objects
                facts += some
                progress(len(facts))
        for array in arrays.values():
            array.flush()
        done.write_text(json.dumps({"spec": spec, "facts": facts}))
    raw = json.loads(done.read_text())["facts"]
    return Pool(
        images=np.load(files["images"], mmap_mode="r"),
        objects=np.load(files["objects"], mmap_mode="r"),
        facts=[[Fact(name, tuple(box)) for name, *box in some] for some in raw],
    )
