"""Judging relations in photographs: the laws of the ontology on any boxes, plain cases, candidates, masks and depth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.relations.ontology import RELATIONS
from vsre.relations.photo_measures import MEASURES, DepthMap, PhotoPair
from vsre.relations.photo_rules import RuleBook, judge, shipped_rules
from vsre.relations.rule_forms import SIDES, load_forms, load_thresholds
from vsre.relations.things import Judgement, Thing, Verdict, together

PASS, FAIL, UNDECIDED = Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED
Box = tuple[float, float, float, float]


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes of any size, often at an edge of the image or in its middle, where real ones are."""
    w, h = draw(st.floats(0.03, 1.0)), draw(st.floats(0.03, 1.0))
    x = draw(st.one_of(st.floats(0, 1 - w), st.sampled_from([0.0, 1 - w, (1 - w) / 2])))
    y = draw(st.one_of(st.floats(0, 1 - h), st.sampled_from([0.0, 1 - h, (1 - h) / 2])))
    return x, y, x + w, y + h


def mirrored(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return 1 - x1, y0, 1 - x0, y1


def test_every_relation_is_served_once_or_said_to_be_undecidable() -> None:
    forms = load_forms()
    served = {relation for rule in forms.rules.values() for relation in rule.relations}
    undecided = {relation for relations in forms.undecided.values() for relation in relations}
    assert served | undecided == RELATIONS.keys() and not served & undecided
    for relation in undecided:
        judgement = judge(relation, (0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9))
        assert judgement.verdict is UNDECIDED and judgement.reason in forms.undecided


@settings(max_examples=300, deadline=None)
@given(boxes(), boxes())
@example(
    (0.03515625, 0.0, 0.970703125, 1.0), (0.97, 0.0, 1.0, 1.0)
)  # a sliver shared, of one box more than of the other
def test_laws(a: Box, b: Box) -> None:
    here = {name: judge(name, a, b) for name in RELATIONS}
    there = {name: judge(name, b, a).verdict for name in RELATIONS}
    for name, judgement in here.items():
        r, verdict = RELATIONS[name], judgement.verdict
        assert (judgement.margin > 0) == (verdict is not UNDECIDED) == bool(judgement.rule) != bool(judgement.reason)
        if r.inverse_soundness in ("strict", "frame") and r.inverse is not None:
            assert {verdict, there[r.inverse]} != {PASS, FAIL}, (name, r.inverse)
        if r.symmetric:
            assert verdict == there[name], name
        if r.antonym_soundness in ("contrary", "complementary") and r.antonym is not None:
            assert not (verdict is PASS and here[r.antonym].verdict is PASS), (name, r.antonym)


@settings(max_examples=200, deadline=None)
@given(boxes(), boxes())
def test_a_mirror_swaps_left_and_right_only(a: Box, b: Box) -> None:
    for name, relation in RELATIONS.items():
        before, after = judge(name, a, b), judge(relation.mirror, mirrored(a), mirrored(b))
        # Rounding may tip a value that lies on a threshold, never a clear one.
        if max(before.margin, after.margin) > 1e-6 and "contrary" not in before.reason + after.reason:
            assert before.verdict == after.verdict, name


BIRD, CAR, TABLE = (0.45, 0.05, 0.55, 0.15), (0.2, 0.5, 0.8, 0.9), (0.0, 0.45, 1.0, 1.0)
CUP, VASE, WALL = (0.4, 0.55, 0.6, 0.8), (0.1, 0.2, 0.25, 0.5), (0.75, 0.2, 0.95, 0.5)
CAT, COUCH = (0.3, 0.25, 0.7, 0.7), (0.15, 0.4, 0.85, 0.9)


@pytest.mark.parametrize(
    ("subject", "relation", "object", "expected"),
    [
        (VASE, "left of", WALL, PASS),
        (WALL, "right of", VASE, PASS),
        (WALL, "left of", VASE, FAIL),
        (VASE, "at the right side of", WALL, FAIL),
        (CAT, "on", COUCH, PASS),
        (CAT, "on top of", COUCH, PASS),
        (CAT, "above", COUCH, PASS),
        (COUCH, "under", CAT, PASS),
        (COUCH, "on", BIRD, FAIL),
        (CAR, "above", BIRD, FAIL),
        (BIRD, "below", CAR, FAIL),
        (CUP, "in", TABLE, PASS),  # what boxes cannot know better
        (TABLE, "contains", CUP, PASS),
        (TABLE, "contains", BIRD, FAIL),
        (VASE, "inside", WALL, FAIL),
        (VASE, "touching", WALL, FAIL),
        (VASE, "attached to", WALL, FAIL),
        (VASE, "next to", WALL, UNDECIDED),
        (CUP, "part of", TABLE, PASS),
        (VASE, "consists of", WALL, FAIL),
        (BIRD, "far from", CAR, PASS),
        (CAT, "far from", COUCH, FAIL),
        (VASE, "detached from", WALL, PASS),
        (VASE, "in front of", WALL, UNDECIDED),
        (VASE, "facing", WALL, UNDECIDED),
    ],
)
def test_plain_cases(subject: Box, relation: str, object: Box, expected: Verdict) -> None:
    assert judge(relation, subject, object).verdict is expected


def test_the_margin_is_the_distance_to_the_nearest_threshold() -> None:
    (leftward, ends_left) = next(iter(shipped_rules().ways("left of", "pass"))).tests
    a, b = (0.1, 0.4, 0.3, 0.6), (0.6, 0.4, 0.8, 0.6)  # centres 0.5 apart, right edges 2.5 widths
    expected = min(0.5 - leftward.threshold, 2.5 - ends_left.threshold)
    assert judge("left of", a, b).margin == pytest.approx(expected)
    assert judge("left of", a, b).rule == "left: pass 1"


def test_pixels_and_fractions_are_the_same_statement() -> None:
    pixels = [(x0 * 640, y0 * 480, x1 * 640, y1 * 480) for x0, y0, x1, y1 in (VASE, WALL)]
    there = judge("left of", *pixels, image_size=(640, 480))
    assert there.verdict is PASS and there.margin == pytest.approx(judge("left of", VASE, WALL).margin)
    with pytest.raises(VsreError, match="image_size"):
        judge("left of", *pixels)
    with pytest.raises(VsreError, match="holds no boxes"):
        judge("left of", *pixels, image_size=(0, 480))


def test_numpy_boxes_and_a_detector_that_overshoots() -> None:
    assert judge("left of", np.array(VASE), np.array([WALL])).verdict is PASS
    assert judge("left of", (-3, 100, 100, 300), (500, 100, 645, 300), image_size=(640, 480)).verdict is PASS


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ([], "no box of the subject"),
        ((0.2, 0.2, 0.2, 0.5), "no box in the image of the subject"),
        ((1.2, 0.2, 1.5, 0.5), "no box in the image of the subject"),
        ((float("nan"), 0.2, 0.4, 0.5), "no box in the image of the subject"),
    ],
)
def test_what_has_no_box_is_undecided(subject: list[Box] | Box, reason: str) -> None:
    assert judge("left of", subject, WALL) == Judgement(UNDECIDED, 0.0, reason=reason)
    assert judge("right of", WALL, subject).reason == reason.replace("subject", "object")


