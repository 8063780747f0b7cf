import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vsre.repaint import canvas
from vsre.repaint.canvas import NoCanvas, as_picture, canvas_size, is_blank, on_canvas


@pytest.mark.parametrize(
    ("photo", "side", "expected"),
    [
        ((640, 480), 1024, (1152, 864)),
        ((480, 640), 1024, (864, 1152)),
        ((640, 427), 1024, (1248, 832)),
        ((612, 612), 1024, (1024, 1024)),
        ((640, 480), 512, (576, 432)),
        ((80, 60), 64, (72, 56)),
    ],
)
def test_canvases(photo: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert canvas_size(*photo, side * side) == expected


@given(st.integers(16, 4000), st.integers(16, 4000), st.sampled_from([256, 512, 1024]))
def test_a_canvas_keeps_the_shape(width: int, height: int, side: int) -> None:
    try:
        across, down = canvas_size(width, height, side * side)
    except NoCanvas:
        assert max(width, height) > canvas.MOST_ASPECT * min(width, height)
        return
    assert across % 8 == down % 8 == 0 and 0.79 * side**2 < across * down <= side**2
    assert canvas_size(height, width, side * side) == (down, across)
    assert abs(np.log(across / down * height / width)) < 8 / min(across, down), "off by less than one step of 8 pixels"


@pytest.mark.parametrize(
    ("size", "reason"),
    [((1, 1), canvas.TOO_FEW_PIXELS), ((400, 15), canvas.TOO_FEW_PIXELS), ((500, 100), canvas.TOO_LONG)],
)
def test_photos_that_fit_no_canvas(size: tuple[int, int], reason: str) -> None:
    with pytest.raises(NoCanvas, match=reason):
        canvas_size(*size, 1024 * 1024)


def test_boxes_hold_on_the_canvas() -> None:
    photo = Image.new("RGB", (80, 60))
    photo.paste("white", (20, 15, 60, 45))
    resized = on_canvas(photo, (72, 56))
    x0, y0, x1, y1 = resized.convert("L").point(lambda v: 255 * (v > 127)).getbbox() or (0, 0, 0, 0)
    assert (x0 / 72, y0 / 56, x1 / 72, y1 / 56) == pytest.approx((0.25, 0.25, 0.75, 0.75), abs=0.5 / 56)


def test_no_numbers_and_no_picture_are_told_apart() -> None:
    grey = np.full((8, 8, 3), 0.5, np.float32)
    picture = as_picture(grey)
    assert picture is not None and is_blank(picture)
    grey[0, 0, 0] = 0.6
    picture = as_picture(grey)
    assert picture is not None and not is_blank(picture)
    for bad in (np.nan, np.inf):
        grey[3, 3, 1] = bad
        assert as_picture(grey) is None
