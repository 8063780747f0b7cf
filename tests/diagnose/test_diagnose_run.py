"""Runs: what lies in the folder, resuming after a kill, refusing other settings, errors that count nowhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diagnose_data import Scripted, make_triplets, strong_llava, write_data

from vsre.diagnose import Decoding, Prompt, Reply, TransformersEngine, diagnose, load_run
from vsre.errors import VsreError
from vsre.triplets import Triplet

PACKS = ["phase1", "phase4", "test-s"]


def says_yes(prompt: Prompt) -> Reply:
    return Reply.yes_no(prompt.options[0], -0.1, -2.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), make_triplets(6))


def test_run_folder(data: Path, tmp_path: Path) -> None:
    triplets = make_triplets(6)
    metrics = diagnose(Scripted(says_yes), data, PACKS, tmp_path, train_path=data, protocol="clean", progress=False)
    found = load_run(tmp_path)
    assert found.metrics == json.loads(json.dumps(metrics))
    assert found.metrics["protocol"] == "clean" and found.metrics["model"] == "scripted"
    # 12 triplets, 8 of them with boxes: phase1 15, phase4 21, test-s 1
    assert len(found.samples) == 12 * 16 + 8 * 21
    assert found.metrics["skipped"] == {"no_boxes": 4 * 21, "duplicate_rows": 0}
    assert found.metrics["test_s"]["acc_t"]["value"] == sum(t.label for t in triplets) / 12
    assert found.metrics["test_s"]["yes_acc"]["value"] == 1 and found.metrics["bias"]["value"] == 1
    assert found.metrics["blind_floor"]["lookup"]["value"] == 1
    sample = found.samples.to_pylist()[0]
    assert (sample["reading"], sample["answer"], sample["meta_category"]) == ("yes", sample["answer"], "projective")
    assert sample["p_yes"] == pytest.approx(0.87, abs=0.01)
    assert found.run["settings"]["packs"].keys() == set(PACKS)
    assert found.run["counts"]["questions"] == len(found.samples)
    assert found.run["sessions"][0]["questions"] == len(found.samples) and found.run["finished"]


def test_limit_takes_whole_images(data: Path, tmp_path: Path) -> None:
    metrics = diagnose(Scripted(says_yes), data, ["test-s"], tmp_path, limit=3, progress=False)
    assert (metrics["n_triplets"], metrics["n_images"]) == (4, 2)


def test_a_few_statements_of_each_image(tmp_path: Path) -> None:
    """Images that the same captions are said of keep the same ones, and what is true of one is false of the other."""
    first, second = (make_triplets(2, 8, boxes=False)[8 * i : 8 * i + 8] for i in (0, 1))
    twins = [
        replace(a, image_id=b.image_id, image=b.image, label=not a.label) for a, b in zip(first, second, strict=True)
    ]
    data = write_data(tmp_path / "data", [*first, *twins])
    metrics = diagnose(Scripted(says_yes), data, ["test-s"], tmp_path / "run", per_image=3, progress=False)
    assert (metrics["n_triplets"], metrics["n_images"]) == (6, 2)
    assert metrics["test_s"]["acc_t"]["value"] == 0.5  # each caption once true and once false
    asked = load_run(tmp_path / "run").samples.to_pylist()
    by_image = [
        {(s["subject"], s["relation"], s["object"]) for s in asked if s["image_id"] == i}
        for i in {s["image_id"] for s in asked}
    ]
    assert by_image[0] == by_image[1] and len(by_image[0]) == 3
    with pytest.raises(VsreError, match=r"per_image: there 3, now 4"):
        diagnose(Scripted(says_yes), data, ["test-s"], tmp_path / "run", per_image=4, progress=False)
    limited = diagnose(Scripted(says_yes), data, ["test-s"], tmp_path / "limited", per_image=3, limit=2, progress=False)
    assert limited["n_triplets"] == 3  # up to the end of a picture
    all_of_them = diagnose(Scripted(says_yes), data, ["test-s"], tmp_path / "all", per_image=99, progress=False)
    assert all_of_them["n_triplets"] == 16


def test_repeated_rows_are_asked_once(tmp_path: Path) -> None:
    triplets = make_triplets(2)
    data = write_data(tmp_path / "data", [*triplets, *triplets])
    engine = Scripted(says_yes)
    metrics = diagnose(engine, data, ["test-s"], tmp_path / "run", progress=False)
    assert len(engine.prompts) == metrics["n_samples"] == 4
    assert metrics["skipped"]["duplicate_rows"] == 4


def test_errors_are_not_wrong_answers(data: Path, tmp_path: Path) -> None:
    def rule(prompt: Prompt) -> Reply:
        return Reply(error="the picture is torn") if "cat" in prompt.text else Reply("I cannot tell.")

    metrics = diagnose(Scripted(rule), data, ["test-s"], tmp_path, progress=False)
    told = sum("cat" in (t.subject, t.object) for t in make_triplets(6))
    assert (metrics["errors"], metrics["unanswered"]) == (told, 12 - told)
    none = metrics["test_s"]["acc_t"]
    assert (none["value"], none["low"], none["n"]) == (0, 0, 12 - told) and 0 < none["high"] < 1
    assert metrics["error_reasons"] == {"the picture is torn": told}
    assert len(metrics["warnings"]) == 3
    rows = load_run(tmp_path).samples.to_pylist()
    assert {r["correct"] for r in rows if r["reading"] == "error"} == {None}


def test_a_finished_run_asks_nothing_again(data: Path, tmp_path: Path) -> None:
    first = diagnose(Scripted(says_yes), data, PACKS, tmp_path, progress=False)
    engine = Scripted(says_yes)
    assert diagnose(engine, data, PACKS, tmp_path, progress=False) == first
    assert engine.prompts == []
    assert load_run(tmp_path).run["engine"] == {"way": "scripted"}
    diagnose(engine, data, PACKS, tmp_path, progress=False, resume=False)
    assert len(engine.prompts) == first["n_samples"]


def test_an_interrupted_run_keeps_what_it_had(data: Path, tmp_path: Path) -> None:
    undisturbed = diagnose(Scripted(says_yes), data, PACKS, tmp_path / "a", progress=False)
    limit = 200

    def tires(prompt: Prompt) -> Reply:
        if len(engine.prompts) > limit:
            raise KeyboardInterrupt
        return says_yes(prompt)

    engine = Scripted(tires)
    with pytest.raises(KeyboardInterrupt):
        diagnose(engine, data, PACKS, tmp_path / "b", progress=False)
    with pytest.raises(VsreError, match="not finished"):
        load_run(tmp_path / "b")
    rest = Scripted(says_yes)
    assert diagnose(rest, data, PACKS, tmp_path / "b", progress=False) == undisturbed
    assert 0 < len(rest.prompts) < undisturbed["n_samples"]
    ids = load_run(tmp_path / "b").samples.select(["key", "pack", "template"]).to_pylist()
    assert len({tuple(row.values()) for row in ids}) == len(ids) == undisturbed["n_samples"]


def test_other_settings_are_refused(data: Path, tmp_path: Path) -> None:
    diagnose(Scripted(says_yes), data, ["test-s"], tmp_path, progress=False)
    with pytest.raises(VsreError, match=r"engine\.model: there 'scripted', now 'another'"):
        diagnose(Scripted(says_yes, name="another"), data, ["test-s"], tmp_path, progress=False)
    with pytest.raises(VsreError, match=r"limit: there None, now 2.*packs\.phase1: there None"):
        diagnose(Scripted(says_yes), data, ["test-s", "phase1"], tmp_path, limit=2, progress=False)
    other = write_data(tmp_path / "other", [t.replace(label=not t.label) for t in make_triplets(6)])
    with pytest.raises(VsreError, match="triplets: there 'sha256"):
        diagnose(Scripted(says_yes), other, ["test-s"], tmp_path, progress=False)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(VsreError, match="not the record of a run"):
        diagnose(Scripted(says_yes), data, ["test-s"], tmp_path, progress=False)


def test_what_an_earlier_version_did_not_write_down_is_not_held_against_a_run(data: Path, tmp_path: Path) -> None:
    class Told(Scripted):
        def settings(self) -> dict[str, Any]:
            return super().settings() | {"processor": "sha256:1"}

    first = diagnose(Scripted(says_yes), data, ["test-s"], tmp_path, progress=False)
    assert diagnose(Told(says_yes), data, ["test-s"], tmp_path, progress=False) == first
    diagnose(Told(says_yes), data, ["test-s"], tmp_path, progress=False, resume=False)
    with pytest.raises(VsreError, match=r"engine\.processor: there 'sha256:1', now None"):
        diagnose(Scripted(says_yes), data, ["test-s"], tmp_path, progress=False)


@pytest.mark.parametrize(
    ("triplets", "packs", "message"),
    [
        ([], ["test-s"], "no Parquet files"),
        (make_triplets(1), [], "No template pack"),
        (make_triplets(2, boxes=False), ["phase4"], "no triplet here has both"),
        (make_triplets(1), ["absent"], "absent"),
    ],
)
def test_nothing_to_ask(tmp_path: Path, triplets: list[Triplet], packs: list[str], message: str) -> None:
    data = write_data(tmp_path / "data", triplets)
    with pytest.raises(VsreError, match=message):
        diagnose(Scripted(says_yes), data, packs, tmp_path / "run", progress=False)


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from vsre.diagnose import Decoding, TransformersEngine, diagnose
engine = TransformersEngine({model!r}, batch_images=1, decoding=Decoding(2, 4))
diagnose(engine, {data!r}, {packs!r}, {out!r}, progress=False, flush_seconds=0)
"""


