import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vsre.errors import VsreError
from vsre.relations.photo_measures import PhotoPair
from vsre.relations.things import Thing
from vsre.verify.config import Depth, Masks
from vsre.verify.depth_and_masks import DepthEstimator, Segmenter
from vsre.verify.loading import Machine
from vsre.verify.sight import Picture

LEFT, RIGHT = (0.0, 0.2, 0.5, 0.9), (0.5, 0.2, 1.0, 0.9)


def machine(batch_size: int = 4) -> Machine:
    return Machine("cpu", "float32", batch_size, offline=True)


def picture(width: int, height: int, seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Picture(f"{width}x{height}.png", Image.fromarray(pixels))


def depth(folder: Path, **more: object) -> DepthEstimator:
    return DepthEstimator(Depth(model=str(folder), relations=("behind",), **more), machine())


def test_depth_maps_have_the_pictures_own_size(lookers: dict[str, Path]) -> None:
    """Of several shapes in one call, each as if alone; the one that no processor takes has none."""
    estimator = depth(lookers["depth"])
    shown = [picture(60, 40), picture(31, 50), picture(60, 40, 1), picture(8, 400), picture(8, 8)]
    maps = estimator.look(shown)
    assert [None if m is None else m.values.shape for m in maps] == [(40, 60), (50, 31), (40, 60), None, (8, 8)]
    [alone] = estimator.look(shown[2:3])
    assert alone is not None and maps[2] is not None
    np.testing.assert_allclose(maps[2].values, alone.values, atol=1e-5)
    assert np.isfinite(maps[2].values).all() and maps[2].inverse


def test_where_values_grow_is_the_models_own_word(lookers: dict[str, Path]) -> None:
    assert depth(lookers["depth"]).grows == "towards" and depth(lookers["metric"]).grows == "away"
    [found] = depth(lookers["depth"], grows="away").look([picture(60, 40)])
    assert found is not None and not found.inverse
    with pytest.raises(VsreError, match="does not say whether its depths grow"):
        _ = depth(lookers["rt"]).grows


def test_depth_tells_which_is_nearer(lookers: dict[str, Path]) -> None:
    """A ramp of disparity that grows to the right: the right thing is nearer."""
    estimator = depth(lookers["depth"])
    model, processor = estimator.model.load()
    ramp = torch.linspace(0, 1, 56).expand(1, 42, 56)
    fake = type("Fake", (), {"device": model.device, "dtype": model.dtype})()
    fake.__class__.__call__ = lambda self, pixel_values: type("Out", (), {"predicted_depth": ramp})()
    estimator.model._loaded = fake, processor
    [found] = estimator.look([picture(60, 40)])
    assert PhotoPair(Thing(RIGHT), Thing(LEFT), found).lead == 1.0


def test_a_depth_map_without_numbers_is_none(lookers: dict[str, Path]) -> None:
    estimator = depth(lookers["depth"])
    model, _ = estimator.model.load()
    with torch.no_grad():
        next(iter(model.head.parameters())).fill_(torch.nan)
    assert estimator.look([picture(60, 40)]) == [None]


def test_a_mask_for_each_box(lookers: dict[str, Path]) -> None:
    segmenter = Segmenter(Masks(model=str(lookers["sam"]), relations=("touching",)), machine())
    shown = [picture(60, 40), picture(30, 50)]
    found = segmenter.look(shown, [[LEFT, RIGHT, LEFT], [RIGHT]])
    assert [len(of) for of in found] == [3, 1]
    assert [m.shape for of in found for m in of] == [(40, 60)] * 3 + [(50, 30)]
    assert all(m.dtype == bool for of in found for m in of)
    assert (found[0][0] == found[0][2]).all(), "the same box has the same outline"
    alone = segmenter.look(shown[1:], [[RIGHT]])
    assert (alone[0][0] == found[1][0]).all()
    assert len(pickle.dumps(segmenter)) < 20_000


def test_box_prompts_are_in_the_pictures_pixels(lookers: dict[str, Path]) -> None:
    segmenter = Segmenter(Masks(model=str(lookers["sam"]), relations=("touching",)), machine())
    model, processor = segmenter.model.load()
    asked = []

    def listening(*args: object, **kwargs: object) -> object:
        asked.append(kwargs["input_boxes"])
        return processor(*args, **kwargs)

    listening.image_processor = processor.image_processor  # type: ignore[attr-defined]
    segmenter.model._loaded = model, listening
    segmenter.look([picture(60, 40)], [[RIGHT]])
    assert asked == [[[pytest.approx([30.0, 8.0, 60.0, 36.0])]]]
