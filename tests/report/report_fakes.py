"""Run folders as `vsre diagnose` writes them, made up from a skill and a leaning instead of a model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from vsre.triplets import Triplet, image_content_id, write_triplets

PACKS = {"phase1": 15, "phase2": 15, "phase3": 18, "phase4": 21, "pool": 50, "held-out": 12, "test-s": 1}
RELATIONS = {
    "left of": "projective",
    "right of": "projective",
    "behind": "projective",
    "above": "projective",
    "inside": "topological",
    "touching": "topological",
    "on": "topological",
    "near": "proximity",
    "far from": "proximity",
    "facing": "orientation",
    "facing away from": "orientation",
    "next to": "adjacency",
    "at the side of": "adjacency",
    "toward": "directional",
    "consists of": "unallocated",
}
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
        relation = str(rng.choice(list(RELATIONS), p=_skewed(len(RELATIONS))))
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


def figure(right: np.ndarray) -> dict[str, Any]:
    """A proportion with a normal interval: enough for a report's tests."""
    n = len(right)
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    value = float(right.mean())
    half = 1.96 * (value * (1 - value) / n) ** 0.5
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


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
    columns: dict[str, list[Any]] = {}
    templates = []
    right_by_pack: dict[str, list[np.ndarray]] = {}
    for pack, count in (packs or PACKS).items():
        for i in range(count):
            template = f"{pack}-{i + 1:02d}"
            noise = rng.normal(scale=wobble, size=len(truth))
            score = sight + leaning + rng.normal(scale=2 * wobble) + noise
            yes, answered = score > 0, rng.random(len(truth)) > 0.04 * (i % 5)
            right = (yes == truth) & answered
            right_by_pack.setdefault(pack, []).append(right)
            yes_acc, no_acc = figure(right[truth]), figure(right[~truth])
            templates.append(
                {
                    "pack": pack,
                    "template": template,
                    "n": len(truth),
                    "answered": figure(answered),
                    "acc_t": figure(right),
                    "acc_a": figure(right[answered]),
                    "yes_acc": yes_acc,
                    "no_acc": no_acc,
                    "bias": (yes_acc["value"] or 0) - (no_acc["value"] or 0),
                }
            )
            for j, t in enumerate(triplets):
                row = {
                    "model": name,
                    "pack": pack,
                    "template": template,
                    "key": t.key,
                    "image_id": t.image_id,
                    "subject": t.subject,
                    "relation": t.relation,
                    "meta_category": RELATIONS[t.relation],
                    "object": t.object,
                    "caption": t.caption,
                    "truth": t.label,
                    "prompt": f"{t.caption} Is this right? Answer yes or no.",
                    "answer": ("Yes" if yes[j] else "No") if answered[j] else "I cannot tell.",
                    "reading": ("yes" if yes[j] else "no") if answered[j] else "unanswered",
                    "correct": bool(right[j]),
                    "p_yes": float(1 / (1 + np.exp(-score[j]))),
                    "error": None,
                }
                for key, value in row.items():
                    columns.setdefault(key, []).append(value)
    (folder / "samples").mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "samples" / "part-00000.parquet")
    relations = np.array([t.relation for t in triplets])
    categories = np.array([RELATIONS[r] for r in relations])
    pool = np.mean(right_by_pack.get("pool", [np.zeros(len(truth))]), axis=0)
    metrics = {
        "model": name,
        "protocol": protocol,
        "n_triplets": len(triplets),
        "n_images": len({t.image_id for t in triplets}),
        "test_s": _headline(right_by_pack, "test-s"),
        "test_g": _headline(right_by_pack, "pool"),
        "unseen": _headline(right_by_pack, "held-out"),
        "templates": templates,
        "bias": {"value": 0.31 + leaning / 10, "low": 0.25, "high": 0.4, "n": 50},
        "auroc": {
            "value": 0.5 + skill / 4,
            "low": 0.48 + skill / 4,
            "high": 0.53 + skill / 4,
            "n": len(truth),
        },
        "dprime": 2 * skill,
        "criterion": -leaning,
        "consistency": {
            "all_agree": 0.2,
            "pairwise": {"value": 0.8, "low": 0.75, "high": 0.84, "n": len(truth)},
        },
        "by_relation": {r: figure(pool[relations == r]) for r in dict.fromkeys(relations)},
        "by_meta_category": {c: figure(pool[categories == c]) for c in dict.fromkeys(categories)},
        "blind_floor": {
            "majority": figure(truth),
            "per_relation": {"value": 0.51, "low": 0.46, "high": 0.56, "n": len(truth)},
            "ngrams": None,
        },
        "errors": 0,
        "unanswered": 12,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"model": name, "seed": seed}), encoding="utf-8")
    return folder


def _headline(right: dict[str, list[np.ndarray]], pack: str) -> dict[str, Any]:
    if pack not in right:
        return {"template": None, "acc_t": None}
    mean = np.mean(right[pack], axis=0)
    return {"template": f"{pack}-01", "acc_t": figure(mean), "answered": figure(np.ones(len(mean)))}


def make_log(path: Path, steps: int = 200) -> Path:
    rng = np.random.default_rng(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    losses = 0.4 + np.exp(-np.arange(steps) / 40) + rng.normal(scale=0.05, size=steps)
    lines = [json.dumps({"step": i, "loss": float(v)}) for i, v in enumerate(losses)]
    path.write_text("\n".join([*lines, '{"step": 7, "lo']), encoding="utf-8")
    return path
