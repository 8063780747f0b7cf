"""Names of classes, boxes of a picture, and whether a thing is there."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.repaint.verify import iou
from vsre.sources.coco import CATEGORY_ID
from vsre.verify.names import labels_of
from vsre.verify.presence import Opinion, State, presence
from vsre.verify.sight import FLOOR, Detection, detections

HERE, NEAR, THERE = (0.1, 0.1, 0.4, 0.4), (0.12, 0.1, 0.42, 0.4), (0.6, 0.6, 0.9, 0.9)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("couch", ["sofa", "bed"], {"sofa"}),
        ("dining table", ["diningtable", "Dinning Table", "table"], {"diningtable", "Dinning Table"}),
        ("tv", ["Monitor/TV", "tvmonitor", "laptop"], {"Monitor/TV", "tvmonitor"}),
        ("airplane", ["aeroplane"], {"aeroplane"}),
        ("traffic light", ["traffic_light", "Traffic Sign"], {"traffic_light"}),
        ("handbag", ["Handbag/Satchel"], {"Handbag/Satchel"}),
        ("dog", ["hot dog", "cat"], set()),
        ("orange", ["Orange/Tangerine"], {"Orange/Tangerine"}),
    ],
)
def test_labels_that_mean_a_class(name: str, labels: list[str], expected: set[str]) -> None:
    assert labels_of(name, labels, {}) == expected


def test_every_class_of_coco_means_itself_and_no_other() -> None:
    for name in CATEGORY_ID:
        assert labels_of(name, CATEGORY_ID, {}) == {name}
    assert labels_of("bird", ["Pigeon"], {"bird": ("pigeon",)}) == {"Pigeon"}


boxes = st.tuples(*[st.floats(-50, 150, width=32) | st.just(math.nan)] * 4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(boxes, st.floats(0, 1)), max_size=12), st.floats(0.1, 1))
def test_kept_boxes_lie_in_the_picture_and_apart(found: list, duplicates: float) -> None:
    kept = detections([b for b, _ in found], [s for _, s in found], (100, 60), duplicates)
    assert [d.score for d in kept] == sorted((d.score for d in kept), reverse=True)
    for index, d in enumerate(kept):
        x0, y0, x1, y1 = d.box
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 and d.score >= FLOOR
        assert all(iou(d.box, other.box) <= duplicates for other in kept[:index])
    sure = [(b, s) for b, s in found if s >= FLOOR and 0 <= b[0] < b[2] <= 100 and 0 <= b[1] < b[3] <= 60]
    if sure:
        assert kept, "the surest of the boxes inside is never lost"


def test_the_surer_of_two_boxes_of_one_thing_stays() -> None:
    kept = detections([(10, 10, 40, 40), (12, 10, 42, 40), (60, 60, 90, 90)], [0.6, 0.8, 0.3], (100, 100), 0.7)
    assert kept == (Detection((0.12, 0.1, 0.42, 0.4), 0.8), Detection((0.6, 0.6, 0.9, 0.9), 0.3))


def opinion(by: str, *seen: tuple[tuple[float, float, float, float], float]) -> Opinion:
    return Opinion(by, 0.5, 0.3, tuple(Detection(*one) for one in seen))


def test_one_detector() -> None:
    two = presence("cat", [opinion("a", (HERE, 0.9), (THERE, 0.6), (NEAR, 0.4))], same=0.5)
    assert two.state is State.PRESENT and [d.box for d in two.instances] == [HERE, THERE]
    assert [(b["score"], b["counts"]) for b in two.row()["boxes"]] == [(0.9, True), (0.6, True), (0.4, False)]
    faint = presence("cat", [opinion("a", (HERE, 0.49))], same=0.5)
    assert faint.state is State.FAINT and not faint.instances
    gone = presence("cat", [opinion("a", (HERE, 0.1))], same=0.5)
    assert gone.state is State.ABSENT and gone.clear_by == pytest.approx(0.2)
    assert presence("cat", [opinion("a")], same=0.5).clear_by == pytest.approx(0.3)
    assert presence("cat", [], same=0.5).state is State.UNKNOWN
    assert presence("cat", [Opinion("a", 0.5, 0.3, None)], same=0.5).state is State.UNCLEAR


@pytest.mark.parametrize(
    ("first", "second", "state", "counted"),
    [
        ([(HERE, 0.9)], [(NEAR, 0.8)], State.PRESENT, [HERE]),
        ([(HERE, 0.9), (THERE, 0.9)], [(NEAR, 0.8)], State.PRESENT, [HERE]),
        ([(HERE, 0.9)], [(THERE, 0.8)], State.DISPUTED, []),
        ([(HERE, 0.9)], [], State.DISPUTED, []),
        ([], [(HERE, 0.9)], State.DISPUTED, []),
        ([(HERE, 0.9)], [(NEAR, 0.4)], State.DISPUTED, []),
        ([(HERE, 0.4)], [(NEAR, 0.4)], State.FAINT, []),
        ([], [(NEAR, 0.4)], State.FAINT, []),
        ([(HERE, 0.2)], [], State.ABSENT, []),
    ],
)
def test_two_detectors(first: list, second: list, state: State, counted: list) -> None:
    found = presence("cat", [opinion("a", *first), opinion("b", *second)], same=0.5)
    assert found.state is state and [d.box for d in found.instances] == counted
