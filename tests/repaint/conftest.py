"""A tiny world, read back as triplets, shared by the tests of repainting."""

from pathlib import Path

import pytest

from vsre.sources.scenes import write_world
from vsre.sources.vsr import import_vsr


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WORLD/scenes.jsonl and WORLD/triplets/{train,test}; read-only."""
    world = tmp_path_factory.mktemp("world") / "world"
    write_world(world, train_units=5, dev_units=0, test_units=2, seed=3, size=96)
    annotations = world / "annotations" / "caption-disjoint"
    import_vsr(
        {name: [annotations / f"{name}.jsonl"] for name in ("train", "test")},
        world / "triplets",
        images=[world / "images"],
        instances=[world / "instances.json"],
        origin="scenes",
    )
    return world


@pytest.fixture(scope="session")
def tiny_sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SDXL of toy size, saved once a session; treat it as read-only."""
    pytest.importorskip("diffusers", reason='needs diffusers: pip install "vsre[diffusion]"')
    from tiny_sdxl import tiny_sdxl

    return tiny_sdxl(tmp_path_factory.mktemp("tiny-sdxl"))
