"""The expanded test sets as a data set: what `datasets` opens, what is asked, what is left out, how it is stored."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from diagnose_data import Scripted, make_triplets, picture, write_data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vsre.lmms.testset
from vsre.diagnose import Reply, diagnose, load_run
from vsre.errors import VsreError
from vsre.lmms.card import plain
from vsre.lmms.folder import read_summary
from vsre.lmms.testset import config_name, features, write_testset
from vsre.triplets import Triplet

DATA = os.environ.get("VSRE_TEST_DATA")


def opened(folder: Path, config: str, cache: Path) -> Any:
    return load_dataset(str(folder), config, split="test", cache_dir=str(cache))


def test_load_dataset_opens_every_configuration(testset_folder: Path, tmp_path: Path) -> None:
    sizes = {config: len(opened(testset_folder, config, tmp_path)) for config in ("test_s", "test_g", "unseen")}
    assert sizes == {"test_s": 12, "test_g": 600, "unseen": 144}
    first = opened(testset_folder, "test_g", tmp_path)[0]
    assert isinstance(first["image"], Image.Image) and first["image"].size == (64, 48)
    assert set(first) == set(features())
    assert load_dataset(str(testset_folder), cache_dir=str(tmp_path))["test"].num_rows == 12  # Test-S is the default


def test_a_row_is_the_question_that_a_diagnosis_asks(
    triplets_folder: Path, testset_folder: Path, tmp_path: Path
) -> None:
    engine = Scripted(lambda prompt: Reply.yes_no("Yes", -0.1, -2.0))
    diagnose(engine, triplets_folder, ["test-s", "pool", "held-out"], tmp_path / "run", progress=False)
    run = load_run(tmp_path / "run")
    names = ["key", "template", "pack", "prompt", "truth", "caption", "image_id", "meta_category", "subject", "object"]
    asked = {(r["key"], r["pack"], r["template"]): r for r in run.samples.select(names).to_pylist()}
    found = [r for config in ("test_s", "test_g", "unseen") for r in opened(testset_folder, config, tmp_path / "cache")]
    assert len(found) == len(asked) == 756
    for row in found:
        assert asked[row["key"], row["pack"], row["template"]] == {name: row[name] for name in names}
        assert row["id"] == f"{row['key']}/{row['template']}"
    assert read_summary(testset_folder)["fingerprint"] == run.run["settings"]["triplets"]


def test_the_card_names_configurations_and_limits(testset_folder: Path) -> None:
    text = (testset_folder / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    content = yaml.safe_load(front)
    assert [c["config_name"] for c in content["configs"]] == ["test_s", "test_g", "unseen"]
    assert "license" not in content and "# license:" in front
    assert {f["name"] for f in content["dataset_info"][0]["features"]} == set(features())
    assert "12 statements\nabout 6 pictures, 50.0 % of them true" in body
    assert "| `test_g` | pool | 50 | 600 |" in body
    for limit in ("protocol `clean`", "No votes came with these labels", "Left out when this was written: nothing."):
        assert limit in body


def test_votes_and_licence_reach_the_card(tmp_path: Path) -> None:
    def voted(t: Triplet, against: list[int]) -> Triplet:
        sides = ("vote_false_validator_id", "vote_true_validator_id")
        told = dict(zip(sides if t.label else sides[::-1], (against, [1, 2]), strict=True))
        return t.replace(provenance={"audit": told})

    triplets = [voted(t, [7] if i < 3 else []) for i, t in enumerate(make_triplets(4))]
    folder = write_data(tmp_path / "data", triplets)
    summary = write_testset(folder, tmp_path / "set", ["test-s"], licence="cc-by-4.0")
    assert summary["votes"] == {"known": 8, "with_dissent": 3}
    text = (tmp_path / "set" / "README.md").read_text("utf-8")
    assert "license: cc-by-4.0\n" in text and "3 of the 8 statements with votes (37.5 %)" in text


@given(st.text(max_size=60))
def test_text_from_data_stays_one_cell_of_a_table(text: str) -> None:
    cell = plain(text)
    assert len(cell.splitlines()) <= 1
    assert all(before == "\\" for before, c in zip("x" + cell, cell, strict=False) if c in "|<`")


def test_bad_pictures_are_set_aside_with_their_row_and_cost_nobody_else(tmp_path: Path) -> None:
    triplets = make_triplets(4)
    triplets[2:4] = [t.replace(image=b"no picture") for t in triplets[2:4]]
    triplets[6:8] = [t.replace(image=None) for t in triplets[6:8]]
    folder = write_data(tmp_path / "data", [*triplets, triplets[0]])
    summary = write_testset(folder, tmp_path / "set", ["test-s"])
    assert summary["triplets"] == 4 and summary["images"] == 2
    assert summary["set_aside"] == {"picture cannot be opened": 2, "no picture": 2}
    assert summary["skipped"]["duplicate_rows"] == 1
    lines = [json.loads(line) for line in (tmp_path / "set" / "set_aside.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [3, 4, 7, 8]
    assert triplets[2].caption in lines[0]["content"]
    assert "2 statements (no picture)" in (tmp_path / "set" / "README.md").read_text("utf-8")


def test_nothing_to_ask_says_why(tmp_path: Path) -> None:
    bare = write_data(tmp_path / "bare", [t.replace(image=None) for t in make_triplets(2)])
    with pytest.raises(VsreError, match="none of the 4 rows can be used"):
        write_testset(bare, tmp_path / "set", ["test-s"])
    empty = write_data(tmp_path / "empty", make_triplets(1)[:0])
    with pytest.raises(VsreError):
        write_testset(empty, tmp_path / "set2", ["test-s"])
    boxes = tmp_path / "boxes.yaml"
    boxes.write_text(
        "name: boxes\ntemplates:\n  - {id: b, text: '{question} {subject_box} {object_box}', format: yes-no}\n"
    )
    unboxed = write_data(tmp_path / "unboxed", make_triplets(2, boxes=False))
    with pytest.raises(VsreError, match="no triplet here has both"):
        write_testset(unboxed, tmp_path / "set3", [boxes])
    with pytest.raises(VsreError, match="each once"):
        write_testset(unboxed, tmp_path / "set4", ["test-s", "test-s"])


def test_boxes_that_are_not_known_are_counted(triplets_folder: Path, tmp_path: Path) -> None:
    summary = write_testset(triplets_folder, tmp_path / "set", ["diagnosis"])
    # 4 of 12 triplets have no boxes, and 21 of 69 templates give them
    assert summary["skipped"]["no_boxes"] == 4 * 21
    assert summary["configs"]["diagnosis"]["questions"] == 12 * 69 - 4 * 21
    assert sum(t["questions"] for t in summary["configs"]["diagnosis"]["templates"]) == 12 * 69 - 4 * 21


def test_limit_takes_whole_pictures(triplets_folder: Path, tmp_path: Path) -> None:
    assert write_testset(triplets_folder, tmp_path / "set", ["test-s"], limit=3)["triplets"] == 4
    with pytest.raises(VsreError, match="limit is 0"):
        write_testset(triplets_folder, tmp_path / "set", ["test-s"], limit=0)


def test_written_again_it_replaces_itself_and_nothing_else(triplets_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    write_testset(triplets_folder, out, ["test-s", "pool"])
    assert len(opened(out, "test_s", tmp_path / "cache")) == 12
    write_testset(triplets_folder, out, ["test-s"], limit=2)
    assert not (out / "test_g").exists()
    assert len(opened(out, "test_s", tmp_path / "cache")) == 2
    with pytest.raises(VsreError, match="no Parquet files"):
        write_testset(tmp_path / "mistyped", out, ["test-s"])
    assert read_summary(out)["triplets"] == 2  # still there
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(VsreError, match="something else"):
        write_testset(triplets_folder, tmp_path / "mine", ["test-s"])
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


def test_a_killed_one_says_so_and_starts_over(
    triplets_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vsre.lmms.testset, "write_card", killed)
        with pytest.raises(KeyboardInterrupt):
            write_testset(triplets_folder, tmp_path / "set", ["test-s"])
    with pytest.raises(VsreError, match="not written to its end"):
        read_summary(tmp_path / "set")
    assert write_testset(triplets_folder, tmp_path / "set", ["pool"])["finished"]
    assert not (tmp_path / "set" / "test_s").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "damaged"),
        ('{"format": 99}', "format 99"),
        ("[]", "format None"),
        ('{"format": 1, "finished": true, "configs": {"../up": {}}}', "no folder can be called"),
    ],
)
def test_a_summary_that_cannot_be_trusted_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "testset.json").write_text(content)
    with pytest.raises(VsreError, match=says):
        read_summary(tmp_path)


def test_a_picture_is_stored_once_for_its_questions(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", make_triplets(3, per_image=24))
    write_testset(data, tmp_path / "set", ["pool"])
    file = pq.ParquetFile(tmp_path / "set" / "test_g" / "test-00000.parquet")
    groups = [file.read_row_group(i, columns=["image_id"])["image_id"].unique() for i in range(file.num_row_groups)]
    assert [g.to_pylist() for g in groups] == [[t.image_id] for t in make_triplets(3, per_image=1)]
    column = next(i for i in range(file.metadata.num_columns) if file.schema.column(i).path == "image.bytes")
    stored = file.metadata.row_group(0).column(column).total_uncompressed_size
    assert file.metadata.row_group(0).num_rows == 24 * 50
    assert stored < 2 * len(picture(0)) + 4 * 1200


def test_row_groups_stay_small_when_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader unpacks a picture for each of its rows, so large pictures share less."""
    size = len(picture(0))
    monkeypatch.setattr(vsre.lmms.testset, "ROW_GROUP_BYTES", 100 * size)
    write_testset(write_data(tmp_path / "data", make_triplets(1, per_image=6)), tmp_path / "set", ["pool"])
    file = pq.ParquetFile(tmp_path / "set" / "test_g" / "test-00000.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 100]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_questions(tmp_path: Path) -> None:
    """Ten times the questions, the same peak."""
    program = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        sys.path[:0] = [sys.argv[1], sys.argv[1] + "/.."]
        from diagnose_data import make_triplets, write_data
        from vsre.lmms.testset import write_testset
        from vsre.triplets import read_triplets, write_triplets, image_content_id
        few = make_triplets(10, 20)
        def many():
            for n in range(int(sys.argv[3])):
                for t in few:
                    data = t.image + str(n).encode()
                    yield t.replace(image=data, image_id=image_content_id(data))
        out = Path(sys.argv[2])
        write_triplets(out / "data", many())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        summary = write_testset(out / "data", out / "set", ["pool"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(summary["configs"]["test_g"]["questions"], before, peak)
    """)
    here = str(Path(__file__).parent.parent / "diagnose")
    grown = {}
    for times in (1, 10):
        command = [sys.executable, "-c", program, here, str(tmp_path / str(times)), str(times)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        questions, before, peak = map(int, done.stdout.split())
        assert questions == times * 200 * 50
        grown[times] = (peak - before) / 1024
    assert grown[10] < grown[1] + 40, f"MB grown: {grown}"


def test_own_pictures_of_any_kind_are_kept_as_they_are(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40000, "uint16")).save(file, "PNG")
    triplets = [t.replace(image=file.getvalue(), image_id="sha256:16") for t in make_triplets(1)]
    write_testset(write_data(tmp_path / "data", triplets), tmp_path / "set", ["test-s"])
    table = pq.read_table(tmp_path / "set" / "test_s")
    assert table["image"].to_pylist()[0]["bytes"] == file.getvalue()


def test_config_names() -> None:
    assert [config_name(p) for p in ("test-s", "pool", "held-out", "my.pack-2")] == [
        "test_s", "test_g", "unseen", "my_pack_2",
    ]  # fmt: skip


@pytest.mark.skipif(DATA is None, reason="VSRE_TEST_DATA names no folder with vsr/annotations (set by .ci/run)")
def test_real_captions_and_labels(tmp_path: Path) -> None:
    """VSR's zero-shot test, each image drawn from its boxes: 1,222 statements, 16.2 % with a vote against the label."""
    from vsre.sources.layouts import write_layouts

    vsr = Path(str(DATA)) / "vsr"
    write_layouts(vsr / "annotations", tmp_path / "data", instances=[vsr / "boxes.jsonl.gz"], split="zero-shot")
    summary = write_testset(tmp_path / "data" / "test", tmp_path / "set")
    assert (summary["triplets"], summary["images"]) == (1222, 715)
    assert summary["votes"] == {"known": 1222, "with_dissent": 198}
    assert {name: c["questions"] for name, c in summary["configs"].items()} == {
        "test_s": 1222, "test_g": 61_100, "unseen": 14_664,
    }  # fmt: skip