def test_bad_input_is_an_error() -> None:
    with pytest.raises(VsreError, match="none of VSR's"):
        judge("besides", VASE, WALL)
    with pytest.raises(VsreError, match="four numbers"):
        judge("left of", [(0.1, 0.2, 0.3)], WALL)  # type: ignore[list-item]


def test_several_candidates() -> None:
    far_left, middle, right = (0.0, 0.2, 0.1, 0.5), (0.57, 0.2, 0.7, 0.5), (0.85, 0.2, 1.0, 0.5)
    other = (0.45, 0.2, 0.6, 0.5)
    # one passes, the other is not clear
    one = judge("left of", [far_left, (0.3, 0.2, 0.45, 0.5)], other)
    assert one.verdict is PASS and one.margin == judge("left of", far_left, other).margin
    # one passes, the other fails: which one is meant?
    assert judge("left of", [far_left, right], other).reason == "candidates disagree"
    # all fail: the margin is the weakest's
    both = judge("left of", [middle, right], other)
    assert both.verdict is FAIL and both.margin == judge("left of", middle, other).margin < 0.9
    # one fails, the other is not clear: it might be the one
    unclear = (0.25, 0.2, 0.45, 0.5)
    assert judge("left of", unclear, other).verdict is UNDECIDED
    assert judge("left of", [right, unclear], other).reason == "not all candidates fail"


def test_a_thing_is_not_its_own_object() -> None:
    two = [VASE, WALL]
    assert judge("left of", two, two).reason == "candidates disagree"  # either is left of the other, and is not
    assert judge("touching", two, two).verdict is FAIL
    assert judge("touching", [VASE, VASE], [VASE, VASE]).reason == "subject and object are the same box"


