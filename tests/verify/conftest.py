"""Folders of tiny random models, made once a session; read-only."""

from pathlib import Path

import pytest
import tiny_lookers


@pytest.fixture(scope="session")
def lookers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """rt, dfine, owl, dino, mm, depth, sam -> folder."""
    folder = tmp_path_factory.mktemp("lookers")
    return {
        "rt": tiny_lookers.tiny_rt_detr(folder),
        "dfine": tiny_lookers.tiny_d_fine(folder),
        "owl": tiny_lookers.tiny_owlv2(folder),
        "dino": tiny_lookers.tiny_grounding_dino(folder),
        "mm": tiny_lookers.tiny_grounding_dino(folder, mm=True),
        "depth": tiny_lookers.tiny_depth(folder),
        "metric": tiny_lookers.tiny_depth(folder, kind="metric"),
        "sam": tiny_lookers.tiny_sam(folder),
    }
