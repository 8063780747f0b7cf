"""Pictures for the model's tests, and where something is in them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from vsre.model import to_frame


def marked(width: int, height: int, at: tuple[float, float] | None) -> Image.Image:
    """A dark picture with a white square, a tenth of the longer side wide, its middle at fractions x, y."""
    image = np.full((height, width, 3), 40, np.uint8)
    if at is not None:
        half = max(width, height) / 20
        x, y = at[0] * width, at[1] * height
        image[round(y - half) : round(y + half), round(x - half) : round(x + half)] = 255
    return Image.fromarray(image)


def centre(weights: torch.Tensor) -> tuple[float, float]:
    """The centre of mass of (h, w) weights, as fractions (x, y)."""
    h, w = weights.shape
    total = weights.sum()
    y = (weights.sum(1) * (torch.arange(h) + 0.5)).sum() / total / h
    x = (weights.sum(0) * (torch.arange(w) + 0.5)).sum() / total / w
    return float(x), float(y)


def frames(image: Image.Image, size: int) -> torch.Tensor:
    return torch.from_numpy(np.array(to_frame(image, size))).permute(2, 0, 1)[None]


def picture(seed: int, width: int = 96, height: int = 96) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
