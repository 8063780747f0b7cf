"""Steps of a recipe's folder that several processes work in: one makes a step, a kill lets the next one make it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from rich.console import Console

from vsre.errors import VsreError
from vsre.recipes.steps import STEP, Steps, alone, digests

QUIET = Console(quiet=True)


def test_of_two_at_a_time_one_makes_a_step(tmp_path: Path) -> None:
    folder, first, second = tmp_path / "also" / "more" / "world", Event(), Event()

    def make() -> dict[str, Any]:
        (second if first.is_set() else first).set()
        folder.mkdir(parents=True)
        (folder / "half").touch()
        second.wait(0.5)  # until the other one makes it too, which it must not
        return {"rows": len([*folder.iterdir()])}

    def once() -> dict[str, Any]:
        return Steps(tmp_path, QUIET).once(folder, {"seed": 0}, make, "draw")

    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(once)
        assert first.wait(10)
        assert [threads.submit(once).result(), asked.result()] == [{"rows": 1}] * 2
    assert not second.is_set() and (folder / "half").is_file()


def test_other_steps_do_not_wait(tmp_path: Path) -> None:
    """Nor do steps wait for the process that runs in the folder, which is their own."""
    steps = Steps(tmp_path, QUIET)

    def outer() -> dict[str, Any]:
        return {"inner": steps.once(tmp_path / "run", {}, lambda: {"rows": 2}, "inner")}

    with alone(tmp_path):
        assert steps.once(tmp_path / "outer", {}, outer, "outer") == {"inner": {"rows": 2}}


def _is_killed(out: Path) -> None:
    def make() -> dict[str, Any]:
        (out / "world").mkdir()
        (out / "world" / "half").touch()
        time.sleep(60)
        return {}

    Steps(out, QUIET).once(out / "world", {}, make, "draw")


def test_a_killed_process_leaves_its_step_to_the_next(tmp_path: Path) -> None:
    drawing = multiprocessing.get_context("fork").Process(target=_is_killed, args=(tmp_path,))
    drawing.start()
    while not (tmp_path / "world" / "half").is_file():
        assert drawing.is_alive()
        time.sleep(0.01)
    assert drawing.pid is not None
    os.kill(drawing.pid, signal.SIGKILL)
    drawing.join()
    steps = Steps(tmp_path, QUIET)
    assert steps.once(tmp_path / "world", {}, lambda: {"rows": 3}, "draw") == {"rows": 3}
    assert not (tmp_path / "world" / "half").exists()


def test_what_no_step_put_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "mine.txt").write_text("weeks of work")
    with pytest.raises(VsreError, match="world: a step writes here, but there are files that no step put there"):
        Steps(tmp_path, QUIET).once(tmp_path / "world", {}, dict, "draw")
    assert (tmp_path / "world" / "mine.txt").is_file()


def test_what_was_made_of_another_is_not_used(tmp_path: Path) -> None:
    """By the settings of the step before, and by those before that."""
    steps, folders = Steps(tmp_path, QUIET), [tmp_path / name for name in "abc"]

    def made(seed: int) -> list[dict[str, Any]]:
        chain = zip(folders, [None, *folders], strict=False)
        return [
            steps.once(at, {"seed": seed} if of is None else {}, lambda: {"of": seed}, at.name, of=of)
            for at, of in chain
        ]

    assert made(0) == made(0) == [{"of": 0}] * 3
    shutil.rmtree(folders[0])
    assert made(0) == [{"of": 0}] * 3, "made anew as it was"
    shutil.rmtree(folders[0])
    for at in (1, 2):
        with pytest.raises(VsreError, match=f"{folders[at]}: made from an earlier {folders[at - 1]}"):
            made(1)
        shutil.rmtree(folders[at])
    assert made(1) == [{"of": 1}] * 3
    mark = folders[2] / "step.json"
    mark.write_text(json.dumps({k: v for k, v in json.loads(mark.read_text()).items() if k != "of"}))
    assert made(1) == [{"of": 1}] * 3, "an earlier version did not write it down"


def test_what_a_step_reads_must_be_what_it_was(tmp_path: Path) -> None:
    pack, steps = tmp_path / "mine.yaml", Steps(tmp_path / "out", QUIET)
    pack.write_text("as it was")
    made = tmp_path / "out" / "made"

    def once() -> dict[str, Any]:
        return steps.once(made, {"pack": str(pack)}, lambda: {"n": 1}, "make it", reads=digests(pack, None, "scene"))

    assert once() == once() == {"n": 1}
    pack.write_text("mended")
    with pytest.raises(VsreError, match=r"made before .*mine\.yaml changed"):
        once()
    pack.unlink()
    assert once() == {"n": 1}, "what is gone is not needed any more"
    done = json.loads((made / STEP).read_text())
    del done["reads"]
    (made / STEP).write_text(json.dumps(done))
    pack.write_text("of an earlier version nothing is known")
    assert once() == {"n": 1}


def test_a_summary_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    steps = Steps(tmp_path, QUIET)
    both = [steps.once(tmp_path / "a", {}, lambda: {"at": Path("x"), "objects": {2: 5}}, "a") for _ in range(2)]
    assert both == [{"at": "x", "objects": {"2": 5}}] * 2


def test_names_are_no_markup(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        Steps(tmp_path, Console(file=log)).once(tmp_path / "a", {}, dict, "draw [/] and [b]")
    assert (tmp_path / "log").read_text() == "draw [/] and [b]\n"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"seed": 1, "source": {"units": 4, "kind": "scenes"}}, "differ in seed. "),
        ({"seed": 0, "source": {"units": 5, "kind": "scenes"}}, "differ in source.units. "),
        ({"seed": 0, "source": None}, "differ in source. "),
        ({"seed": 0, "source": {"kind": "scenes"}, "new": None}, "differ in source.units, new. "),
        (dict.fromkeys("abcd"), "differ in seed, source, a, b and 2 more. "),
    ],
)
def test_what_differs_is_named(tmp_path: Path, now: dict[str, Any], said: str) -> None:
    steps = Steps(tmp_path, QUIET)
    steps.once(tmp_path / "a", {"seed": 0, "source": {"units": 4, "kind": "scenes"}}, dict, "a")
    with pytest.raises(VsreError, match="made with other settings than this recipe's") as error:
        steps.once(tmp_path / "a", now, dict, "a")
    assert said in str(error.value)
