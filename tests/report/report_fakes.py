"""Run folders as `vsre diagnose` writes them, made up from a skill and a leaning instead of a model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vsre.diagnose.blind import Statement, blind_floor
from vsre.diagnose.metrics import summarise
from vsre.diagnose.samples import meta_category, read_samples, write_part
from vsre.triplets import Triplet, image_content_id, write_triplets

PACKS = {"phase1": 15, "phase2": 15, "phase3": 18, "phase4": 21, "pool": 50, "held-out": 12, "test-s": 1}
RELATIONS = (
    *("left of", "right of", "behind", "above", "inside", "touching", "on", "near", "far from", "facing"),
    *("facing away from", "next to", "at the side of", "toward", "far away from"),
)
THINGS = ("cat", "dog", "teddy bear", "bowl", "cake", "bench", "umbrella", "dining table")


def picture(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (320, 240), tuple(int(v) for v in rng.integers(120, 220, 3)))
    draw = ImageDraw.Draw(image)
    for x0, y0, x1, y1, colour in ((32, 72, 128, 192, "saddlebrown"), (160, 96, 288, 216, "slategray")):
        draw.ellipse((x0, y0, x1, y1), fill=colour)
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def make_triplets(folder: Path, count: int, seed: int = 0) -> list[Triplet]:
    """Two statements a picture, one true and one false."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        data = picture(i // 2)
        relation = str(rng.choice(RELATIONS, p=_skewed(len(RELATIONS))))
        subject, thing = (str(t) for t in rng.choice(THINGS, 2, replace=False))
        made.append(
            Triplet(
                image_id=image_content_id(data),
                image_name=f"{i // 2}.jpg",
                subject=subject,
                relation=relation,
                object=thing,
                caption=f"The {subject} is {relation} the {thing}.",
                label=bool(i % 2),
                split="test",
                origin="fake",
                image=data,
                width=320,
                height=240,
                subject_box=(0.1, 0.3, 0.4, 0.8),
                object_box=(0.5, 0.4, 0.9, 0.9),
            )
        )
    unique = list({t.key: t for t in made}.values())
    write_triplets(folder, unique)
    return unique


def _skewed(count: int) -> np.ndarray:
    weights = 1.0 / np.arange(1, count + 1)
    return weights / weights.sum()


def make_run(
    folder: Path,
    name: str,
    triplets: list[Triplet],
    *,
    skill: float,
    leaning: float = 0.0,
    wobble: float = 0.3,
    packs: dict[str, int] | None = None,
    protocol: str = "clean",
    seed: int = 0,
) -> Path:
    """A model that separates true from false by `skill`, leans to yes by `leaning` and varies by `wobble`."""
    rng = np.random.default_rng(seed)
    truth = np.array([t.label for t in triplets])
    sight = skill * (2.0 * truth - 1) + rng.normal(size=len(truth))
    rows = []
    for pack, count in (packs or PACKS).items():
        for i in range(count):
            score = sight + leaning + rng.normal(scale=2 * wobble) + rng.normal(scale=wobble, size=len(truth))
            answered, failed = rng.random((2, len(truth))) > np.array([[0.04 * (i % 5)], [0.002]])
            for t, s, read, ran in zip(triplets, score, answered, failed, strict=True):
                reading = "error" if not ran else "unanswered" if not read else "yes" if s > 0 else "no"
                rows.append(_sample(name, pack, f"{pack}-{i + 1:02d}", t, reading, float(s)))
    write_part(folder / "samples", rows)
    statements = [Statement(t.image_id, t.caption, t.relation, t.label) for t in triplets]
    metrics = {
        "model": name,
        "protocol": protocol,
        **summarise(read_samples(folder / "samples"), resamples=200),
        "blind_floor": blind_floor(statements[: len(truth) // 2], statements[len(truth) // 2 :], resamples=200),
        "skipped": {"no_boxes": 3, "duplicate_rows": 0},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"model": name, "seed": seed}), encoding="utf-8")
    return folder


def _sample(name: str, pack: str, template: str, t: Triplet, reading: str, score: float) -> dict[str, Any]:
    failed = reading == "error"
    logp_yes, logp_no = (None, None) if failed else (-float(np.log1p(np.exp(-score))), -float(np.log1p(np.exp(score))))
    return {
        "model": name,
        "pack": pack,
        "template": template,
        "key": t.key,
        "image_id": t.image_id,
        "subject": t.subject,
        "relation": t.relation,
        "meta_category": meta_category(t.relation),
        "object": t.object,
        "caption": t.caption,
        "truth": t.label,
        "prompt": f"{t.caption} Is this right? Answer yes or no.",
        "answer": {"yes": "Yes", "no": "No", "unanswered": "I cannot tell."}.get(reading),
        "reading": reading,
        "correct": None if failed else reading == ("yes" if t.label else "no"),
        "p_yes": None if logp_yes is None else float(np.exp(logp_yes)),
        "logp_yes": logp_yes,
        "logp_no": logp_no,
        "error": "RuntimeError: out of memory" if failed else None,
    }


def make_log(path: Path, steps: int = 200) -> Path:
    rng = np.random.default_rng(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    losses = 0.4 + np.exp(-np.arange(steps) / 40) + rng.normal(scale=0.05, size=steps)
    lines = [json.dumps({"step": i, "loss": float(v)}) for i, v in enumerate(losses)]
    path.write_text("\n".join([*lines, '{"step": 7, "lo']), encoding="utf-8")
    return path
