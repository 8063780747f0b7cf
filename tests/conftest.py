"""Makes tests/tiny_models.py importable from every test folder, and keeps tests off the network."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: tests that run side by side have a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # xdist's, which would hold for every console whatever a test asks for
    os.environ.pop("LINES", None)
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_vsre_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VSRE model with its processor, made once a session; treat it as read-only."""
    from tiny_models import tiny_vsre

    return tiny_vsre(tmp_path_factory.mktemp("tiny-vsre"))


@pytest.fixture(scope="session")
def tiny_llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA model with its processor, made once a session; treat it as read-only."""
    from tiny_models import tiny_llava

    return tiny_llava(tmp_path_factory.mktemp("tiny-llava"))
