"""Opening pictures: the one way to turn a file or its bytes into an upright 8-bit RGB image."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from vsre.errors import VsreError

MAX_PIXELS = 50_000_000
"""Pictures with more pixels are refused by their header, before anything is decoded."""

MAX_BYTES = 256 * 1024 * 1024
"""Files larger than this are refused unread."""

SIDES = (32, 2048)
"""Minimum and maximum number of pixels along the longer side of a drawn picture."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are opened; JPEG's reader opens MPO too. Pillow knows more, but some start programs (EPS
Ghostscript)."""


class PictureTooLarge(VsreError):
    """More pixels or bytes than the limits here allow."""


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes such a picture upright; 1 is upright already."""


def open_header(source: bytes | Path | str, *, name: str | None = None) -> Image.Image:
    """The picture with its header read and nothing decoded: `size`, `mode` and `format` are known.

    `name` is what messages call the picture; it defaults to the path. Raises VsreError for a file that is missing,
    empty or not a picture of FORMATS, and PictureTooLarge beyond MAX_PIXELS or MAX_BYTES.
    """
    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    if isinstance(source, bytes):
        size = len(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise VsreError(f"{name}: no such picture file.")
        size = path.stat().st_size
    if not size:
        raise VsreError(f"{name}: the file is empty (0 bytes). Copy or download it again.")
    if size > MAX_BYTES:
        raise PictureTooLarge(f"{name}: {size / 1e6:,.0f} MB, the limit is {MAX_BYTES / 1e6:,.0f} MB. Save it smaller.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many") from error
    # On damaged headers the format plugins raise nearly anything: OSError, SyntaxError, struct.error.
    except Exception as error:
        raise VsreError(f"{name}: not a picture that can be opened ({error}).") from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, f"{image.width} x {image.height} =")
    return image


def check_side(size: int) -> None:
    """Raise VsreError for a size at which no picture is drawn."""
    if not SIDES[0] <= size <= SIDES[1]:
        raise VsreError(f"size {size}: pictures are drawn with {SIDES[0]} to {SIDES[1]} pixels along a side.")


def load_image(source: bytes | Path | str, *, name: str | None = None) -> Image.Image:
    """The picture as a person sees it: mode RGB, 8 bits, turned by its EXIF orientation, its first frame.

    Transparent parts become white. Raises VsreError, with the file's name, for whatever cannot be opened or is
    truncated.
    """
    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    with open_header(source, name=name) as image:
        if image.mode == "F":
            raise VsreError(
                f"{name}: its values are floating-point numbers without a fixed white. Save it with 8 bits."
            )
        try:
            image.load()
            turn = _TURNS.get(orientation(image))
            return _rgb(image if turn is None else image.transpose(turn))
        except Exception as error:
            raise VsreError(f"{name}: the picture is damaged ({error}). Copy or download it again.") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 if the tag is absent or makes no sense."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    # A damaged EXIF block must not rule out a picture that decodes: viewers show such files as they are.
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turns_sideways(value: int) -> bool:
    """Whether this EXIF orientation swaps width and height."""
    return value >= 5


def upright_bytes(image: Image.Image, file_format: str | None) -> bytes:
    """An upright RGB picture re-encoded without EXIF: JPEG stays JPEG, anything else becomes PNG."""
    out = io.BytesIO()
    if file_format in ("JPEG", "MPO"):
        image.save(out, "JPEG", quality=95, subsampling=0)
    else:
        image.save(out, "PNG")
    return out.getvalue()


def upright_box(box: tuple[float, float, float, float], value: int) -> tuple[float, float, float, float]:
    """A box of the stored picture in the frame of the upright one; both are x0, y0, x1, y1 fractions."""
    x0, y0, x1, y1 = box
    if turns_sideways(value):
        x0, y0, x1, y1 = y0, x0, y1, x1
    if value in (2, 3, 6, 7):
        x0, x1 = 1 - x1, 1 - x0
    if value in (3, 4, 7, 8):
        y0, y1 = 1 - y1, 1 - y0
    return x0, y0, x1, y1


def _too_large(name: str, size: str) -> PictureTooLarge:
    return PictureTooLarge(f"{name}: {size} pixels, the limit is {MAX_PIXELS / 1e6:.0f} million. Save it smaller.")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255, which turns most of the picture white.
        grey = np.asarray(image)
        if image.mode != "I" or grey.max(initial=0) > 255:
            grey = grey >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")
