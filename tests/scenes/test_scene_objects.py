"""Sprites, placed things, scenes and their pixels."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

from vsre.errors import VsreError
from vsre.sources.coco import CATEGORY_ID
from vsre.sources.scenes import (
    BACKGROUNDS,
    CLASSES,
    SPRITES,
    Placed,
    Scene,
    draw_scene_for,
    encode,
    masks,
    object_list,
    paint,
    scene_stream,
    shapes,
)
from vsre.sources.scenes.render import mask_box, run_lengths
from vsre.sources.scenes.sprites import picture


def some_scenes(count: int = 12) -> list[Scene]:
    stream = scene_stream(3)
    return [next(stream) for _ in range(count)]


def test_at_least_fifty_coco_classes_each_with_a_picture() -> None:
    assert len(CLASSES) >= 50
    assert set(CLASSES) <= set(CATEGORY_ID)
    for sprites in SPRITES.values():
        for sprite in sprites:
            image = picture(sprite)
            assert image.mode == "RGBA" and min(image.size) >= 24
            assert 0.27 <= sprite.size <= 0.5
            opening = sprite.opening
            assert opening is None or (0 <= opening.x0 < opening.x1 <= 1 and 0 <= opening.y0 < opening.y1 <= 1)
            assert sprite.top is None or (0 <= sprite.top[0] < sprite.top[1] <= 1 and 0 <= sprite.top[2] < 1)


def test_the_same_scene_gives_the_same_pixels_after_json() -> None:
    for scene in some_scenes(6):
        again = Scene.from_json(json.loads(json.dumps(scene.to_json())))
        assert again == scene
        assert np.array_equal(paint(again), paint(scene))
    assert encode(scene) == encode(again)


def test_size_changes_resolution_only() -> None:
    scene = some_scenes(1)[0]
    assert paint(scene).shape == (192, 192, 3) and paint(scene).dtype == np.uint8
    assert paint(scene, 96).shape == (96, 96, 3)
    small = paint(scene, 96).astype(float)
    large = paint(scene, 192).reshape(96, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(small - large).mean() < 12


def test_masks_are_disjoint_and_agree_with_boxes() -> None:
    for scene in some_scenes():
        stack = masks(scene)
        assert stack.shape == (len(scene.objects), 192, 192) and stack.dtype == np.uint8
        assert stack.sum(0).max() <= 1
        for placed, shape in zip(scene.objects, shapes(scene), strict=True):
            found = mask_box(shape.whole)
            assert found is not None
            expected = [min(max(v * 192, 0), 192) for v in placed.box]
            assert np.abs(np.array(found) - expected).max() <= 3.5
            assert (shape.visible <= shape.whole).all()


def test_the_nearer_thing_hides_the_farther() -> None:
    far = Placed("bus", x=0.5, y=0.7, z=1.8, size=0.4)
    near = Placed("cat", x=0.5, y=0.8, z=1.05, size=0.3)
    scene = Scene("meadow", 1, (near, far))
    assert scene.order == (1, 0)
    cat, bus = shapes(scene)
    assert cat.visible_share == 1 and 0.2 < bus.visible_share < 0.95


def test_run_lengths_are_cocos() -> None:
    mask = np.array([[1, 0], [1, 1]], dtype=bool)
    assert run_lengths(mask) == [0, 2, 1, 1]
    for shape in shapes(some_scenes(1)[0]):
        flat = np.concatenate([np.full(n, i % 2) for i, n in enumerate(run_lengths(shape.visible))])
        assert np.array_equal(flat.reshape(192, 192, order="F"), shape.visible)


def test_another_background_keeps_the_layout() -> None:
    scene = some_scenes(1)[0]
    kind = next(k for k in BACKGROUNDS if k != scene.kind)
    other = scene.elsewhere(kind, 5)
    assert np.array_equal(masks(other), masks(scene))
    assert np.abs(paint(other).astype(int) - paint(scene)).mean() > 5


def test_another_class_stays_in_the_box() -> None:
    scene = draw_scene_for("cat", "on", "dining table", True, Random(1), 0)
    assert scene is not None
    swapped = scene.swap_class("cat", "elephant")
    (x0, y0, x1, y1), (a0, b0, a1, b1) = scene.objects[0].box, swapped.objects[0].box
    assert a0 >= x0 - 1e-9 and b0 >= y0 - 1e-9 and a1 <= x1 + 1e-9 and b1 == pytest.approx(y1)
    assert swapped.names == ("elephant", "dining table")
    lifted = scene.swap_class("dining table", "oven")
    assert lifted.objects[0].link == "shelf" and lifted.objects[0].host is None


def test_object_list_goes_from_near_to_far() -> None:
    scene = some_scenes(1)[0]
    seen = object_list(scene)
    assert [s.depth_rank for s in seen] == list(range(len(scene.objects)))
    assert {s.name for s in seen} == set(scene.names)
    assert all(len(s.cell.split()) == 2 for s in seen)


def test_stream_starts_anywhere_and_leaves_out_what_it_must() -> None:
    stream = scene_stream(9)
    first = [next(stream) for _ in range(5)]
    assert next(scene_stream(9, start=4)) == first[4]
    assert next(scene_stream(9, split="dev")) != first[0]
    hidden = scene_stream(9, exclude=CLASSES[:40])
    assert all(not set(next(hidden).names) & set(CLASSES[:40]) for _ in range(10))


def test_a_bad_scene_says_what_is_wrong() -> None:
    cat = Placed("cat", x=0.5, y=0.9, z=1.0, size=0.3)
    with pytest.raises(VsreError, match="each class once"):
        Scene("meadow", 1, (cat, cat))
    with pytest.raises(VsreError, match="not a background"):
        Scene("moon", 1, (cat,))
    with pytest.raises(VsreError, match="Not a scene"):
        Scene.from_json({"kind": "meadow"})
    with pytest.raises(VsreError, match="not in the embedded world"):
        _ = Placed("hair drier", x=0.5, y=0.9, z=1.0, size=0.3).box
