"""The square frame: nothing is cropped, and a place is the same place for every encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_pictures import centre, frames, marked
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from vsre.model import ENCODERS, EncoderSpec, VsreImageProcessor, box_in_frame, encoder_pixels, to_frame
from vsre.model.frame import BACKGROUND, placement

SIZES = [(96, 96), (640, 480), (120, 333)]


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([96, 336, 1024]))
def test_the_whole_picture_lies_in_the_frame(width: int, height: int, size: int) -> None:
    left, top, inner_width, inner_height = placement(width, height, size)
    assert left >= 0 and top >= 0 and left + inner_width <= size and top + inner_height <= size
    assert max(inner_width, inner_height) == size
    assert abs(left - (size - inner_width - left)) <= 1  # centred


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(ENCODERS))
def test_marker_stands_at_the_same_place_for_every_encoder(name: str, size: tuple[int, int]) -> None:
    spec = ENCODERS[name]
    for x, y in [(0.25, 0.3), (0.8, 0.6)]:
        plain = encoder_pixels(frames(marked(*size, None), 1024), spec)
        seen = (encoder_pixels(frames(marked(*size, (x, y)), 1024), spec) - plain).abs().sum(1)[0]
        assert seen.shape == (spec.image_size, spec.image_size)
        assert seen[spec.usable :].sum() == 0 and seen[:, spec.usable :].sum() == 0
        found = centre(seen[: spec.usable, : spec.usable])
        x0, y0, _, _ = box_in_frame((x, y, x, y), *size)
        assert found == pytest.approx((x0, y0), abs=0.004)


@pytest.mark.parametrize("size", [(96, 96), (96, 64)])
def test_marker_stands_at_the_same_place_in_every_grid(size: tuple[int, int], tiny_vsre_folder: Path) -> None:
    """The visual token that changes most lies over the marker.

    With attention off a token depends on its own patch alone (SAM: on its neighbourhood through the neck), so
    random encoders show where each token looks.
    """
    model = AutoModelForImageTextToText.from_pretrained(tiny_vsre_folder)
    for name, parameter in model.encoders.named_parameters():
        if any(part in name for part in ("out_proj", "attention.output.dense", "attn.proj")):
            parameter.data.zero_()
    for cell in [(1, 2), (4, 3)]:
        x, y = (cell[0] + 0.5) / 6, (cell[1] + 0.5) / 6
        width, height = size
        # the cell's middle in the frame, as a fraction of the picture
        px = x
        py = (y * width - (width - height) / 2) / height
        a, b = (model.encode(frames(marked(*size, at), 96)) for at in ((px, py), None))
        start = 0
        change = (model.project(a) - model.project(b)).norm(dim=-1)[0]  # (N,)
        for spec in model.specs:
            grid = change[start : start + spec.tokens].view(6, 6)
            start += spec.tokens
            row, column = divmod(int(grid.argmax()), 6)
            assert (column, row) == cell, spec.name
        neck = (a["sam"] - b["sam"]).norm(dim=1)[0]  # (24, 24)
        assert centre(neck) == pytest.approx((x, y), abs=0.02)


def test_a_frame_of_the_encoders_size_is_not_resized() -> None:
    spec = dataclasses.replace(ENCODERS["clip"], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    frame = torch.randint(0, 256, (2, 3, 336, 336), dtype=torch.uint8)
    assert torch.equal(encoder_pixels(frame, spec), frame / 255)
    assert torch.equal(encoder_pixels(frame / 255, spec), frame / 255)


def test_padding_is_near_zero_once_normalised() -> None:
    grey = Image.new("RGB", (64, 64), BACKGROUND)
    for spec in ENCODERS.values():
        assert encoder_pixels(frames(grey, 1024), spec).abs().max() < 0.35


def test_image_processor_takes_what_others_take(tmp_path: Path) -> None:
    processor = VsreImageProcessor(size={"height": 48, "width": 48})
    image = marked(48, 32, (0.5, 0.5))
    pixels = processor(image, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 48, 48) and pixels.dtype == torch.uint8
    assert pixels[0, :, 0, 0].tolist() == list(BACKGROUND)
    array = np.asarray(image)
    for same in (array, array.transpose(2, 0, 1), torch.from_numpy(array.transpose(2, 0, 1).copy())):
        assert torch.equal(processor(same, return_tensors="pt").pixel_values, pixels)
    many = processor([[image, image], [image]], return_tensors="pt").pixel_values
    assert many.shape == (3, 3, 48, 48)
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(again, VsreImageProcessor)
    assert torch.equal(again(image, return_tensors="pt").pixel_values, pixels)


def test_pictures_of_every_mode_and_turn(tmp_path: Path) -> None:
    for mode in ("L", "P", "CMYK", "1", "I;16", "RGBA", "LA"):
        assert to_frame(Image.new(mode, (20, 10)), 32).mode == "RGB"
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    assert to_frame(clear, 20).getpixel((10, 10)) == BACKGROUND
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise
    marked(40, 20, (0.1, 0.5)).save(tmp_path / "turned.jpg", exif=exif)
    frame = np.asarray(to_frame(Image.open(tmp_path / "turned.jpg"), 40)).mean(2)
    assert frame[4, 20] > 200 and frame[20, 4] < 130


def test_box_in_frame() -> None:
    assert box_in_frame((0.0, 0.0, 1.0, 1.0), 200, 100) == (0.0, 0.25, 1.0, 0.75)
    assert box_in_frame((0.5, 0.5, 1.0, 1.0), 100, 200) == (0.5, 0.5, 0.75, 1.0)


def test_specs_are_hashable() -> None:
    assert len({spec: name for name, spec in ENCODERS.items()}) == 4
    assert isinstance(ENCODERS["sam"], EncoderSpec)
