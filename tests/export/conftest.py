"""A Python that has transformers, torch and Pillow with what those require, and nothing else: no vsre, no datasets."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement


def requirements(roots: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """These installed distributions and all that they require, without extras."""
    todo, found = list(roots), {}
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        needs = map(Requirement, found[name].requires or [])
        todo += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a script with arguments in such a Python; returns what it printed."""
    packages, home = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("hub")
    for distribution in requirements(["transformers", "torch", "pillow"]).values():
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    assert not (packages / "vsre").exists() and not (packages / "datasets").exists()

    def run(script: str, *arguments: str | Path) -> str:
        begin = f"import sys; sys.path.insert(0, {str(packages)!r})\n"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", begin + script, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
