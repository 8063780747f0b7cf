"""Checkpoints whose answers hang on the picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose_data import strong_llava, strong_vsre


@pytest.fixture(scope="module", params=[strong_llava, strong_vsre], ids=["llava", "vsre"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return strong_llava(tmp_path_factory.mktemp("llava"))
