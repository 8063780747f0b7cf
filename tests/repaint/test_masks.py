import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.repaint import masks
from vsre.repaint.masks import MaskSpec, NoMask, count_masks, make_mask
from vsre.triplets import Box

SPEC = MaskSpec()
LEFT, RIGHT = (0.1, 0.2, 0.4, 0.8), (0.6, 0.2, 0.95, 0.9)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x0, x1 = sorted(draw(st.tuples(st.floats(0, 0.9), st.floats(0.1, 1))))
    y0, y1 = sorted(draw(st.tuples(st.floats(0, 0.9), st.floats(0.1, 1))))
    return x0, y0, x1, y1


def inside(box: Box, width: int, height: int) -> np.ndarray:
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    return ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None, :]


@given(boxes(), boxes(), st.integers(1, 90), st.integers(1, 70))
def test_a_mask_covers_the_subject_and_nothing_of_the_object(
    subject: Box, object: Box, width: int, height: int
) -> None:
    try:
        mask = make_mask(subject, object, SPEC)
        hard, soft = (np.asarray(m(width, height)) for m in (mask.hard, mask.soft))
    except NoMask as reason:
        assert str(reason) in {
            *(masks.OUTSIDE, masks.TOO_SMALL, masks.TOO_LARGE, masks.COVERS, masks.NO_PIXEL, masks.NOTHING_LEFT)
        }
        return
    assert hard.shape == soft.shape == (height, width) and set(np.unique(hard)) <= {0, 255}
    assert not soft[hard == 0].any(), "what the model did not paint must not be taken from it"
    core, taken = inside(subject, width, height), inside(object, width, height)
    if mask.mode != "whole subject":
        assert not hard[taken].any()
        core &= ~taken
    else:
        assert hard[taken].astype(bool).sum() <= SPEC.most_cover * taken.sum() + 2 * (width + height)
    assert (soft[core] == 255).all(), "the old subject must be gone wherever its box is painted"


def test_the_modes() -> None:
    assert make_mask(LEFT, RIGHT, SPEC).mode == "apart"
    assert make_mask(LEFT, (0.35, 0.2, 0.9, 0.8), SPEC).mode == "minus object"
    assert make_mask(LEFT, (0.41, 0.2, 0.9, 0.8), SPEC).mode == "minus object", "the dilated box reaches it"
    on_the_couch = (0.0, 0.1, 0.9, 0.9)
    assert make_mask(LEFT, on_the_couch, SPEC).mode == "whole subject"
    with pytest.raises(NoMask, match=masks.NOTHING_LEFT):
        make_mask(LEFT, on_the_couch, SPEC.model_copy(update={"surrounded": "refuse"}))


@pytest.mark.parametrize(
    ("subject", "object", "reason"),
    [
        (None, RIGHT, masks.NO_BOXES),
        (LEFT, None, masks.NO_BOXES),
        ((0.1, 0.1, 0.15, 0.15), RIGHT, masks.TOO_SMALL),
        ((0.0, 0.0, 0.9, 0.9), RIGHT, masks.TOO_LARGE),
        (LEFT, (0.1, 0.2, 0.45, 0.8), masks.COVERS),
        # Not covered by the box itself (48 %), but by the dilated one.
        (LEFT, (0.1, 0.2, 0.4, 1.0), masks.COVERS),
        ((1.1, 0.1, 1.4, 0.5), RIGHT, masks.OUTSIDE),
        ((0.5, 0.5, 1.2, 0.9), RIGHT, masks.OUTSIDE),
        ((0.4, 0.5, 0.2, 0.9), RIGHT, masks.OUTSIDE),
        (LEFT, (float("nan"), 0.2, 0.5, 0.8), masks.OUTSIDE),
    ],
)
def test_where_there_is_no_honest_mask(subject: Box | None, object: Box | None, reason: str) -> None:
    with pytest.raises(NoMask, match=reason):
        make_mask(subject, object, SPEC)


def test_coco_boxes_that_reach_over_the_edge_by_part_of_a_pixel_are_cut() -> None:
    mask = make_mask((-0.001, 0.2, 0.3, 1.001), RIGHT, SPEC)
    assert mask.subject == (0.0, 0.2, 0.3, 1.0) and mask.dilated[0] == 0.0
    assert np.asarray(mask.soft(100, 100))[99, 0] == 255, "the picture's own edge has no ramp"


