from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from vsr_files import picture, turned_picture

from vsre.errors import VsreError
from vsre.sources.images import (
    PictureTooLarge,
    load_image,
    open_header,
    orientation,
    upright_box,
    upright_bytes,
)


def near(pixel: tuple[int, ...], colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("turned", range(1, 9))
def test_exif_turns_the_picture_upright(turned: int) -> None:
    image = load_image(turned_picture(turned))
    assert image.size == (60, 40)
    assert near(image.getpixel((5, 5)), (255, 0, 0))
    assert all(near(image.getpixel(at), (255, 255, 255)) for at in [(55, 5), (5, 35), (55, 35)])


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_box_turns_with_the_picture(turned: int) -> None:
    """The red quarter is found in the stored pixels and must come out at the upright picture's top left."""
    with Image.open(io.BytesIO(turned_picture(turned))) as stored:
        red = np.asarray(stored.convert("RGB"))[..., 1] < 128
    ys, xs = np.nonzero(red)
    height, width = red.shape
    box = (xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height)
    assert upright_box(box, turned) == pytest.approx((0, 0, 0.5, 0.5), abs=0.04)


@pytest.mark.parametrize(("fmt", "stays"), [("JPEG", "JPEG"), ("WEBP", "PNG")])
def test_upright_bytes_carry_no_orientation(fmt: str, stays: str) -> None:
    again = upright_bytes(load_image(turned_picture(6)), fmt)
    with open_header(again) as image:
        assert (image.format, image.size, orientation(image)) == (stays, (60, 40), 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (picture(mode="CMYK", colour=(0, 255, 255, 0)), (255, 0, 0)),
        (picture(mode="L", colour=100, fmt="PNG"), (100, 100, 100)),
        (picture(mode="1", colour=1, fmt="PNG"), (255, 255, 255)),
        (picture(mode="LA", colour=(10, 0), fmt="PNG"), (255, 255, 255)),
        (picture(mode="RGBA", colour=(0, 0, 200, 255), fmt="PNG"), (0, 0, 200)),
        (picture(mode="RGBA", colour=(0, 0, 200, 0), fmt="PNG"), (255, 255, 255)),
        (picture(mode="I;16", colour=0x8000, fmt="PNG"), (128, 128, 128)),
        (picture(mode="P", colour=0, fmt="PNG", transparency=0), (255, 255, 255)),
        (picture(mode="P", colour=0, fmt="GIF"), (0, 0, 0)),
    ],
    ids=["cmyk", "grey", "bilevel", "clear-grey", "opaque", "clear", "16-bit", "clear-palette", "palette"],
)
def test_every_mode_becomes_rgb(data: bytes, expected: tuple[int, int, int]) -> None:
    image = load_image(data)
    assert image.mode == "RGB"
    assert near(image.getpixel((1, 1)), expected, 2)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    out = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert near(load_image(out.getvalue()).getpixel((0, 0)), (255, 0, 0))


def test_a_hundred_megapixels_are_refused_by_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000)).save(path)
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(PictureTooLarge, match=r"large\.png.*10000 x 10000.*50 million"):
        load_image(path)


def test_a_file_of_too_many_bytes_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.jpg").write_bytes(picture())
    monkeypatch.setattr("vsre.sources.images.MAX_BYTES", 100)
    with pytest.raises(PictureTooLarge, match=r"large\.jpg: .* MB"):
        load_image(tmp_path / "large.jpg")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"\xff\xd8\xff",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        picture()[:200],
        turned_picture(6)[:-300],
    ],
)
def test_what_is_no_whole_picture_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    with pytest.raises(VsreError, match=r"cat\.jpg"):
        load_image(path)
    with pytest.raises(VsreError, match="from the web"):
        load_image(data, name="from the web")


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"none\.jpg: no such"):
        load_image(tmp_path / "none.jpg")


def test_floating_point_pictures_are_refused() -> None:
    with pytest.raises(VsreError, match="floating-point"):
        load_image(picture(mode="F", colour=0.5, fmt="TIFF"))


def test_the_picture_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(picture())
    image = load_image(path)
    path.unlink()
    assert near(image.getpixel((0, 0)), (255, 0, 0))
