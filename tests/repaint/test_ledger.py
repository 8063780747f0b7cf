"""Nothing is lost between a painted picture and its row."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_painter import NOT_THIS, QuickPainter, picture, said, write_source

from vsre.errors import VsreError
from vsre.relations.things import Verdict
from vsre.repaint import KINDS, Painted, PaintJob, Statement, Verification, repaint
from vsre.repaint.ledger import NOTES, ledger_rows, read_ledger, read_pictures, schema
from vsre.repaint.outcome import Outcome, known_text, ledger_row, painted_of
from vsre.repaint.verify import NOT_DECIDED, NOT_SHOWN
from vsre.sources.protocols import SOURCE_IMAGE
from vsre.triplets import Triplet, image_content_id, read_triplets, write_triplets

fraction = st.floats(0, 1, allow_nan=False)
boxes = st.none() | st.tuples(fraction, fraction, fraction, fraction)
words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
statements = st.builds(Statement, words, words, words, st.sampled_from(KINDS), boxes, boxes)
plain = st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False) | words
values = st.recursive(plain, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=6)
notes = st.dictionaries(st.sampled_from(sorted(NOTES)) | words, values, max_size=6)
typical = st.fixed_dictionaries(
    {},
    optional={
        "prompt": words,
        "negative_prompt": st.just("") | words,
        "generator_seed": st.integers(0, 2**63 - 1),
        "steps": st.integers(1, 100),
        "guidance": st.floats(0, 20),
        "canvas": st.lists(st.integers(8, 2000), min_size=2, max_size=2),
        "batch": st.fixed_dictionaries({"size": st.integers(1, 9), "place": st.integers(0, 8)}),
        "scheduler": st.dictionaries(words, values, max_size=3),
        "mask": st.dictionaries(words, values, max_size=3),
        "verdicts": st.lists(st.dictionaries(words, values, max_size=2), max_size=2),
        "scene": st.dictionaries(words, values, max_size=2),
    },
)


def through_parquet(row: dict[str, Any]) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row], schema), sink)
    read = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert read.schema.equals(schema)
    [back] = read.to_pylist()
    return dict(back)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(statements, min_size=1, max_size=3),
    st.lists(statements, max_size=3),
    notes | typical,
    st.sampled_from(("t2i", "i2i", "inpaint")),
    st.none() | st.booleans(),
    st.dictionaries(words, values, max_size=3),
    st.sampled_from(({}, {SOURCE_IMAGE: "sha256:photo"}, {SOURCE_IMAGE: 7})),
)
def test_a_picture_comes_back_from_its_row(
    asked: list[Statement], known: list[Statement], notes: dict[str, Any], setting: Any, truth: bool | None,
    parameters: dict[str, Any], provenance: dict[str, Any],
) -> None:  # fmt: skip
    job = PaintJob(said("1.jpg", label=False, provenance=provenance), setting, 2**47, "painter/1", parameters, truth)
    painted = Painted(job, b"file", 640, 480, tuple(asked), tuple(known), notes, "verified")
    row = through_parquet(ledger_row(Outcome(job, "painted", None, painted), place=7, shard=1, batch_number=2))
    back = painted_of(row, b"file", known_text(known))
    assert back.job.id == job.id == row["job"]
    assert back.statements == painted.statements and back.others == painted.others
    assert json.dumps(back.notes, sort_keys=True) == json.dumps(notes, sort_keys=True)
    assert back.triplets() == painted.triplets()


@settings(deadline=None, max_examples=40)
@given(boxes.filter(lambda box: box is not None), st.integers(1, 4000), st.integers(1, 4000))
def test_boxes_are_told_in_pixels_too(box: Any, width: int, height: int) -> None:
    job = PaintJob(said("1.jpg"), "t2i", 0, "p")
    statement = Statement("cat", "left of", "dog", "positive", None, box)
    painted = Painted(job, b"", width, height, (statement,))
    [told] = through_parquet(ledger_row(Outcome(job, "painted", None, painted), place=0, shard=0, batch_number=0))[
        "boxes"
    ]
    assert told["name"] == "dog"
    expected = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    assert (told["x0"], told["y0"], told["x1"], told["y1"]) == pytest.approx(expected, rel=1e-6, abs=1e-6)


class Moody:
    """Bears every other picture out, and cannot tell of some."""

    name = "moody/1"

    def verify(self, image: bytes, triplet: Triplet) -> Verification:
        said = (Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS)[image_content_id(image)[7].encode()[0] % 4]
        return Verification(said, 0.5, {"dog": (0.25, 0.0, 1.0, 0.5)}, evidence={"scores": [0.9]})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    repaint(write_source(folder / "train", 30), folder / "out", painter=QuickPainter, verifier=Moody(), shard_jobs=48)
    return folder / "out"


def test_every_job_has_one_row_in_the_plans_order(out: Path) -> None:
    table = read_ledger(out)
    assert table.schema.equals(schema)
    jobs = pq.read_table(out / "plan" / "jobs.parquet").column("job").to_pylist()
    assert table["job"].to_pylist() == jobs and table["place"].to_pylist() == list(range(90))
    assert table["shard"].to_pylist() == [0] * 48 + [1] * 42
    assert read_ledger(out, ["status", "job"]).column_names == ["status", "job"]
    with pytest.raises(VsreError, match="no column 'colour'"):
        read_ledger(out, ["colour"])
    with pytest.raises(VsreError, match="no ledger"):
        read_ledger(out / "plan")


def test_a_ledger_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    """Its shards say nothing of what their sources were made from; those painted now do."""
    made_from = {SOURCE_IMAGE: "sha256:photo"}
    write_triplets(tmp_path / "train", [said(f"{n}.jpg", provenance=made_from) for n in range(24)])
    arguments: dict[str, Any] = {"painter": QuickPainter, "settings": ("t2i",), "shard_jobs": 16}
    repaint(tmp_path / "train", tmp_path / "out", **arguments)
    assert {t.provenance[SOURCE_IMAGE] for t in read_triplets(tmp_path / "out")} == {"sha256:photo"}
    old, new = sorted((tmp_path / "out" / "ledger").iterdir())
    pq.write_table(pq.read_table(old).drop_columns(["source_made_from"]), old)
    for file in (new, tmp_path / "out" / "repaint.json"):
        file.unlink()
    repaint(tmp_path / "train", tmp_path / "out", **arguments)
    table = read_ledger(tmp_path / "out")
    assert table.schema.equals(schema)
    firsts = [None] * 16 + ["sha256:photo"] * 8
    assert table["source_made_from"].to_pylist() == firsts
    assert read_ledger(tmp_path / "out", ["source_made_from"])["source_made_from"].to_pylist() == firsts
    sources = {t.provenance[SOURCE_IMAGE] for t in read_triplets(tmp_path / "out")}
    assert "sha256:photo" in sources and any(source.startswith("name:") for source in sources)


def test_each_status_says_what_there_is_to_say(out: Path) -> None:
    rows = list(ledger_rows(out))
    by_status: dict[str, list[dict[str, Any]]] = {"painted": [], "rejected": [], "refused": []}
    for row in rows:
        by_status[row["status"]].append(row)
    assert all(by_status.values())
    assert {row["reason"] for row in by_status["refused"]} == {NOT_THIS}
    assert all(row["picture"] is None and row["statements"] is None for row in by_status["refused"])
    assert {row["reason"] for row in by_status["rejected"]} <= {NOT_SHOWN, NOT_DECIDED}
    assert {row["truth"] for row in by_status["rejected"]} == {"intended"}
    assert {row["truth"] for row in by_status["painted"]} == {"verified"}
    assert all(row["safety"] is None and row["seconds"] > 0 for row in rows)
    for row in by_status["painted"] + by_status["rejected"]:
        [verdict] = row["verdicts"]
        assert row["verifier"] == "moody/1" and verdict["evidence"] == {"scores": [0.9]}
        assert row["pixels"] == "ok" and row["dhash"] and (row["width"], row["height"]) == (16, 16)
        [statement] = row["statements"]
        assert statement["caption"] == row["caption"] and statement["object_box"] == [0.25, 0.0, 1.0, 0.5]
        assert row["prompt"] == row["caption"] and row["batch"]["size"] == 48 - 6 * (row["shard"] == 1)
    aside = [json.loads(line) for line in (out / "set_aside.jsonl").read_text().splitlines()]
    assert {line["job"] for line in aside} == {row["job"] for row in rows if row["status"] != "painted"}


def test_pictures_are_read_by_job_those_turned_down_too(out: Path) -> None:
    rows = {row["job"]: row for row in ledger_rows(out, ["job", "status", "batch", "reason"])}
    pictures = dict(read_pictures(out, rows))
    assert set(pictures) == {job for job, row in rows.items() if row["status"] != "refused"}
    for job, image in pictures.items():
        assert image == picture(job, sum(rows[job]["batch"].values()))
    one = max(pictures)
    assert dict(read_pictures(out, [one])) == {one: pictures[one]}
    with pytest.raises(VsreError, match="no job 'x'"):
        list(read_pictures(out, ["x", one]))


def test_long_texts_that_repeat_stand_once(out: Path) -> None:
    table = read_ledger(out)
    for name in ("parameters", "verifier", "status", "painter", "reason"):
        assert pa.types.is_dictionary(table.schema.field(name).type)
    assert len(table["parameters"].unify_dictionaries().chunk(0).dictionary) == 1
