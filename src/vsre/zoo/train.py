"""`vsre zoo train NAME`: make a shipped model from scratch, resumably, with its card."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedTokenizerFast, set_seed

from vsre.errors import VsreError
from vsre.zoo.cards import write_card
from vsre.zoo.encoders import MAKERS
from vsre.zoo.evaluate import mask_iou, nearest_neighbour, retrieval
from vsre.zoo.fit import FitConfig, FitResult, fit
from vsre.zoo.language import make_llm, make_tokenizer
from vsre.zoo.pool import Pool, make_pool

WEIGHTS = Path(__file__).parent / "weights"
ORDER = ("llm", "clip", "siglip", "dinov2", "sam", "base", "merged", "vsre", "detector", "sdxl")
"""A model comes after those it needs: base is built on clip and llm, merged on base and the encoders, vsre on
merged; the detector measures what sdxl paints."""

NEEDS = {"base": ("clip", "llm"), "merged": ("base", "clip", "siglip", "dinov2", "sam"), "vsre": ("merged",)}

Say = Callable[[str], None]


@cache
def load_settings() -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(resources.files("vsre.zoo").joinpath("zoo.yaml").read_text())
    return settings


def _pool(work: Path, which: str, say: Say, *, share: float = 1.0) -> Pool:
    settings = load_settings()
    wanted = settings[which]
    n = max(256, int(wanted["scenes"] * share))
    say(f"{n} scenes ({which})")
    return make_pool(work / "pools", n, wanted["seed"], settings["size"])


def _tokenizer(work: Path) -> PreTrainedTokenizerFast:
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        make_tokenizer(load_settings()["llm"]["vocab_size"]).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _made(settings: dict[str, Any], result: FitResult, data: str) -> dict[str, Any]:
    fit_settings = settings["fit"]
    return {
        "data": data,
        "steps": result.steps,
        "batch": fit_settings["batch"],
        "learning rate": fit_settings["lr"],
        "seed": fit_settings.get("seed", 0),
        "hours of this call": round(result.hours, 2),
        "last loss": round(result.loss, 4),
        "torch": torch.__version__,
    }


def _figures(name: str, objective: Any, work: Path, tokenizer: PreTrainedTokenizerFast, say: Say) -> dict[str, float]:
    unseen = _pool(work, "held_out_scenes", say)
    objective.eval()
    if name in ("clip", "siglip"):
        return retrieval(objective, unseen, tokenizer)
    if name == "dinov2":
        seen = _pool(work, "pool", say)
        gallery = Pool(seen.images[:2000], seen.objects[:2000], seen.facts[:2000])
        return nearest_neighbour(objective, gallery, unseen)
    return mask_iou(objective, unseen)


def probe_figures(encoder: Path, work: Path, say: Say, *, scenes: int = 1500) -> dict[str, float]:
    """What linear probes read from a saved encoder's frozen features, and from its untrained twin's (probes.py)."""
    from vsre.zoo.probes import probe_checkpoint  # scikit-learn takes a while to import

    seen = _pool(work, "pool", say, share=scenes / load_settings()["pool"]["scenes"])
    unseen = _pool(work, "held_out_scenes", say)
    found = probe_checkpoint(str(encoder), seen, unseen)
    wanted = ("class_at_place", "position", "relation")
    return {f"{what} ({weights})": found[weights][what] for what in wanted for weights in ("trained", "untrained")}


def train_zoo(
    name: str,
    work: Path,
    out: Path = WEIGHTS,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    say: Say = print,
) -> bool:
    """Make the zoo model `name` in `out`/NAME; scenes, logs and checkpoints are in `work`.

    A second call continues from the last checkpoint. `steps` overrides the number of steps, for a trial in a folder of
    its own; `seconds` stops an encoder, llm, detector or sdxl early, with a checkpoint. Returns whether the model is
    finished and written.
    """
    settings = load_settings()
    if name not in ORDER:
        raise VsreError(f"There is no zoo model {name!r}. Choose one of: {', '.join(ORDER)}.")
    if steps is not None:
        if out == WEIGHTS:
            raise VsreError(
                "A trial with fewer steps would overwrite the shipped model: say where to write with --out."
            )
        work = work / f"trial-{steps}"
    out = out.resolve()
    started = time.monotonic()
    tokenizer = _tokenizer(work)
    target = out / name
    if missing := [part for part in NEEDS.get(name, ()) if not (out / part / "config.json").is_file()]:
        raise VsreError(
            f"{name} is made of {', '.join(missing)}, and {out} has no such model: run `vsre zoo train {missing[0]} "
            f"--out {out}` first."
        )
    # The vision-language models need the whole training package, the others do not.
    if name in ("base", "merged"):
        from vsre.zoo.base import train_general

        train_general(name, settings, work, out, steps=steps, say=say)
        return True
    if name == "vsre":
        from vsre.zoo.expert import train_expert

        train_expert(settings, work, out, steps=steps, say=say)
        return True
    if name == "detector":
        from vsre.zoo.detector import train_detector

        return train_detector(settings, work, out, steps=steps, seconds=seconds, say=say)
    if name == "sdxl":
        from vsre.zoo.diffusion_train import train_sdxl

        return train_sdxl(settings, work, out, steps=steps, seconds=seconds, say=say)
    own = settings[name]
    config = FitConfig(**own["fit"] | ({"steps": steps} if steps else {}))
    set_seed(config.seed)
    model: Any
    if name == "llm":
        model, collate = make_llm(own, tokenizer)
        data = "text exchanges, no pictures"
    else:
        pool = _pool(work, "pool", say, share=min(1.0, config.steps / own["fit"]["steps"]))
        model, collate = MAKERS[name](own, pool, tokenizer)
        data = f"{len(pool)} scenes (stream seed {settings['pool']['seed']})"
    hook = (lambda step: model.update_teacher()) if name == "dinov2" else None
    say(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {config.steps} steps of {config.batch}")
    result = fit(model, collate, config, work / name, after_step=hook, seconds=seconds)
    if not result.finished:
        say(f"{name}: stopped at step {result.steps} of {config.steps}; run again to continue")
        return False
    figures = {} if name == "llm" else _figures(name, model, work, tokenizer, say)
    shutil.rmtree(target, ignore_errors=True)
    shipped = model if name == "llm" else model.encoder()
    shipped.save_pretrained(target)
    if name == "llm":
        # Afresh: the one in use remembers how training padded and truncated its texts, and would save that too.
        make_tokenizer(own["vocab_size"]).save_pretrained(target)
    if name in MAKERS:
        figures |= probe_figures(target, work, say, scenes=1500 if steps is None else 300)
    write_card(target, name, settings=own, made=_made(own, result, data), figures=figures)
    say(f"{name}: written to {target} after {time.monotonic() - started:.0f} s; {figures}")
    return True
