"""One file out of several modules: it holds what is needed, and refuses what it would change."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vsre.errors import VsreError
from vsre.export.bundle import bundle
from vsre.export.folder import model_code

Bundle = Callable[..., str]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bundle]:
    """Writes modules of a package `shop` and bundles its class shop.a.Wanted."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(**modules: str) -> str:
        folder = tmp_path / "shop"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        wanted = importlib.import_module("shop.a").Wanted
        return bundle([wanted], package="shop", docstring="Made for a test.")

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
        del sys.modules[name]


def run(source: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "bundled"}
    exec(compile(source, "bundled.py", "exec"), names)
    return names


def test_takes_what_is_needed_and_nothing_else(shop: Bundle) -> None:
    source = shop(
        a="""
from __future__ import annotations
import json
import os.path as paths
from math import floor as down, sqrt
from shop.b import RATE, helper, unused
from shop.c import Kind

class Wanted:
    size: Kind = RATE

    def go(self, json: int = down(2.5)) -> int:
        # a comment inside
        return helper(json) + len(paths.join("a", "b"))

def not_wanted():
    return sqrt(4) + json.loads("1")
""",
        b="""
import math
from shop.c import BASE

# Why it is so.
# In two lines.
RATE = BASE * 2
\"\"\"What it is.\"\"\"

def helper(x):
    return twice(x) + other(0)

def twice(x):
    return [x := x + y for y in (x,)][0]

def other(n):
    return helper(n - 1) if n else 0

def unused():
    return math.pi
""",
        c="""
import subprocess

BASE: int = 4
Kind = int
""",
    )
    names = run(source)
    wanted = names["Wanted"]
    assert wanted.size == 8 and wanted().go() == 7  # type: ignore[attr-defined]
    for kept in (
        "# Why it is so.\n# In two lines.\nRATE",
        '"""What it is."""',
        "# a comment inside",
        "import os.path as paths",
    ):
        assert kept in source
    for left in ("shop", "not_wanted", "unused", "subprocess", "import json", "math.pi", "sqrt"):
        assert left not in source
    assert names["__doc__"] == "Made for a test."


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"b": "TABLE = {}\nTABLE[1] = 2\n"}, "line 2: a statement that does more than define a name"),
    ({"b": "TABLE = 1\nprint(TABLE)\n"}, "does more than define"),
    ({"b": "if True:\n    TABLE = 1\n"}, "neither defined nor imported"),
    ({"b": "def TABLE():\n    from shop.c import x\n", "c": "x = 1\n"}, "imported inside a definition"),
    ({"b": "def TABLE():\n    import shop.c\n", "c": "x = 1\n"}, "imported inside a definition"),
    ({"b": "from shop.c import x as TABLE\n", "c": "x = 1\n"}, "cannot be bundled. Import the names"),
    ({"b": "import shop.c as TABLE\n", "c": ""}, "cannot be bundled. Import the names"),
    ({"b": "from .c import TABLE\n", "c": "TABLE = 1\n"}, "a relative import"),
    ({"b": "from shop.c import f\ndef TABLE(): f()\n", "c": "Own = 1\ndef f(): Own\n"}, "Own is defined in shop"),
    (
        {
            "b": "from shop.c import f\nfrom json import loads as z\ndef TABLE(): f(), z()\n",
            "c": "from json import dumps as z\ndef f(): z()\n",
        },
        "elsewhere",
    ),
    (
        {
            "b": "from shop.c import f\nfrom pathlib import Path\ndef TABLE(): f(), Path()\n",
            "c": "class Path: pass\ndef f(): Path()\n",
        },
        "imported by one module and defined by another",
    ),
]


@pytest.mark.parametrize(("modules", "words"), REFUSED)
def test_refuses_what_it_would_change(shop: Bundle, modules: dict[str, str], words: str) -> None:
    with pytest.raises(VsreError, match=words):
        shop(a="from shop.b import TABLE\nOwn = 2\nclass Wanted:\n    def go(self): return TABLE, Own\n", **modules)


def test_the_models_code_needs_no_package_but_transformers_torch_numpy_pillow() -> None:
    source = model_code()
    assert source == model_code()
    used = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    outside = used - set(sys.stdlib_module_names)
    assert outside == {"transformers", "torch", "numpy", "PIL"}
    for checkpoint_work in ("from_pretrained(path", "pyarrow", "read_triplets", "spec_from_checkpoint"):
        assert checkpoint_work not in source
