"""The parts of a run's samples: numbered on, damaged, without errors, and as earlier versions wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from diagnose_data import Scripted, make_triplets, write_data

import vsre.diagnose.samples
from vsre.diagnose import Interrupted, Prompt, Reply, diagnose, load_run
from vsre.diagnose.samples import SCHEMA, drop_errors, read_samples, sample_files, write_part
from vsre.errors import VsreError


def rows(*keys: str, error: str | None = None) -> list[dict[str, Any]]:
    return [{"key": key, "error": error} for key in keys]


def keys(folder: Path) -> list[str]:
    return read_samples(folder, ["key"])["key"].to_pylist()


def test_a_part_is_numbered_behind_the_last_one(tmp_path: Path) -> None:
    for key in "abc":
        write_part(tmp_path, rows(key))
    (tmp_path / "part-00001.parquet").unlink()
    assert write_part(tmp_path, rows("d")).name == "part-00003.parquet"
    assert keys(tmp_path) == ["a", "c", "d"]


@pytest.mark.parametrize("length", [0, 50, -20])
def test_a_damaged_part_says_what_to_do(tmp_path: Path, length: int) -> None:
    data = write_data(tmp_path / "data", make_triplets(4))
    engine = Scripted(lambda prompt: Reply("Yes"), batch_images=1)
    whole = diagnose(engine, data, ["test-s"], tmp_path / "run", progress=False, flush_seconds=0)
    parts = sample_files(tmp_path / "run" / "samples")
    parts[1].write_bytes(parts[1].read_bytes()[:length])
    with pytest.raises(VsreError, match=r"part-00001\.parquet: damaged.*Delete this file.*asks its questions again"):
        diagnose(engine, data, ["test-s"], tmp_path / "run", progress=False)
    parts[1].unlink()
    again = Scripted(lambda prompt: Reply("Yes"))
    assert diagnose(again, data, ["test-s"], tmp_path / "run", progress=False) == whole
    assert len(again.prompts) == 2 and parts[-1].is_file()


def test_errors_are_dropped_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between two parts loses errors only, and no question is ever there twice."""
    write_part(tmp_path, rows("a", "b"))
    write_part(tmp_path, rows("c") + rows("d", error="500"))
    write_part(tmp_path, rows("e", error="500"))
    write_part(tmp_path, rows("f", error="500") + rows("g"))
    called: list[list[str]] = []
    write = vsre.diagnose.samples._write

    def killed(path: Path, table: pa.Table) -> None:
        if path.name == "part-00003.parquet":
            raise KeyboardInterrupt
        write(path, table)

    monkeypatch.setattr(vsre.diagnose.samples, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_errors(tmp_path, lambda: called.append(keys(tmp_path)))
    assert called == [list("abcdefg")] and keys(tmp_path) == list("abcfg")
    monkeypatch.undo()
    assert drop_errors(tmp_path) == 1 and keys(tmp_path) == list("abcg")
    assert drop_errors(tmp_path, lambda: pytest.fail("there is nothing to drop")) == 0
    assert drop_errors(tmp_path / "absent") == 0


def test_files_of_earlier_versions(tmp_path: Path) -> None:
    """Without a column that was added later; without one that was always there a file is none of ours."""
    old = pa.Table.from_pylist([{"key": "a"}], schema=SCHEMA).drop_columns(["cut"])
    pq.write_table(old, tmp_path / "part-00000.parquet")
    write_part(tmp_path, [{"key": "b", "cut": True}])
    assert read_samples(tmp_path)["cut"].to_pylist() == [None, True]
    assert read_samples(tmp_path).schema.names == SCHEMA.names
    assert read_samples(tmp_path, ["cut", "key"]).to_pylist() == [{"cut": None, "key": "a"}, {"cut": True, "key": "b"}]
    pq.write_table(old.drop_columns(["prompt"]), tmp_path / "part-00000.parquet")
    with pytest.raises(VsreError, match=r"part-00000\.parquet: the columns prompt are missing"):
        read_samples(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), make_triplets(6))


