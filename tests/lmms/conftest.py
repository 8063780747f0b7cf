"""A small test set, made once; the data of the diagnosis tests serve here too."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "diagnose"))


@pytest.fixture(scope="session")
def triplets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 triplets about 6 pictures, those of every third picture without boxes."""
    from diagnose_data import make_triplets, write_data

    return write_data(tmp_path_factory.mktemp("triplets"), make_triplets(6))


@pytest.fixture(scope="session")
def testset_folder(triplets_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its three default configurations; treat it as read-only."""
    from vsre.lmms.testset import write_testset

    folder = tmp_path_factory.mktemp("sets") / "set"
    write_testset(triplets_folder, folder, protocol="clean")
    return folder