def test_a_crowd_gives_no_pair_and_lets_nothing_fail() -> None:
    crowd = Thing((0.0, 0.0, 1.0, 0.6), crowd=True)
    assert judge("left of", crowd, WALL).reason == "only a crowd region"
    assert judge("left of", [VASE, crowd], WALL).verdict is PASS
    assert judge("left of", WALL, VASE).verdict is FAIL
    assert judge("left of", [WALL, crowd], VASE).reason == "a crowd region may hold others"
    # the group itself is one thing
    assert judge("left of", together([Thing((0.0, 0.2, 0.1, 0.5)), Thing((0.12, 0.2, 0.3, 0.5))]), WALL).verdict is PASS


def test_a_group_has_the_box_and_mask_around_its_members() -> None:
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 0:2, 0:2] = masks[1, 5:9, 6:9] = True
    a, b = Thing((0.0, 0.0, 0.2, 0.2), masks[0]), Thing((0.6, 0.5, 0.9, 0.9), masks[1])
    group = together([a, b])
    assert group.box == (0.0, 0.0, 0.9, 0.9) and group.mask is not None and group.mask.sum() == 16
    assert together([a, Thing((0.1, 0.1, 0.2, 0.2))]).mask is None
    with pytest.raises(VsreError, match="no things"):
        together([])


# Depth: a map of 60 x 80 pixels, the left half near, the right half far.
NEAR, FAR = (0.1, 0.2, 0.55, 0.9), (0.35, 0.1, 0.95, 0.8)


def depth_map(near: float = 1.0, far: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.full((60, 80), far) + rng.normal(0, 0.05, (60, 80))
    values[:, :45] -= far - near
    return values


def test_in_front_of_and_behind_go_by_depth() -> None:
    depth = DepthMap(depth_map())
    assert judge("in front of", NEAR, FAR).reason == "needs depth"
    assert judge("in front of", NEAR, FAR, depth=depth).verdict is PASS
    assert judge("behind", FAR, NEAR, depth=depth).verdict is PASS
    assert judge("behind", NEAR, FAR, depth=depth).verdict is FAIL
    aside = (0.7, 0.1, 0.95, 0.8)
    beside = judge("in front of", (0.05, 0.1, 0.3, 0.8), aside, depth=depth)
    assert beside.verdict is UNDECIDED, "nearer, but not in the way"
    assert judge("in front of", aside, (0.6, 0.1, 0.9, 0.9), depth=depth).verdict is UNDECIDED, "at one depth"


def test_only_the_order_of_depths_counts() -> None:
    metres = depth_map()
    reference = judge("in front of", NEAR, FAR, depth=DepthMap(metres))
    for values, inverse in ((np.exp(metres), False), (1 / metres, True), (-3 * metres + 7, True)):
        assert judge("in front of", NEAR, FAR, depth=DepthMap(values, inverse)) == reference


def test_depth_is_read_where_it_is_known() -> None:
    values = depth_map()
    holes = values.copy()
    holes[::2] = np.nan
    holes[1] = np.inf
    assert judge("in front of", NEAR, FAR, depth=DepthMap(holes)).verdict is PASS
    unknown = DepthMap(np.full((60, 80), np.nan))
    assert judge("in front of", NEAR, FAR, depth=unknown).reason == "needs depth"
    speck = (0.1, 0.1, 0.12, 0.12)
    assert PhotoPair(Thing(speck), Thing(FAR), DepthMap(values)).lead is None, "four pixels say nothing"


def test_lead_is_cliffs_delta() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9, (20, 20)).astype(float)
    a, b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    a[2:8, 3:9] = b[10:18, 4:16] = True
    pair = PhotoPair(Thing((0.1, 0.1, 0.5, 0.4), a), Thing((0.2, 0.5, 0.8, 0.9), b), DepthMap(values))
    apart = np.sign(values[b][None] - values[a][:, None]).mean()
    assert pair.lead == pytest.approx(apart)
    assert pair.swapped.lead == pytest.approx(-apart)
    assert pair.mirrored.lead == pytest.approx(apart)


def test_above_in_the_air_needs_depth() -> None:
    assert judge("above", BIRD, CAR).verdict is UNDECIDED
    flat = DepthMap(np.random.default_rng(0).normal(5, 1, (60, 80)))
    assert judge("above", BIRD, CAR, depth=flat).verdict is PASS
    assert judge("below", CAR, BIRD, depth=flat).verdict is PASS
    away = np.full((60, 80), 2.0)
    away[:20] = 50.0
    assert judge("above", BIRD, CAR, depth=DepthMap(away)).verdict is UNDECIDED


