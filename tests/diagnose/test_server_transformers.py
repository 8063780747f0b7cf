"""The server engine against a real server: `transformers serve` with a tiny LLaVA on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnose_data import make_triplets, picture, strong_llava, write_data
from transformers.utils.import_utils import is_serve_available

from vsre.diagnose import Decoding, Interrupted, Prompt, TransformersEngine, diagnose, load_run
from vsre.diagnose.server import ServerEngine

pytestmark = pytest.mark.skipif(
    not is_serve_available(), reason="transformers serve needs fastapi, uvicorn and openai (transformers[serving])"
)
SHORT = Decoding(4, 10)
PACKS = ["phase1"]
SERVE = "from transformers.cli.transformers import main; main()"


class Served:
    """A process that serves one model; `start` waits until it answers."""

    def __init__(self, model: Path, log: Path) -> None:
        self.model, self.log = model, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", str(self.model), *options],
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"transformers serve did not come up: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    server = Served(strong_llava(folder), folder / "log")
    server.start()
    yield server
    server.kill()


def engine(served: Served, **options: object) -> ServerEngine:
    given = {"decoding": SHORT, "key_env": None, "backoff": 0.05, "retries": 2, "concurrency": 4, **options}
    return ServerEngine(served.url, str(served.model), **given)  # type: ignore[arg-type]


def test_the_same_answers_as_in_process(served: Served) -> None:
    """Greedy answers to the same prompts about the same pictures, token for token."""
    styles = ("short", "full")
    texts = ["Is the cat left of the dog?", "Does the bowl contain the cake? A. yes B. no", "True or false: it is."]
    asked = [
        (
            picture(i, size=(96, 64)),
            [Prompt(text, ("Yes", "No"), style) for text in texts for style in styles],
        )
        for i in range(4)
    ]
    server = engine(served)
    there = server.answer(asked)
    here = TransformersEngine(served.model, device="cpu", decoding=SHORT).answer(asked)
    told = [[reply.text for reply in row] for row in here]
    assert [[reply.text for reply in row] for row in there] == told
    assert len({text for row in told for text in row}) > 12, "answers that hardly differ prove nothing"
    assert not any(reply.scores for row in there for reply in row)
    notes = server.notes()
    assert notes["why"] == "no likelihoods: the server sends none" and notes["retries"]["total"] == 0
    assert 0 < notes["tokens"]["completion"] <= 12 * (4 + 10)
    assert notes["tokens"]["prompt"] > 24 * 36 and list(notes["server_models"]) == [f"{served.model}@main"]


def test_questions_without_a_picture(served: Served) -> None:
    blind = engine(served, pictures=False).answer([(None, [Prompt("Is the cat left of the dog?")])])
    seen = engine(served).answer([(picture(1), [Prompt("Is the cat left of the dog?")])])
    assert blind[0][0].text and blind[0][0].error is None and blind[0][0].text != seen[0][0].text


def test_a_model_that_it_does_not_have(served: Served) -> None:
    other = ServerEngine(served.url, "llava-hf/llava-1.5-7b-hf", key_env=None, backoff=0.05, retries=1)
    with pytest.raises(Interrupted, match=r"refuses every request \(400: Server is pinned to") as caught:
        other.answer([(picture(0), [Prompt("Is it?"), Prompt("Is it so?")])])
    assert caught.value.replies == [[None, None]]


def test_killed_halfway_and_started_again(served: Served, tmp_path: Path) -> None:
    """kill -9 of the server amid requests: the run stops without a wrong row, and ends as an undisturbed one later."""
    data = write_data(tmp_path / "data", make_triplets(4))
    whole = diagnose(engine(served), data, PACKS, tmp_path / "whole", progress=False)
    first = engine(served)

    def watch() -> None:
        while first.notes()["answers"] < 40:
            time.sleep(0.005)
        served.kill()

    killer = threading.Thread(target=watch)
    killer.start()
    with pytest.raises(Interrupted, match="gives no answers"):
        diagnose(first, data, PACKS, tmp_path / "run", progress=False)
    killer.join()
    served.start()
    resumed = diagnose(engine(served), data, PACKS, tmp_path / "run", progress=False)
    assert resumed == whole and resumed["errors"] == 0
    rows = [load_run(tmp_path / name).samples.to_pylist() for name in ("run", "whole")]
    assert by_question(rows[0]) == by_question(rows[1]) and len(rows[0]) == whole["n_samples"] == 4 * 2 * 15
    _, *rest = load_run(tmp_path / "run").run["sessions"]
    assert sum(session["questions"] for session in rest) == len(rows[0]) - first.notes()["answers"]
    assert 40 <= first.notes()["answers"] < len(rows[0])


def by_question(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["key"], row["template"]))
