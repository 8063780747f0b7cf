"""Pools of scenes in a folder that several processes use: drawn once, and never changed under a reader."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from vsre.zoo import pool as pools
from vsre.zoo.pool import make_pool

SIZE = 32


def test_of_two_at_a_time_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, draw = Event(), Event(), pools._draw

    def slowly(*given: Any, **more: Any) -> Any:
        (second if first.is_set() else first).set()
        second.wait(0.5)  # until the other one draws too, which it must not
        return draw(*given, **more)

    monkeypatch.setattr(pools, "_draw", slowly)
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(make_pool, tmp_path, 4, 1, SIZE, workers=1)
        assert first.wait(10)
        made = [threads.submit(make_pool, tmp_path, 4, 1, SIZE, workers=1).result(), asked.result()]
    assert not second.is_set()
    assert made[0].facts == made[1].facts and np.array_equal(made[0].images, made[1].images) and made[0].images.any()


def test_a_pool_that_is_open_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = make_pool(tmp_path, 4, 1, SIZE, workers=1)
    images, objects = np.array(there.images), np.array(there.objects)
    everything = (there.facts[0][0].name,)
    other = make_pool(tmp_path, 4, 1, SIZE, exclude=everything, workers=1)
    assert np.array_equal(there.images, images) and np.array_equal(there.objects, objects)
    assert not np.array_equal(other.images, images)

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pools, "_draw", killed)
        with pytest.raises(KeyboardInterrupt):
            make_pool(tmp_path, 4, 1, SIZE, workers=1)
        again = make_pool(tmp_path, 4, 1, SIZE, exclude=everything, workers=1)
    assert again.facts == other.facts and np.array_equal(again.images, other.images)


def test_a_pool_counts_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed as it says that it is done, it is drawn again."""
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_pool(tmp_path, 4, 1, SIZE, workers=1)
    assert not [*tmp_path.glob("*.json")]
    assert len(make_pool(tmp_path, 4, 1, SIZE, workers=1)) == 4
    assert len(json.loads((tmp_path / f"pool-1-4-{SIZE}.json").read_text())["facts"]) == 4
    assert not [*tmp_path.glob(".*")], "nothing aside is left"


def test_workers_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(pools, "CHUNK", 3)
    one = make_pool(tmp_path / "one", 7, 1, SIZE, workers=1, progress=done.append)
    two = make_pool(tmp_path / "two", 7, 1, SIZE, workers=2)
    assert done == [3, 6, 7] and one.facts == two.facts
    assert np.array_equal(one.images, two.images) and np.array_equal(one.objects, two.objects)
