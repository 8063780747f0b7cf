"""`vsre zoo train sdxl`: pictures, VAE, cached latents, then UNet and text encoders, each step resumable."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from transformers import CLIPTokenizer, set_seed

from vsre.errors import VsreError
from vsre.relations.grammar import caption
from vsre.repaint.prompts import PromptSpec
from vsre.sources.scenes import CLASSES, DRAWABLE
from vsre.zoo.cards import write_card
from vsre.zoo.diffusion import (
    END,
    DiffusionObjective,
    make_scheduler,
    make_text_encoders,
    make_tokenizer,
    make_unet,
)
from vsre.zoo.diffusion_data import Paintings, Themes, make_paintings, prompt_of
from vsre.zoo.diffusion_figures import sdxl_figures
from vsre.zoo.diffusion_vae import DecoderObjective, make_projection, make_vae, patch_components, set_linear
from vsre.zoo.fit import Batch, FitConfig, FitResult, fit

PARTS = ("vae", "unet")
THEMES = ("classes", "relations", "third")


def crops(paintings: Paintings, indices: Sequence[int], side: int) -> Batch:
    """Windows of random pictures, each with a part of a thing: images uint8 (B, 3, side, side), objects bool."""
    images, objects = [], []
    for i in indices:
        rng = np.random.default_rng([11, int(i)])
        k = int(rng.integers(len(paintings)))
        size = paintings.images.shape[1]
        ys, xs = np.nonzero(paintings.objects[k])
        at = int(rng.integers(len(ys)))
        y, x = (int(np.clip(v - rng.integers(side), 0, size - side)) for v in (ys[at], xs[at]))
        images.append(paintings.images[k, y : y + side, x : x + side])
        objects.append(paintings.objects[k, y : y + side, x : x + side] > 0)
    return {
        "images": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "objects": torch.from_numpy(np.stack(objects)),
    }


def begin_vae(settings: dict[str, Any], paintings: Paintings) -> tuple[Any, Any]:
    """The VAE before its decoder is trained, and what its encoder computes, as one convolution."""
    vae = make_vae(settings["shape"], paintings.images.shape[1])
    some = slice(settings["pictures"])
    components = patch_components(paintings.images[some], 1 + settings["things"] * (paintings.objects[some] > 0))
    set_linear(vae, *components)
    return vae, make_projection(*components)


def train_vae(
    settings: dict[str, Any], paintings: Paintings, work: Path, *, seconds: float | None = None
) -> tuple[DecoderObjective, FitResult]:
    """Compute the VAE's encoder from the pictures and train its decoder."""
    set_seed(0)
    objective = DecoderObjective(*begin_vae(settings, paintings), things=settings["things"])
    side = settings["crop"]
    config = FitConfig(**settings["fit"])
    result = fit(objective, lambda indices: crops(paintings, indices, side), config, work / "vae", seconds=seconds)
    return objective, result


def cached_latents(projection: Any, paintings: Paintings, file: Path) -> np.ndarray[Any, Any]:
    """The latents of the pictures and of their mirror images: float16 (2, n, 4, h, w), memory-mapped."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part.npy")
        n, size = len(paintings), paintings.images.shape[1] // 4
        found = np.lib.format.open_memmap(aside, "w+", np.float16, (2, n, 4, size, size))
        for at in range(0, n, 256):
            images = torch.from_numpy(np.array(paintings.images[at : at + 256])).permute(0, 3, 1, 2)
            pixels = images.float() / 127.5 - 1
            for mirrored, seen in enumerate((pixels, pixels.flip(3))):
                found[mirrored, at : at + len(images)] = projection(seen).numpy()
        found.flush()
        aside.replace(file)
    latents: np.ndarray[Any, Any] = np.load(file, mmap_mode="r")
    return latents


def corpus() -> Iterator[str]:
    """Every word that a prompt may have, in context."""
    spec, rng = PromptSpec(), Random(0)
    for name in CLASSES:
        yield spec.one(name)
        for relation in DRAWABLE:
            yield spec.relation(name, relation, rng.choice(CLASSES))
            yield caption(name, relation, rng.choice(CLASSES))


def tokenizers(settings: dict[str, Any], work: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Two, as in SDXL: they differ in what they pad with. Made once and kept in `work`, since another making may number
    some letters differently."""
    for name, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        if not (work / name).is_dir():
            aside = work / f".{name}.part"
            make_tokenizer(corpus(), pad, settings).save_pretrained(aside)
            aside.rename(work / name)
    first, second = (CLIPTokenizer.from_pretrained(work / name) for name in ("tokenizer", "tokenizer_2"))
    return first, second


