"""Adapters bring an encoder's frozen features to the language model's width (arXiv 2412.18224).

All are built as `Adapter(channels, width)` and give (B, tokens, width) in reading order: rows from the
top, each from the left. `takes_map` says whether they take a map (B, channels, n, n) or tokens
(B, tokens, channels); `reduction` positions along a side of the features become one visual token.
"""

from __future__ import annotations

import torch
from torch import nn


class Projector(nn.Sequential):
    """Linear-GELU-Linear-GELU-Linear on features (B, tokens, channels)."""

    takes_map = False
    reduction = 1

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Linear(channels, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
        )


class LlavaProjector(Projector):
    """LLaVA-1.5's projector (arXiv 2310.03744): Linear-GELU-Linear on features (B, tokens, channels)."""

    def __init__(self, channels: int, width: int) -> None:
        nn.Sequential.__init__(self, nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))


class SamAdapter(nn.Module):
    """Two stride-2 convolutions on SAM's neck output (B, C, g, g), g divisible by 4, then a linear layer.

    Real sizes: 256x64x64 -> 512x32x32 -> 1024x16x16 -> 256 tokens of 1024 -> the language model's width. The
    paper gives no kernel and no activation: kernels are 3x3 with padding 1, and there is a GELU between the
    layers, as in the projector. A token sees 7x7 neck positions, its own 4x4 among them.
    """

    takes_map = True
    reduction = 4

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(2 * channels, 4 * channels, kernel_size=3, stride=2, padding=1)
        self.linear = nn.Linear(4 * channels, width)
        self.act = nn.GELU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv1(features))  # (B, C, g, g) -> (B, 2C, g/2, g/2)
        x = self.act(self.conv2(x))  # -> (B, 4C, g/4, g/4)
        x = x.flatten(2).transpose(1, 2)  # -> (B, (g/4)^2, 4C)
        return self.linear(x)  # -> (B, (g/4)^2, width)


ADAPTERS: dict[str, type[Projector] | type[SamAdapter]] = {
    "projector": Projector,
    "llava": LlavaProjector,
    "sam": SamAdapter,
}
"""The kinds an encoder spec can name."""
