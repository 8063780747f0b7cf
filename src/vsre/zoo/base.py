"""The tiny vision-language models before any spatial tuning: base, on CLIP, and merged, on all four encoders.

They run the same stages, packing and trainer as every other model here; only their questions are those of text.py.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, set_seed

from vsre.model import build_vsre, spec_from_checkpoint
from vsre.model.encoders import frozen_features
from vsre.rewrite import QUESTION_SCHEMA
from vsre.sources.scenes import CLASSES
from vsre.train import parse_stages, run_stages
from vsre.triplets import ParquetShards, Triplet, image_content_id, write_triplets
from vsre.zoo.cards import write_card
from vsre.zoo.encoders import images_of
from vsre.zoo.evaluate import general_accuracy
from vsre.zoo.language import make_llava
from vsre.zoo.pool import Pool, make_pool
from vsre.zoo.text import GENERAL, Exchange, general_questions, listing

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


def exchanges(pool: Pool, i: int, n: int, seed: int | str, mix: Mapping[str, float] = GENERAL) -> list[Exchange]:
    return general_questions(pool.facts[i], sorted(CLASSES), random.Random(f"{seed}/{i}"), n, mix)


def write_general(
    pool: Pool, folder: Path, questions: int, seed: int | str = 0, mix: Mapping[str, float] = GENERAL
) -> dict[str, Path]:
    """Write triplets (pictures) and questions of general exchanges; returns the folders of a stage's data source."""
    paths = {"triplets": folder / "triplets", "questions": folder / "questions"}
    done = folder / "done.json"
    spec = {"pictures": len(pool), "questions": questions, "seed": seed, "mix": dict(mix)}
    if not (done.is_file() and json.loads(done.read_text()) == spec):
        shutil.rmtree(folder, ignore_errors=True)
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
                    for n, e in enumerate(exchanges(pool, i, questions, seed, mix))
                ]
                shards.write_table(pa.Table.from_pylist(rows, schema=QUESTION_SCHEMA))
        done.write_text(json.dumps(spec))
    return paths


def _open(name: str, own: dict[str, Any], out: Path, pool: Pool, say: Callable[[str], None]) -> tuple[Any, Any]:
    """The untrained model: LLaVA on CLIP, or VSRE on the encoders `own` lists and base's language model.

    In VSRE, CLIP's adapter starts as close to base's projector as its different shape allows: what the language model
    reads in CLIP's tokens stays, and the other encoders are added to it.
    """
    set_seed(0)
    if name == "base":
        return make_llava(out / "clip", out / "llm", pool.images.shape[1])
    specs = [spec_from_checkpoint(out / encoder, name=encoder) for encoder in own["encoders"]]
    model, processor = build_vsre(out / "base", specs)
    base = AutoModelForImageTextToText.from_pretrained(out / "base", dtype=torch.float32)
    error = imitate(model.adapters["clip"], base.model.multi_modal_projector, _clip_features(model, pool))
    say(f"{name}: CLIP's adapter follows base's projector except for {error:.1%} of its variance")
    for entry in model.config.encoders:  # a path on this machine means nothing elsewhere
        entry["spec"]["checkpoint"] = f"zoo:{entry['spec']['name']}"
    return model, processor


@torch.no_grad()
def _clip_features(model: Any, pool: Pool, pictures: int = 2000) -> torch.Tensor:
    """The input of CLIP's adapter for some pictures, (n, tokens, channels); the other encoders do not run."""
    (spec,) = (spec for spec in model.specs if spec.name == "clip")
    found = []
    for start in range(0, min(pictures, len(pool)), 100):
        frames = images_of(pool, range(start, min(start + 100, len(pool))))
        found.append(frozen_features(model.encoders["clip"], frames, spec))
    return torch.cat(found)


def imitate(student: nn.Module, teacher: nn.Module, features: torch.Tensor, *, steps: int = 1500) -> float:
    """Fit `student` to `teacher`'s outputs for features (n, tokens, channels); returns the share of variance missed."""
    flat = features.flatten(0, 1)
    with torch.no_grad():
        wanted = teacher(flat)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(flat), (1024,), generator=generator)
        loss = F.mse_loss(student(flat[rows]), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float(F.mse_loss(student(flat), wanted) / wanted.var())


def train_general(
    name: str,
    settings: dict[str, Any],
    work: Path,
    out: Path,
    *,
    steps: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Make a VLM that is tuned on general questions only, in `out`/NAME, from the zoo models in `out`.

    base: LLaVA's shape, from clip and llm; merged: VSRE's, from the encoders and base's language model. See
    `train_zoo` for the arguments.
    """
    own, size = settings[name], settings["size"]
    n = own["pictures"] if steps is None else 256
    pool = make_pool(work / "pools", n, POOL_SEED, size)
    say(f"{name}: general questions on {len(pool)} scenes")
    data = settings["general_data"]
    used = list(dict.fromkeys(source for stage in own["stages"] for source in stage["data"]))
    sources = {
        source: write_general(pool, work / f"{source}-{n}", spec["questions"], spec["seed"], spec["mix"])
        for source, spec in data.items()
        if source in used
    }
    model, processor = _open(name, own, out, pool, say)
    short = {} if steps is None else {"max_steps": steps}
    plan = [stage | {"data": [sources[source] for source in stage["data"]]} | short for stage in own["stages"]]
    trained = run_stages(
        model, processor, parse_stages(plan, f"zoo.yaml: {name}"), work / name, seed=0, feature_cache=work / "features"
    )
    save_vlm(model, processor, out / name, half=name != "base")
    made = {
        "data": f"{len(pool)} scenes (stream seed {POOL_SEED}), "
        + ", ".join(f"{data[source]['questions']} {source} questions each" for source in used),
        "steps": sum(stage["max_steps"] for stage in plan),
        "seed": 0,
        "hours of training": stage_hours(trained["stages"]),
        "torch": torch.__version__,
    }
    held_out = settings["held_out_scenes"]
    unseen = make_pool(work / "pools", held_out["scenes"], held_out["seed"], size)
    asked = [
        exchanges(unseen, i, 5, 1, GENERAL | {"reading": 3, "told": 3}) for i in range(256 if steps is None else 16)
    ]
    model.eval()
    figures = general_accuracy(model, processor, unseen, asked)
    write_card(out / name, name, settings=own | {"data": {k: data[k] for k in used}}, made=made, figures=figures)
    say(f"{name}: written to {out / name}; {figures}")


def stage_hours(stages: Sequence[dict[str, Any]]) -> float:
    """The hours that all steps of some finished stages took, whenever they were run."""
    return round(sum(stage["train_seconds"] for stage in stages) / 3600, 2)


def save_vlm(model: Any, processor: Any, target: Path, *, half: bool) -> None:
    """Save model and processor in `target`; `half`: weights rounded to bf16, which loading turns back into float32.

    The model in memory is rounded too, so that what is measured next is what was saved.
    """
    shutil.rmtree(target, ignore_errors=True)
    saved = model
    if half:
        for weight in model.parameters():  # not the buffers: loading computes those afresh
            weight.data = weight.data.bfloat16().float()
        saved = copy.deepcopy(model).bfloat16()
    saved.save_pretrained(target)
    processor.save_pretrained(target)
    if half:
        config = target / "config.json"
        config.write_text(config.read_text().replace('"bfloat16"', '"float32"'))
