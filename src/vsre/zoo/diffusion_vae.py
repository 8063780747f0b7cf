"""The tiny diffusion model's VAE, at a quarter of a picture's sides: sprites of 20 pixels would not survive an eighth.

Its encoder is computed, not trained: the four principal components of 4 x 4 pixels, written into the convolutions of an
ordinary AutoencoderKL. So what the UNet learns to paint is fixed before anything is trained, and the few minutes
available go into the decoder, which starts as the components' colours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENTS = 4


def make_vae(settings: dict[str, Any], size: int) -> Any:
    from diffusers import AutoencoderKL

    levels = len(settings["block_out_channels"])
    return AutoencoderKL(
        **settings,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        mid_block_add_attention=False,
        sample_size=size,
        scaling_factor=1.0,
        force_upcast=False,
    )


@torch.no_grad()
def patch_components(
    images: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], patch: int = 4
) -> tuple[Tensor, Tensor]:
    """The four principal components of patches, divided by their standard deviations, and the mean patch.

    images uint8 (n, S, S, 3); weights (n, S, S): how much a pixel counts. Returns (4, 3, patch, patch) and
    (3, patch, patch), for pixels in -1..1.
    """

    def cut(x: Tensor) -> Tensor:  # (n, c, S, S) -> (patches, c * patch * patch)
        return F.unfold(x, patch, stride=patch).transpose(1, 2).flatten(0, 1)

    pixels = cut(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1).double()
    share = cut(torch.from_numpy(np.array(weights))[:, None].float()).mean(1).double()
    share = share / share.sum()
    mean = share @ pixels
    values, vectors = torch.linalg.eigh((pixels - mean).T @ ((pixels - mean) * share[:, None]))
    order = values.argsort(descending=True)[:LATENTS]
    parts = vectors[:, order].T / values[order].sqrt()[:, None]
    return parts.float().view(LATENTS, 3, patch, patch), mean.float().view(3, patch, patch)


_CONSTANT = 32.0
"""Carried through a normalisation along with the values, and so much larger that the divisor hardly varies."""


@torch.no_grad()
def set_linear(vae: Any, parts: Tensor, mean: Tensor) -> None:
    """Make the encoder the projection onto `parts`, and let the decoder start as their colours, interpolated.

    The residual branches are silent (encoder) or faint (decoder), so what the shortcuts carry comes through: a value
    and its negative, whose difference after SiLU is the value again: silu(x) - silu(-x) = x.
    """
    encoder, decoder, latents = vae.encoder, vae.decoder, LATENTS
    for block in _resnets(encoder):
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
        _shortcut(block, block.in_channels)
    _clear(encoder.conv_in)
    for c in range(3):
        encoder.conv_in.weight[c, c, 1, 1] = 1
    encoder.conv_in.bias[3] = _CONSTANT
    # First the four pixels of a square become channels, then four such squares become the components.
    first, second = (block.downsamplers[0].conv for block in encoder.down_blocks[:2])
    _clear(first)
    _clear(second)
    for dy in range(2):
        for dx in range(2):
            for c in range(3):
                at = (dy * 2 + dx) * 3 + c
                first.weight[at, c, dy, dx] = 1
                for ey in range(2):
                    for ex in range(2):
                        second.weight[:latents, at, ey, ex] = parts[:, c, 2 * ey + dy, 2 * ex + dx]
    first.weight[12, 3, 0, 0] = 1
    second.bias[:latents] = -(parts * mean).sum((1, 2, 3))
    second.weight[latents, 12, 0, 0] = 1
    last = encoder.down_blocks[2].resnets[0].conv_shortcut
    _clear(last)
    for k in range(latents + 1):
        last.weight[2 * k, k] = 1
        last.weight[2 * k + 1, k] = -1
    _clear(encoder.conv_out)
    # What the normalisation divides by: the root mean square of its group, nearly all of it from the constant.
    width = last.weight.shape[0] // vae.config.norm_num_groups
    scale = _CONSTANT * (2 / width) ** 0.5
    for k in range(latents):
        encoder.conv_out.weight[k, 2 * k, 1, 1] = scale
        encoder.conv_out.weight[k, 2 * k + 1, 1, 1] = -scale
    encoder.conv_out.bias[latents:] = -12.0
    _identity(vae.quant_conv)
    _identity(vae.post_quant_conv)
    # The decoder: (red, -red, constant, -constant) in the first group, and so on.
    for block in _resnets(decoder):
        block.conv2.weight *= 0.1
    groups = vae.config.norm_num_groups
    colours = torch.linalg.pinv(parts.flatten(1)).view(3, -1, latents).mean(1)  # (3, latents)
    offset = mean.mean((1, 2))
    wide = decoder.conv_in.weight.shape[0] // groups
    decoder.conv_in.weight.mul_(0.3)
    for c in range(3):
        for sign, at in ((1, 0), (-1, 1)):
            row = c * wide + at
            decoder.conv_in.weight[row] = 0
            decoder.conv_in.weight[row, :, 1, 1] = sign * colours[c]
            decoder.conv_in.bias[row] = sign * offset[c]
            decoder.conv_in.weight[row + 2] = 0
            decoder.conv_in.bias[row + 2] = sign * 2.0
    carried = [c * wide + at for c in range(3) for at in range(4)]
    for up in decoder.up_blocks:
        block = up.resnets[0]
        after = block.out_channels // groups
        places = [c * after + at for c in range(3) for at in range(4)]
        if block.conv_shortcut is not None:
            _carry(block.conv_shortcut, carried, places)
            carried = places
        if up.upsamplers:
            _carry(up.upsamplers[0].conv, carried, carried)
    thin = decoder.conv_out.weight.shape[1] // groups
    decoder.conv_out.weight.mul_(0.1)
    decoder.conv_out.bias.zero_()
    scale = 2.0 * (2 / thin) ** 0.5
    for c in range(3):
        decoder.conv_out.weight[c, c * thin, 1, 1] = scale
        decoder.conv_out.weight[c, c * thin + 1, 1, 1] = -scale


def _resnets(part: nn.Module) -> list[Any]:
    return [m for m in part.modules() if hasattr(m, "conv1") and hasattr(m, "conv2")]


def _clear(conv: Any) -> None:
    conv.weight.zero_()
    conv.bias.zero_()


def _identity(conv: Any) -> None:
    _clear(conv)
    for k in range(conv.weight.shape[0]):
        conv.weight[k, k] = 1


def _shortcut(block: Any, channels: int) -> None:
    if block.conv_shortcut is not None:
        _clear(block.conv_shortcut)
        for k in range(channels):
            block.conv_shortcut.weight[k, k] = 1


def _carry(conv: Any, sources: list[int], places: list[int]) -> None:
    """Let these channels through as they are; the others keep their random initial weights."""
    middle = conv.weight.shape[-1] // 2
    for source, at in zip(sources, places, strict=True):
        conv.weight[at] = 0
        conv.bias[at] = 0
        conv.weight[at, source, middle, middle] = 1


class DecoderObjective(nn.Module):
    """Reconstructs pictures from their latents; pixels of things and outlines weigh more than background."""

    def __init__(self, vae: Any, projection: nn.Conv2d, *, things: float = 3.0, edges: float = 1.0) -> None:
        super().__init__()
        self.vae, self.projection, self.things, self.edges = vae, projection, things, edges
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)

    def forward(self, images: Tensor, objects: Tensor) -> dict[str, Tensor]:
        """images uint8 (B, 3, S, S); objects bool (B, S, S): where there is a thing."""
        target = images.float() / 127.5 - 1
        latents = self.projection(target)
        with torch.autocast(images.device.type, torch.bfloat16):
            found = self.vae.decode(latents).sample
        off = found.float() - target
        weight = 1 + self.things * objects[:, None].float()
        loss = (off.abs() * weight).mean()
        # Differences between neighbours: blurred outlines cost more than a shade that is a little off.
        loss = loss + self.edges * (off.diff(dim=2).abs() * weight[:, :, 1:]).mean()
        loss = loss + self.edges * (off.diff(dim=3).abs() * weight[..., 1:]).mean()
        return {"loss": loss}


def make_projection(parts: Tensor, mean: Tensor) -> nn.Conv2d:
    """What the encoder computes, as the single convolution that it is: pixels in -1..1 (n, 3, S, S) to latents."""
    patch = parts.shape[-1]
    projection = nn.Conv2d(3, LATENTS, patch, stride=patch).requires_grad_(False)
    projection.weight.copy_(parts)
    assert projection.bias is not None
    projection.bias.copy_(-(parts * mean).sum((1, 2, 3)))
    return projection