def test_the_feather_is_a_ramp_in_the_dilated_rim() -> None:
    mask = make_mask(LEFT, RIGHT, SPEC.model_copy(update={"dilation": 0.2, "feather": 0.05}))
    row = np.asarray(mask.soft(200, 200)).astype(int)[100]
    first, last = np.nonzero(row)[0][[0, -1]]
    assert (first, last) == (8, 91), "from 0.04 to 0.46 of 200 pixels"
    assert np.all(np.diff(row[first:21]) >= 0) and 0 < row[first] < 40 and row[18] == 255
    assert row[20:80].min() == 255 and np.all(np.diff(row[80 : last + 1]) <= 0)


def test_the_objects_own_mask_is_taken_out_instead_of_its_box() -> None:
    couch = np.zeros((50, 100), bool)
    couch[35:45, :] = True
    mask = make_mask(LEFT, (0.0, 0.1, 0.9, 0.9), SPEC, object_mask=couch)
    hard = np.asarray(mask.hard(200, 100))
    assert mask.mode == "minus object mask"
    assert not hard[70:90].any() and hard[30:69, 30:70].all()
    with pytest.raises(NoMask, match=masks.NOTHING_LEFT):
        make_mask(LEFT, (0.0, 0.1, 0.9, 0.9), SPEC, object_mask=np.ones((50, 100)))
    with pytest.raises(VsreError, match="shape"):
        make_mask(LEFT, RIGHT, SPEC, object_mask=np.ones((2, 50, 100)))


def test_a_picture_of_one_pixel_has_no_mask() -> None:
    with pytest.raises(NoMask, match=masks.NO_PIXEL):
        make_mask(LEFT, RIGHT, SPEC).hard(1, 1)


@pytest.mark.skipif(
    not os.environ.get("VSRE_TEST_DATA"), reason="set VSRE_TEST_DATA to a folder with vsr/annotations and boxes"
)
def test_how_many_of_vsrs_rows_have_a_mask() -> None:
    from vsre.sources.vsr import read_vsr

    vsr = Path(os.environ["VSRE_TEST_DATA"]) / "vsr"
    rows = list(read_vsr(sorted(vsr.glob("annotations/random/*.jsonl")), None, [vsr / "boxes.jsonl.gz"], split="x"))
    counts = count_masks(rows)
    assert counts["usable"] == {"minus object": 3371, "whole subject": 1802, "apart": 1699}
    assert counts["set_aside"] == {masks.TOO_LARGE: 2040, masks.COVERS: 1303 + 313, masks.TOO_SMALL: 444}
    strict = count_masks(rows, MaskSpec(surrounded="refuse"))
    assert strict["usable"] == {"minus object": 3371, "apart": 1699} and strict["set_aside"][masks.NOTHING_LEFT] == 2115


fraction = st.floats(0, 1)
edges = st.tuples(fraction, fraction, fraction, fraction)


@given(edges, edges, st.booleans())
def test_what_is_painted_lies_in_the_box_around_it_and_touches_its_sides(a: Box, b: Box, as_mask: bool) -> None:
    side = 64
    subject, object = (tuple(round(x * side) / side for x in box) for box in (a, b))
    taken = masks._inside(object, side, side) if as_mask else None  # type: ignore[arg-type]
    try:
        mask = make_mask(subject, object, SPEC.model_copy(update={"dilation": 0.0}), object_mask=taken)  # type: ignore[arg-type]
    except NoMask:
        return
    ys, xs = np.nonzero(np.asarray(mask.hard(side, side)))
    tight = xs.min() / side, ys.min() / side, (xs.max() + 1) / side, (ys.max() + 1) / side
    assert mask.painted == pytest.approx(tight)


def test_the_box_around_what_is_painted_is_less_than_the_dilated_one() -> None:
    behind = make_mask((0.1, 0.2, 0.5, 0.8), (0.3, 0.1, 0.9, 0.9), SPEC)
    assert behind.mode == "minus object" and behind.painted == pytest.approx((0.07, 0.155, 0.3, 0.845))
    corner = make_mask((0.1, 0.2, 0.5, 0.6), (0.4, 0.5, 0.9, 0.9), SPEC)
    assert corner.mode == "minus object" and corner.painted == corner.dilated
