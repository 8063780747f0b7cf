"""The square frame: every encoder sees the whole picture at the same place.

A picture is scaled to fit a square of S pixels, S the largest encoder's input, and padded around its centre;
nothing is cropped. The model then scales that one frame for each encoder on its own device and places it
inside the pixels that the encoder's patches cover, so that a fraction of the frame is the same place in every
grid of features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import to_pil_image
from transformers.image_utils import PILImageResampling, SizeDict

from vsre.model.specs import EncoderSpec
from vsre.triplets import Box

ORIENTATION = 0x0112  # the EXIF tag
BACKGROUND = (124, 116, 104)
"""The padding's colour: ImageNet's mean grey, near zero once an encoder's mean is subtracted."""


def placement(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where a picture of width x height lies in the frame of `size` pixels: left, top, width, height."""
    scale = size / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - inner_width) // 2, (size - inner_height) // 2, inner_width, inner_height


def box_in_frame(box: Box, width: int, height: int) -> Box:
    """A box in fractions of the picture (width x height, any unit) as fractions of the square frame."""
    side = max(width, height)
    dx, dy = (side - width) / 2, (side - height) / 2
    x0, y0, x1, y1 = box
    return (
        (x0 * width + dx) / side,
        (y0 * height + dy) / side,
        (x1 * width + dx) / side,
        (y1 * height + dy) / side,
    )


def to_frame(
    image: Image.Image, size: int, *, resample: int = PILImageResampling.BICUBIC, background: Any = BACKGROUND
) -> Image.Image:
    """The picture in its frame: RGB, size x size, antialiased, padded, rotated as its EXIF data say."""
    turned = image.getexif().get(ORIENTATION, 1) != 1
    upright = ImageOps.exif_transpose(image) if turned else image
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        # Transparent areas are not part of the picture, so they look like the padding.
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba)
    left, top, width, height = placement(*upright.size, size)
    rgb = upright.convert("RGB")
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), resample=resample)
    if (width, height) == (size, size):
        return rgb
    frame = Image.new("RGB", (size, size), background)
    frame.paste(rgb, (left, top))
    return frame


class VsreImageProcessor(PilBackend):
    """Turns pictures into frames: `pixel_values` (number of pictures, 3, S, S), uint8.

    `size` is {"height": S, "width": S}. Scaling to each encoder and normalising are left to the model, so that
    four encoders cost one picture's transfer. Takes PIL images, uint8 arrays or tensors, paths and URLs, as
    all transformers image processors do.
    """

    model_input_names = ["pixel_values"]
    size = {"height": 1024, "width": 1024}
    resample = PILImageResampling.BICUBIC
    do_resize = True
    do_pad = True
    do_convert_rgb = True
    do_rescale = False
    do_normalize = False

    def process_image(self, image: Any, *, size: SizeDict, resample: Any = None, **kwargs: Any) -> np.ndarray:
        """One picture as an array (3, S, S), uint8."""
        if not isinstance(image, Image.Image):
            image = to_pil_image(image, input_data_format=kwargs.get("input_data_format"))
        frame = to_frame(image, size.height, resample=self.resample if resample is None else resample)
        return np.asarray(frame).transpose(2, 0, 1)  # (S, S, 3) -> (3, S, S)

    def _preprocess(self, images: list[np.ndarray], return_tensors: Any = None, **kwargs: Any) -> BatchFeature:
        return BatchFeature({"pixel_values": np.stack(images)}, tensor_type=return_tensors)


def encoder_pixels(frame: torch.Tensor, spec: EncoderSpec) -> torch.Tensor:
    """One encoder's input for frames (B, 3, S, S), uint8 or float in [0, 1].

    Returns (B, 3, s, s), float32, normalised, s the encoder's input.

    The frame is scaled (antialiased bicubic) to the pixels that patches cover; the strip that SigLIP's
    patches leave over is at the right and bottom and holds zeros. A frame that has this size already is
    taken as it is.
    """
    pixels = frame.float() / 255 if frame.dtype == torch.uint8 else frame.float()
    if pixels.shape[-1] != spec.usable:
        size = (spec.usable, spec.usable)
        pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean = pixels.new_tensor(spec.mean).view(1, 3, 1, 1)
    std = pixels.new_tensor(spec.std).view(1, 3, 1, 1)
    strip = spec.image_size - spec.usable
    return F.pad((pixels - mean) / std, (0, strip, 0, strip))  # (B, 3, usable, usable) -> (B, 3, s, s)