def test_kill_and_resume_with_a_model(tmp_path: Path) -> None:
    """kill -9 in the middle: the resumed run ends in the very samples and figures of an undisturbed one."""
    model, packs = strong_llava(tmp_path), ["phase1"]
    data = write_data(tmp_path / "data", make_triplets(12))
    out = tmp_path / "killed"
    paths = [p for p in sys.path if p]
    code = textwrap.dedent(SCRIPT).format(paths=paths, model=str(model), data=str(data), packs=packs, out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and len(list((out / "samples").glob("*.parquet"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(list((out / "samples").glob("*.parquet")))
    assert 3 <= before < 12, "killed too late to prove anything"

    said = json.loads((out / "run.json").read_text())
    assert said["engine"]["way"] == "shared prefix" and said["finished"] is None

    settings = {"batch_images": 1, "decoding": Decoding(2, 4)}
    resumed = diagnose(TransformersEngine(model, **settings), data, packs, out, progress=False)
    whole = diagnose(TransformersEngine(model, **settings), data, packs, tmp_path / "whole", progress=False)
    assert resumed == whole
    assert load_run(out).samples.equals(load_run(tmp_path / "whole").samples)
    sessions = load_run(out).run["sessions"]
    assert len(sessions) == 2 and 0 < sessions[1]["questions"] < whole["n_samples"]
    assert [s["engine"]["way"] for s in sessions] == ["shared prefix"] * 2
