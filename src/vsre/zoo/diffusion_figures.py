"""How good the tiny diffusion model is on scenes that it never saw: its VAE's error, and how often a verifier finds in
its pictures what they were asked to show."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vsre.relations.grammar import caption
from vsre.relations.things import Verdict
from vsre.repaint.diffusion import DiffusionPainter
from vsre.repaint.painter import Painted, Painter, PaintJob, Setting, Vocabulary, paint_all
from vsre.repaint.presets import load_config
from vsre.repaint.verify import Verifier, verify_all
from vsre.triplets import Box, Triplet, image_content_id
from vsre.verify import build_verifier
from vsre.zoo.diffusion_data import Paintings, Themes
from vsre.zoo.evaluate import Figures

WEIGHTS = Path(__file__).parent / "weights"


@torch.no_grad()
def reconstruction(vae: Any, paintings: Paintings, pictures: int = 256, batch: int = 32) -> Figures:
    """Peak signal-to-noise ratio of encoded and decoded pictures in dB, over all pixels and over those of things (means
    over the pictures)."""
    every: list[float] = []
    things: list[float] = []
    for at in range(0, min(pictures, len(paintings)), batch):
        images = np.array(paintings.images[at : at + batch])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        found = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        error = ((found - pixels) / 2).square().mean(1).numpy()  # (n, S, S) of 0..1
        for one, objects in zip(error, paintings.objects[at : at + batch], strict=True):
            every.append(float(-10 * np.log10(one.mean())))
            if objects.any():
                things.append(float(-10 * np.log10(one[objects > 0].mean())))
    return {"vae_psnr": round(float(np.mean(every)), 2), "vae_psnr_of_things": round(float(np.mean(things)), 2)}


def triplets_of(paintings: Paintings, indices: Sequence[int]) -> list[Triplet]:
    """A triplet per scene: the statement it was drawn for, with its picture and both visible boxes."""
    found = []
    for i in indices:
        subject, relation, thing = paintings.true[i][0]
        boxes = {name: _box(paintings.objects[i] == k) for k, name in enumerate(paintings.names[i], start=1)}
        out = io.BytesIO()
        Image.fromarray(paintings.images[i]).save(out, "PNG")
        image = out.getvalue()
        found.append(
            Triplet(
                image_id=image_content_id(image),
                image_name=f"{i}.png",
                subject=subject,
                relation=relation,
                object=thing,
                caption=caption(subject, relation, thing),
                label=True,
                split="train",
                origin="scenes:zoo",
                image=image,
                width=paintings.images.shape[2],
                height=paintings.images.shape[1],
                subject_box=boxes[subject],
                object_box=boxes[thing],
            )
        )
    return found


def _box(mask: np.ndarray[Any, Any]) -> Box | None:
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return None
    height, width = mask.shape
    return (
        float(xs.min() / width),
        float(ys.min() / height),
        float((xs.max() + 1) / width),
        float((ys.max() + 1) / height),
    )


def painted_all(painter: Painter, triplets: Sequence[Triplet], setting: Setting) -> list[Painted]:
    """What a painter makes of the triplets, without those it refuses."""
    parameters = painter.parameters_for(setting)
    truth = True if setting == "t2i" else None
    jobs = [PaintJob(t, setting, i, painter.name, parameters, truth) for i, t in enumerate(triplets)]
    return [done for done in paint_all(painter, jobs) if isinstance(done, Painted)]


def shown(verifier: Verifier, triplets: Sequence[Triplet]) -> Figures:
    """Shares of pictures in which the verifier finds both things, for which it says that the caption holds (PASS), and
    for which it says that it does not (FAIL)."""
    found = verify_all(verifier, triplets)
    both = [all(v.found(name) for name in (t.subject, t.object)) for t, v in zip(triplets, found, strict=True)]
    figures = {"both found": round(float(np.mean(both)), 3)}
    for verdict in (Verdict.PASS, Verdict.FAIL):
        figures[verdict.name] = round(float(np.mean([v.verdict is verdict for v in found])), 3)
    return figures


def painted_figures(painter: Painter, verifier: Verifier, triplets: Sequence[Triplet]) -> dict[str, float]:
    """`shown` for the scenes' own pictures (the best the verifier can do) and for those painted in each setting."""
    figures = {f"scenes themselves: {what}": share for what, share in shown(verifier, triplets).items()}
    for setting in painter.settings:
        painted = painted_all(painter, triplets, setting)
        figures[f"{setting}: pictures"] = len(painted)
        if painted:
            rows = [p.triplets(p.statements[:1])[0] for p in painted]
            figures |= {f"{setting}: {what}": share for what, share in shown(verifier, rows).items()}
    return figures


def sdxl_figures(
    folder: Path, paintings: Paintings, themes: Themes, *, say: Callable[[str], None] = print, pictures: int = 64
) -> dict[str, float]:
    """`reconstruction` of the pipeline in `folder`, and `painted_figures` by the zoo's detector if it is there."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).eval()
    figures: dict[str, float] = dict(reconstruction(vae, paintings))
    if not (WEIGHTS / "detector" / "config.json").is_file():
        say("sdxl: no detector in the zoo, so nothing checks what it paints: vsre zoo train detector")
        return figures
    vocabulary = Vocabulary(themes.classes, frozenset(themes.relations))
    painter = DiffusionPainter(vocabulary, load_config("scenes").changed(model=str(folder)))
    triplets = triplets_of(paintings, range(min(pictures, len(paintings))))
    return figures | painted_figures(painter, build_verifier("scenes"), triplets)