def train_unet(
    settings: dict[str, Any], paintings: Paintings, projection: Any, work: Path, *, seconds: float | None = None
) -> tuple[DiffusionObjective, FitResult]:
    """Train UNet and text encoders together, on cached latents."""
    set_seed(1)
    both = tokenizers(settings["tokenizer"], work)
    encoders = make_text_encoders(both, settings["text"] | {"length": settings["tokenizer"]["length"]})
    latents = cached_latents(projection, paintings, work / f"latents-{len(paintings)}.npy")
    unet = make_unet(settings["unet"], latents.shape[-1], settings["text"]["hidden_size"])
    objective = DiffusionObjective(unet, *encoders, size=paintings.images.shape[1], **settings["objective"])

    def collate(indices: Sequence[int]) -> Batch:
        chosen, prompts = [], []
        for i in indices:
            rng = Random(f"unet/{i}")
            k, mirrored = rng.randrange(len(paintings)), rng.random() < 0.5
            chosen.append(latents[int(mirrored), k])
            prompts.append(prompt_of(paintings.true[k], paintings.names[k], rng, mirrored=mirrored))
        ids = [t(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids for t in both]
        found = torch.from_numpy(np.stack(chosen)).float()
        return {"latents": found, "ids": ids[0], "ids_2": ids[1], "seed": torch.tensor([indices[0]])}

    config = FitConfig(**settings["fit"])
    result = fit(objective, collate, config, work / "unet", after_step=objective.update_average, seconds=seconds)
    return objective, result


def save_sdxl(vae: Any, objective: DiffusionObjective, both: tuple[CLIPTokenizer, CLIPTokenizer], target: Path) -> None:
    """Save the averaged weights as a pipeline folder in float16; an old `target` stays until the new is complete."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline(
        vae=copy.deepcopy(vae).half(),
        **{name: copy.deepcopy(part).half() for name, part in objective.averaged.items()},
        tokenizer=both[0],
        tokenizer_2=both[1],
        scheduler=make_scheduler(),
        add_watermarker=False,
    )
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    pipeline.save_pretrained(aside)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def train_sdxl(
    settings: dict[str, Any],
    work: Path,
    out: Path,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Make the diffusion model in `out`/sdxl; see `train_zoo` for the arguments and for what is returned."""
    own, work = settings["sdxl"], work / "sdxl"
    if find_spec("diffusers") is None:
        raise VsreError('The diffusion model needs diffusers, which is not installed: pip install "vsre[diffusion]"')
    parts = {name: own[name] | ({"fit": own[name]["fit"] | {"steps": steps}} if steps else {}) for name in PARTS}
    most = 1 << 40 if steps is None else 64

    def pool(name: str) -> Paintings:
        wanted = own["pools"][name]
        n = min(wanted["scenes"], most)
        say(f"{n} scenes ({name})")
        return make_paintings(work / "pools", _themes(wanted), n, wanted["seed"], own["size"])

    say(f"vae: {parts['vae']['fit']['steps']} steps")
    decoder, first = train_vae(parts["vae"], pool("vae"), work, seconds=seconds)
    if not first.finished:
        say(f"sdxl: the VAE stopped at step {first.steps}; run again to continue")
        return False
    paintings = pool("unet")
    objective, second = train_unet(parts["unet"], paintings, decoder.projection, work, seconds=seconds)
    if not second.finished:
        say(f"sdxl: the UNet stopped at step {second.steps}; run again to continue")
        return False
    target = out / "sdxl"
    save_sdxl(decoder.vae, objective, tokenizers(parts["unet"]["tokenizer"], work), target)
    known, looked_at = _themes(own["pools"]["unet"]), 64 if steps is None else 2
    figures = sdxl_figures(target, pool("held_out"), known, say=say, pictures=looked_at)
    batch = parts["unet"]["fit"]["batch"]
    made = {
        "data": f"{len(paintings)} scenes and their mirror images (stream seed {own['pools']['unet']['seed']})",
        "steps": second.steps,
        "batch": batch,
        "samples seen": second.steps * batch,
        "steps of the decoder": first.steps,
        "learning rate": parts["unet"]["fit"]["lr"],
        "parameters": sum(p.numel() for p in objective.averaged.parameters())
        + sum(p.numel() for p in decoder.vae.parameters()),
        "last loss": round(second.loss, 4),
        "torch": torch.__version__,
    }
    write_card(target, "sdxl", settings=own, made=made, figures=figures, library="diffusers")
    say(f"sdxl: written to {target}; {figures}")
    return True


def _themes(pool: dict[str, Any]) -> Themes:
    named: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in pool.items() if k in THEMES}
    return Themes(**named)