def test_errors_of_samples_and_probes_are_asked_again(data: Path, tmp_path: Path) -> None:
    def sick(prompt: Prompt) -> Reply:
        return Reply(error="out of memory") if "cat" in prompt.text else well(prompt)

    def well(prompt: Prompt) -> Reply:
        return Reply.yes_no("Yes", -0.1, -2.0)

    options: dict[str, Any] = {"probes": 12, "progress": False}
    before = diagnose(Scripted(sick), data, ["phase1"], tmp_path / "run", **options)
    probes = read_samples(tmp_path / "run" / "probes")
    broken = len(probes) - probes["error"].null_count
    assert before["errors"] and broken
    told = [warning for warning in before["warnings"] if "--retry-errors" in warning]
    assert len(told) == 1 and told[0].startswith(f"{before['errors'] + broken} questions ({broken} of the probes")
    engine = Scripted(well)
    assert diagnose(engine, data, ["phase1"], tmp_path / "run", **options) == before and not engine.prompts
    after = diagnose(engine, data, ["phase1"], tmp_path / "run", **options, retry_errors=True)
    assert len(engine.prompts) == before["errors"] + broken and not after["warnings"]
    assert after == diagnose(Scripted(well), data, ["phase1"], tmp_path / "whole", **options)
    sessions = load_run(tmp_path / "run").run["sessions"]
    assert [s.get("asked_again") for s in sessions] == [None, None, before["errors"] + broken]
    for part in ("samples", "probes"):
        ids = read_samples(tmp_path / "run" / part, ["key", "pack", "template"]).to_pylist()
        assert len({tuple(row.values()) for row in ids}) == len(ids)
    assert diagnose(engine, data, ["phase1"], tmp_path / "run", **options, retry_errors=True) == after


def test_a_retry_that_stops_leaves_a_run_that_goes_on(data: Path, tmp_path: Path) -> None:
    class Gone(Scripted):
        def answer(self, asked: Any) -> list[list[Reply]]:
            raise Interrupted("gone", [[None] * len(prompts) for _, prompts in asked])

    diagnose(Scripted(lambda p: Reply(error="500")), data, ["test-s"], tmp_path, progress=False)
    with pytest.raises(Interrupted):
        diagnose(Gone(None), data, ["test-s"], tmp_path, progress=False, retry_errors=True)
    with pytest.raises(VsreError, match="not finished"):  # its figures were those of the errors
        load_run(tmp_path)
    assert diagnose(Scripted(lambda p: Reply("Yes")), data, ["test-s"], tmp_path, progress=False)["errors"] == 0


def test_versions_stand_in_every_session(data: Path, tmp_path: Path) -> None:
    def tires(prompt: Prompt) -> Reply:
        if len(engine.prompts) > 8:
            raise KeyboardInterrupt
        return Reply("Yes")

    engine = Scripted(tires)
    with pytest.raises(KeyboardInterrupt):
        diagnose(engine, data, ["test-s"], tmp_path, progress=False)
    record = json.loads((tmp_path / "run.json").read_text())
    record["sessions"][0]["versions"]["torch"] = "1.0"
    record["sessions"][0]["vsre"] = "0.0.1"
    (tmp_path / "run.json").write_text(json.dumps(record))
    metrics = diagnose(Scripted(lambda p: Reply("Yes")), data, ["test-s"], tmp_path, progress=False)
    found = load_run(tmp_path).run
    now = found["versions"]["torch"]
    (told,) = metrics["warnings"]
    assert f"(vsre 0.0.1, then {found['vsre']}; torch 1.0, then {now})" in told
    assert [s["versions"]["torch"] for s in found["sessions"]] == ["1.0", now]
    # A session that asks nothing brings no answers under its versions.
    record = found | {"sessions": [*found["sessions"][:1], {"started": "now", "vsre": "9", "versions": {"torch": "9"}}]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert diagnose(Scripted(None), data, ["test-s"], tmp_path, progress=False)["warnings"] == []


def test_versions_of_records_that_kept_them_once(data: Path, tmp_path: Path) -> None:
    sick = Scripted(lambda p: Reply("Yes") if "cat" in p.text else Reply(error="500"))
    diagnose(sick, data, ["test-s"], tmp_path, progress=False)
    record = json.loads((tmp_path / "run.json").read_text())
    for name in ("vsre", "versions", "answered"):
        del record["sessions"][0][name]
    record["versions"]["numpy"] = "1.0"
    (tmp_path / "run.json").write_text(json.dumps(record))
    metrics = diagnose(Scripted(lambda p: Reply("Yes")), data, ["test-s"], tmp_path, progress=False, retry_errors=True)
    (told,) = metrics["warnings"]
    assert "(numpy 1.0, then" in told
