"""Makes tests/tiny_models.py importable from every test folder, and keeps tests off the network."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
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
