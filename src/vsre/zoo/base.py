"""The tiny LLaVA-style base: built from the tiny CLIP and language model, tuned on general captions and questions.

It runs the same stages, packing and trainer as every other model here; only its questions are general ones.
"""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from PIL import Image
from transformers import set_seed

from vsre.rewrite import QUESTION_SCHEMA
from vsre.sources.scenes import CLASSES
from vsre.train import parse_stages, run_stages
from vsre.triplets import ParquetShards, Triplet, image_content_id, write_triplets
from vsre.zoo.cards import write_card
from vsre.zoo.evaluate import general_accuracy
from vsre.zoo.language import make_llava
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.text import Exchange, general_questions, listing

POOL_SEED = 303


def _picture(pool: Pool, i: int) -> Triplet:
    """A picture as a row that questions can point to; its caption only names what is there."""
    buffer = io.BytesIO()
    Image.fromarray(pool.images[i]).save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    names = [f.name for f in pool.facts[i]]
    return Triplet(
        image_id=image_content_id(data),
        image_name=f"{i:06d}.png",
        subject=names[0],
        relation="",
        object=names[-1],
        caption=f"A picture of {listing(names)}.",
        label=True,
        split="train",
        origin="scenes:general",
        image=data,
        width=pool.images.shape[2],
        height=pool.images.shape[1],
    )


def exchanges(pool: Pool, i: int, n: int, seed: int) -> list[Exchange]:
    return general_questions(pool.facts[i], sorted(CLASSES), random.Random(f"{seed}/{i}"), n)


def write_general(pool: Pool, folder: Path, questions: int, seed: int = 0) -> dict[str, Path]:
    """Triplets (pictures) and questions of general exchanges, in the folders that a stage's data source names."""
    paths = {"triplets": folder / "triplets", "questions": folder / "questions"}
    if not (folder / "done.json").is_file():
        keys: list[tuple[str, str]] = []

        def pictures() -> Iterator[Triplet]:
            for i in range(len(pool)):
                picture = _picture(pool, i)
                keys.append((picture.key, picture.image_id))
                yield picture

        write_triplets(paths["triplets"], pictures())
        with ParquetShards(paths["questions"], QUESTION_SCHEMA, rows_per_file=200_000) as shards:
            for i, (key, image_id) in enumerate(keys):
                common = {"key": key, "image_id": image_id, "pack": "general", "truth": True, "format": "free"}
                rows = [
                    common | {"template": f"{e.kind}-{n}", "prompt": e.prompt, "answer": e.answer, "split": "train"}
                    for n, e in enumerate(exchanges(pool, i, questions, seed))
                ]
                shards.write_table(pa.Table.from_pylist(rows, schema=QUESTION_SCHEMA))
        (folder / "done.json").write_text(json.dumps({"pictures": len(pool), "questions": questions, "seed": seed}))
    return paths


def train_base(
    settings: dict[str, Any],
    work: Path,
    out: Path,
    *,
    steps: int | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Make the base VLM in `out`/base from `out`/clip and `out`/llm; see `train_zoo` for the arguments."""
    own = settings["base"]
    size = settings["size"]
    n = own["pictures"] if steps is None else 256
    pool = make_pool(work / "pools", n, POOL_SEED, size)
    say(f"base: general questions on {len(pool)} scenes")
    source = write_general(pool, work / f"general-{n}", own["questions"])
    set_seed(0)
    model, processor = make_llava(out / "clip", out / "llm", size)
    plan = [stage | {"data": [source]} | ({"max_steps": steps} if steps is not None else {}) for stage in own["stages"]]
    started = time.monotonic()
    run_stages(model, processor, parse_stages(plan, "zoo.yaml: base"), work / "base", seed=0)
    target = out / "base"
    model.save_pretrained(target)
    processor.save_pretrained(target)
    made = {
        "data": f"{len(pool)} scenes (stream seed {POOL_SEED}), {own['questions']} general questions each",
        "steps": sum(stage["max_steps"] for stage in plan),
        "seed": 0,
        "hours of this call": round((time.monotonic() - started) / 3600, 2),
        "torch": torch.__version__,
    }
    held_out = settings["held_out_scenes"]
    unseen = make_pool(work / "pools", held_out["scenes"], held_out["seed"], size)
    asked = [exchanges(unseen, i, 4, seed=1) for i in range(256 if steps is None else 16)]
    model.eval()
    figures = general_accuracy(model, processor, unseen, asked)
    write_card(target, "base", settings=own, made=made, figures=figures)
    say(f"base: written to {target}; {figures}")
    return True
