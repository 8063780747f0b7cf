"""Answers cached between runs: the same model, prompt and picture are never asked twice.

A key consists of the engine's settings (with the weights' fingerprint, the decoding and the way), the picture's bytes
and the prompt, so another checkpoint, wording or picture is asked afresh. Only answers are cached: errors are retried.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vsre.diagnose.engines import Engine, blind_engine
from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Interrupted, Reply, Score
from vsre.errors import VsreError

Asked = Sequence[tuple[bytes | None, Sequence[Prompt]]]


class CachedEngine:
    """An engine whose answers are cached in an SQLite file, which processes may share."""

    def __init__(self, engine: Engine, path: str | Path) -> None:
        self.engine, self.name, self.batch_images = engine, engine.name, engine.batch_images
        self.path = Path(path)
        self.hits = 0
        # A server's address is not a run's setting, but at another address there may be another model of the same name.
        place = {"base_url": engine.base_url} if hasattr(engine, "base_url") else {}
        self._about = json.dumps(engine.settings() | place, sort_keys=True, default=str)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("create table if not exists replies (key text primary key, reply text) without rowid")
        except (sqlite3.Error, OSError) as error:
            raise VsreError(f"{path}: cannot be used to keep answers ({error}). Name another file.") from error

    def without_picture(self) -> CachedEngine:
        """Like the engine's own method; raises VsreError if the engine has none."""
        return CachedEngine(blind_engine(self.engine), self.path)

    def settings(self) -> dict[str, Any]:
        """The engine's own: a cached answer is the answer."""
        return self.engine.settings()

    def notes(self) -> dict[str, Any]:
        return self.engine.notes() | {"cached_answers": self.hits}

    def answer(self, asked: Asked) -> list[list[Reply]]:
        """As in Engine; only what is not cached reaches the engine, each picture with all of its open prompts."""
        keys = [self._keys(image, prompts) for image, prompts in asked]
        known = self._read([key for row in keys for key in row])
        found: list[list[Reply | None]] = [[known.get(key) for key in row] for row in keys]
        self.hits += sum(reply is not None for row in found for reply in row)
        waiting = [
            (at, [i for i, reply in enumerate(row) if reply is None]) for at, row in enumerate(found) if None in row
        ]
        if waiting:
            stopped: Interrupted | None = None
            try:
                replies: Sequence[Sequence[Reply | None]] = self.engine.answer(
                    [(asked[at][0], [asked[at][1][i] for i in places]) for at, places in waiting]
                )
            except Interrupted as error:
                replies, stopped = error.replies, error
            for (at, places), row in zip(waiting, replies, strict=True):
                for i, reply in zip(places, row, strict=True):
                    found[at][i] = reply
            self._write((keys[at][i], found[at][i]) for at, places in waiting for i in places)
            if stopped is not None:
                raise Interrupted(str(stopped), found) from stopped
        return [[reply or Reply(error="the engine gave no reply") for reply in row] for row in found]

    def _keys(self, image: bytes | None, prompts: Sequence[Prompt]) -> list[str]:
        picture = hashlib.sha256(b"" if image is None else image).hexdigest()
        told = (json.dumps([self._about, picture, asdict(prompt)], sort_keys=True) for prompt in prompts)
        return [hashlib.sha256(text.encode()).hexdigest() for text in told]

    def _read(self, keys: Sequence[str]) -> dict[str, Reply]:
        found = {}
        for start in range(0, len(keys), 500):  # SQLite allows 999 variables in older builds
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            for key, reply in self._db.execute(f"select key, reply from replies where key in ({marks})", some):
                raw = json.loads(reply)
                found[key] = Reply(raw["text"], tuple(Score(**score) for score in raw["scores"]), cut=raw.get("cut"))
        return found

    def _write(self, replies: Any) -> None:
        rows = [(key, json.dumps(asdict(reply))) for key, reply in replies if reply is not None and reply.error is None]
        self._db.execute("begin immediate")
        self._db.executemany("insert or replace into replies values (?, ?)", rows)
        self._db.execute("commit")