def masked(shape: tuple[int, int], rows: slice, columns: slice) -> Thing:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    (h, w), (y, x) = shape, (rows, columns)
    return Thing((x.start / w, y.start / h, x.stop / w, y.stop / h), mask)


def test_touching_needs_masks_that_meet_at_one_depth() -> None:
    shape = (100, 120)
    left, right = masked(shape, slice(40, 90), slice(10, 60)), masked(shape, slice(30, 90), slice(60, 110))
    flat, stepped = np.full(shape, 3.0), np.full(shape, 3.0)
    flat[:20], stepped[:, 60:] = 9.0, 9.0
    assert "needs masks and depth" in judge("touching", left, right).reason
    assert judge("touching", left, right, depth=DepthMap(flat)).verdict is PASS
    assert judge("touching", right, left, depth=DepthMap(flat)).verdict is PASS
    assert judge("touching", left, right, depth=DepthMap(stepped)).verdict is UNDECIDED, "one stands behind the other"
    # boxes that overlap, masks that lie apart
    ring = masked(shape, slice(10, 90), slice(10, 110))
    assert ring.mask is not None
    ring.mask[20:80, 20:100] = False
    inner = masked(shape, slice(40, 60), slice(50, 70))
    assert judge("touching", inner, Thing(ring.box)).verdict is UNDECIDED
    assert judge("touching", inner, ring).verdict is FAIL


def test_on_is_seen_under_the_subject() -> None:
    shape = (100, 120)
    table, cup = masked(shape, slice(50, 95), slice(5, 115)), masked(shape, slice(45, 70), slice(50, 65))
    assert table.mask is not None
    table.mask[50:70, 50:65] = False  # the cup hides it there
    depth = np.full(shape, 3.0)
    depth[:10] = 9.0
    assert judge("on", Thing(cup.box), Thing(table.box)).verdict is UNDECIDED, "it covers too little of the table"
    assert judge("on", cup, table, depth=DepthMap(depth)).verdict is PASS
    assert MEASURES["supported"].value(PhotoPair(cup, table)) == 1.0
    assert MEASURES["supported"].value(PhotoPair(table, cup)) == 0.0
    stepped = depth.copy()
    stepped[45:70, 50:65] = 1.0  # it stands before the table
    assert judge("on", cup, table, depth=DepthMap(stepped)).verdict is UNDECIDED
    aside = masked(shape, slice(70, 95), slice(0, 5))
    assert judge("on", aside, table, depth=DepthMap(depth)).verdict is not PASS


def test_masks_and_depth_of_other_shapes_are_errors() -> None:
    a, b = masked((100, 120), slice(40, 90), slice(10, 60)), masked((50, 60), slice(20, 45), slice(30, 50))
    with pytest.raises(VsreError, match="whole image"):
        judge("touching", a, b)
    with pytest.raises(VsreError, match="depth map"):
        judge("in front of", a, Thing(FAR), depth=DepthMap(np.ones((50, 60))))
    with pytest.raises(VsreError, match="height and width"):
        DepthMap(np.ones((3, 50, 60)))


def test_an_empty_mask_is_no_mask() -> None:
    a, b = masked((100, 120), slice(40, 90), slice(10, 60)), Thing((0.5, 0.3, 0.9, 0.9), np.zeros((100, 120), bool))
    assert PhotoPair(a, b).border is None
    assert "needs masks" in judge("touching", a, b).reason


def test_an_image_of_one_pixel() -> None:
    whole = (0.0, 0.0, 1.0, 1.0)
    thing = Thing(whole, np.ones((1, 1), bool))
    for relation in RELATIONS:
        assert judge(relation, thing, thing, depth=DepthMap(np.ones((1, 1)))).verdict in set(Verdict)


def test_thresholds_of_other_forms_are_refused() -> None:
    forms, thresholds = load_forms(), load_thresholds()
    stale = thresholds.model_copy(update={"provenance": thresholds.provenance.model_copy(update={"forms": "0" * 12})})
    with pytest.raises(VsreError, match="other forms"):
        RuleBook(forms, stale)
    short = thresholds.model_copy(update={"thresholds": {**thresholds.thresholds, "left": {"pass": ((0.25,),)}}})
    with pytest.raises(VsreError, match=r"rule 'left', pass 1: expected 2|rule 'left', fail"):
        RuleBook(forms, short)


def test_the_shipped_thresholds_say_where_they_come_from() -> None:
    book = shipped_rules()
    assert book.provenance.forms == book.forms.digest
    assert book.provenance.rows > 5000 and book.provenance.half.startswith("0;")
    assert sum(len(book.ways(relation, side)) > 0 for relation in RELATIONS for side in SIDES) > 60
