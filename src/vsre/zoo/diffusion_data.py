"""Pictures and prompts for the tiny diffusion model: scenes drawn for a statement, with all that is true in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.relations.grammar import caption
from vsre.repaint.prompts import PromptSpec
from vsre.sources.scenes import CLASSES, DRAWABLE, Scene, decided, draw_scene_for, masks, paint

CHUNK = 500
Statement = tuple[str, str, str]
"""Subject, relation, object."""

MIRRORED = {
    "left of": "right of",
    "right of": "left of",
    "at the left side of": "at the right side of",
    "at the right side of": "at the left side of",
}
"""What these relations become in a mirror image; all others stay."""


@dataclass(frozen=True)
class Paintings:
    """images uint8 (n, S, S, 3); objects uint8 (n, S, S): 0 = background, k = the k-th of the names; true[i]: the
    statements that clearly hold in scene i, beginning with the one for which it was drawn."""

    images: NDArray[np.uint8]
    objects: NDArray[np.uint8]
    names: list[list[str]]
    true: list[list[Statement]]

    def __len__(self) -> int:
        return len(self.true)


@dataclass(frozen=True)
class Themes:
    """What scenes may show; `third`: the share of scenes that have a third thing."""

    classes: tuple[str, ...] = CLASSES
    relations: tuple[str, ...] = DRAWABLE
    third: float = 0.0


def drawn_scenes(themes: Themes, seed: int, start: int = 0) -> Iterator[tuple[Scene, Statement]]:
    """Scenes from number `start` on, each with the statement it is drawn for."""
    number = start
    while True:
        rng = Random(f"diffusion/{seed}/{number}")
        scene = None
        while scene is None:
            subject, thing = rng.sample(themes.classes, 2)
            relation = rng.choice(themes.relations)
            more = themes.third > 0 and rng.random() < themes.third
            scene = draw_scene_for(subject, relation, thing, True, rng, int(more))
        yield scene, (subject, relation, thing)
        number += 1


def make_paintings(folder: Path, themes: Themes, n: int, seed: int, size: int, *, workers: int = 1) -> Paintings:
    """Draw (or reopen) `n` scenes of stream `seed` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(repr(themes).encode()).hexdigest()[:8]
    name = f"paintings-{digest}-{seed}-{n}-{size}"
    done = folder / f"{name}.json"
    shapes = {"images": (n, size, size, 3), "objects": (n, size, size)}
    files = {k: folder / f"{name}.{k}.npy" for k in shapes}
    if not done.is_file():
        arrays = {k: np.lib.format.open_memmap(files[k], "w+", np.uint8, shapes[k]) for k in shapes}
        facts: list[Any] = []
        with ProcessPoolExecutor(workers) as pool:
            starts = range(0, n, CHUNK)
            jobs = [pool.submit(_draw, themes, seed, at, min(CHUNK, n - at), size) for at in starts]
            for at, job in zip(starts, jobs, strict=True):
                images, objects, some = job.result()
                arrays["images"][at : at + len(some)] = images
                arrays["objects"][at : at + len(some)] = objects
                facts += some
        for array in arrays.values():
            array.flush()
        aside = done.with_suffix(".part")
        aside.write_text(json.dumps(facts))
        aside.replace(done)
    raw = json.loads(done.read_text())
    return Paintings(
        images=np.load(files["images"], mmap_mode="r"),
        objects=np.load(files["objects"], mmap_mode="r"),
        names=[names for names, _ in raw],
        true=[[(s, r, o) for s, r, o in true] for _, true in raw],
    )


def _draw(
    themes: Themes, seed: int, start: int, n: int, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[Any]]:
    images, objects = np.empty((n, size, size, 3), np.uint8), np.zeros((n, size, size), np.uint8)
    facts: list[Any] = []
    for i, (scene, statement) in zip(range(n), drawn_scenes(themes, seed, start), strict=False):
        images[i] = paint(scene, size)
        for k, visible in enumerate(masks(scene, size), start=1):
            objects[i][visible > 0] = k
        held = [s for s, truth in decided(scene).items() if truth and s[1] in themes.relations and s != statement]
        facts.append((scene.names, [statement, *held]))
    return images, objects, facts


def prompt_of(
    true: Sequence[Statement],
    names: Sequence[str],
    rng: Random,
    *,
    mirrored: bool = False,
) -> str:
    """One way to ask for a scene, as repainting does: mostly its statement, else another true one, both things, one."""
    spec = PromptSpec()
    form = rng.random()
    if form < 0.15:
        return spec.one(rng.choice(list(names)))
    first = true[0]
    if form < 0.25:
        two = [first[0], first[2]]
        rng.shuffle(two)
        return spec.both(*two)
    subject, relation, thing = first if form < 0.65 else rng.choice(list(true))
    if mirrored:
        relation = MIRRORED.get(relation, relation)
    if form > 0.95:
        return caption(subject, relation, thing)
    return spec.relation(subject, relation, thing)
