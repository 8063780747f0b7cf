"""What caching the features of frozen encoders gains in training.

    python benchmarks/feature_cache.py [--json OUT] [--threads N] [--steps N]

The same stage is trained three times from the same seed on pictures of the embedded world, rewritten through the pool:

    decode   every step decodes and processes its pictures and runs the encoders
    pixels   processed pictures stay in memory, the encoders run at every step (vsre with --no-feature-cache)
    cache    the encoders run once per picture, features are read from the cache (vsre by default)

`ratio` is pixels' seconds per step over cache's, `ratio_to_decode` decode's over cache's; both from medians of a step's
seconds once every picture has been seen. `break_even_epochs` says after how many passes over the pictures filling the
cache has paid for itself. `losses_apart` is the largest relative difference between any two ways' losses of one step
(they round features alike, so none is expected); `rounding` is what bf16 features themselves change in the loss of the
first batch, against float32 features. `paper_bytes_per_image` adds up the four published encoders' grids.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vsre.model import ENCODERS
from vsre.recipes.start import open_model
from vsre.rewrite import rewrite
from vsre.sources.scenes import write_world
from vsre.sources.vsr import import_vsr
from vsre.train import features, run_stages, trainer
from vsre.train.logs import read_log

MODELS: dict[str, dict[str, Any]] = {
    "demo base (CLIP)": {"checkpoint": "zoo:base", "llm": None, "encoders": []},
    "demo VSRE (four encoders)": {
        "checkpoint": None,
        "llm": "zoo:base",
        "encoders": ["zoo:clip", "zoo:siglip", "zoo:dinov2", "zoo:sam"],
    },
}
WAYS: dict[str, dict[str, Any]] = {
    "decode": {"feature_cache": False, "image_cache_bytes": 0},
    "pixels": {"feature_cache": False},
    "cache": {"feature_cache": True},
}
UNITS, BATCH = 60, 16


def world(folder: Path) -> dict[str, Path]:
    write_world(folder / "world", train_units=UNITS, dev_units=1, test_units=1, seed=0, workers=2)
    import_vsr(
        folder / "world" / "annotations" / "caption-disjoint",
        folder / "triplets",
        images=[folder / "world" / "images"],
        instances=[folder / "world" / "instances.json"],
        protocol="clean",
        origin="scenes",
    )
    rewrite(folder / "triplets" / "train", folder / "questions", "pool", per_triplet=6, seed=0)
    return {"triplets": folder / "triplets" / "train", "questions": folder / "questions"}


@contextmanager
def timed(found: dict[str, float]) -> Iterator[None]:
    """Notes how long it took to fill the cache, and with how many pictures."""
    fill = features.FeatureCache.fill

    def measured(self: Any, *args: Any) -> int:
        began = time.perf_counter()
        count = fill(self, *args)
        found.update(fill_s=time.perf_counter() - began, images=count)
        return count

    features.FeatureCache.fill = measured  # type: ignore[method-assign]
    try:
        yield
    finally:
        features.FeatureCache.fill = fill  # type: ignore[method-assign]


def train(start: dict[str, Any], data: dict[str, Path], out: Path, way: str, steps: int) -> list[dict[str, Any]]:
    model, processor = open_model(**start, seed=0)
    stage = {
        "name": "tune", "train": ["adapters", "llm"], "data": [data], "lr": 5e-4, "batch_images": BATCH,
        "max_steps": steps, "save_every": 10**6,
    }  # fmt: skip
    run_stages(model, processor, [stage], out, seed=0, console=Console(file=io.StringIO()), **WAYS[way])
    return read_log(out / "01-tune" / "log.jsonl")


def rounding(start: dict[str, Any], data: dict[str, Path], out: Path) -> float:
    """|loss with bf16 features - loss with float32 features| / loss, of the first batch."""
    losses: list[float] = []
    compute = trainer.VsreTrainer.compute_loss

    def both(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            losses.append(float(compute(self, model, dict(inputs), *args, **kwargs)))
            exact, self.vision = self.vision, None  # the model takes the pixels itself
            losses.append(float(compute(self, model, dict(inputs), *args, **kwargs)))
            self.vision = exact
        return compute(self, model, inputs, *args, **kwargs)

    trainer.VsreTrainer.compute_loss = both  # type: ignore[method-assign]
    try:
        train(start, data, out, "pixels", 1)
    finally:
        trainer.VsreTrainer.compute_loss = compute  # type: ignore[method-assign]
    return abs(losses[0] - losses[1]) / losses[1]


def measure(start: dict[str, Any], data: dict[str, Path], folder: Path, steps: int) -> dict[str, Any]:
    filled: dict[str, float] = {}
    with timed(filled):
        logs = {way: train(start, data, folder / way, way, steps) for way in WAYS}
    passed = next((n for n, line in enumerate(logs["cache"], 1) if line["epoch"] >= 1), 1)
    step = {way: statistics.median(line["seconds"] for line in log[passed:]) for way, log in logs.items()}
    apart = max(
        abs(a["loss"] - b["loss"]) / abs(b["loss"])
        for way in ("pixels", "cache")
        for a, b in zip(logs[way], logs["decode"], strict=True)
    )
    shards = (folder / "cache" / "cache" / "features").glob("*/shard-*")
    size = sum(file.stat().st_size for file in shards)
    saved = (step["pixels"] - step["cache"]) / BATCH
    each = filled["fill_s"] / filled["images"]
    return {
        "step_s": {way: round(seconds, 4) for way, seconds in step.items()},
        "ratio": round(step["pixels"] / step["cache"], 2),
        "ratio_to_decode": round(step["decode"] / step["cache"], 2),
        "bytes_per_image": round(size / filled["images"]),
        "fill_s_per_image": round(each, 5),
        "break_even_epochs": round(each / saved, 2) if saved > 0 else None,
        "losses_apart": apart,
        "rounding": rounding(start, data, folder / "exact"),
    }


def paper_bytes() -> int:
    """bf16 bytes of one image's frozen features of the paper's four encoders: grid x grid x channels each."""
    return sum(spec.grid**2 * spec.hidden_size * 2 for spec in ENCODERS.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "threads": options.threads, "torch": torch.__version__, "paper_bytes_per_image": paper_bytes(), "models": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        data = world(Path(name))
        for number, (label, start) in enumerate(MODELS.items()):
            found = measure(start, data, Path(name) / str(number), options.steps)
            result["models"][label] = found
            print(label)
            for key, value in found.items():
                print(f"{key:>22}  {value}")
    print(f"four encoders of the paper's size: {result['paper_bytes_per_image'] / 1e6:.2f} MB per image")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
