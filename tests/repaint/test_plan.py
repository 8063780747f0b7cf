import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from quick_painter import QuickPainter, said, write_source

from vsre.errors import VsreError
from vsre.repaint import ScenePainter, Vocabulary, repaint
from vsre.repaint.plan_files import Plan, read_plan
from vsre.repaint.planning import make_plan
from vsre.repaint.source import SourceRows, row_digest
from vsre.repaint.specs import Diffusion, Scenes, VerifierSpec
from vsre.repaint.verify import SceneTruth
from vsre.triplets import Triplet, read_triplets, to_row, triplet_schema, write_triplets


def plan(source: Path, out: Path, **changes: Any) -> Plan:
    return make_plan(source, out, **{"painter": QuickPainter, "shard_jobs": 12, **changes})[0]


def test_a_plan_has_a_row_a_job_in_order(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 10)
    made = plan(source, tmp_path / "out", per_triplet=2)
    rows = pq.read_table(tmp_path / "out" / "plan" / "jobs.parquet").to_pylist()
    assert len(rows) == made.head.jobs == 10 * 3 * 2 and len({row["job"] for row in rows}) == 60
    assert [row["row"] for row in rows] == [n for n in range(10) for _ in range(6)]
    keys = [t.key for t in read_triplets(source)]
    assert all(row["source_key"] == keys[row["row"]] for row in rows)
    # Four pictures of each of three settings at once, four times over; a shard is one batch at least.
    assert made.head.batch_jobs == made.head.shard_jobs == 48 and made.shards == 2
    assert [row["shard"] for row in rows] == [n // 48 for n in range(60)] and made.jobs_in(1) == 12
    painter = QuickPainter(made.vocabulary())
    batches = [batch for shard in range(2) for batch in made.batches(shard, SourceRows(source), painter)]
    jobs = [planned for batch in batches for planned in batch]
    assert [p.job.id for p in jobs] == [row["job"] for row in rows] and [p.place for p in jobs] == list(range(60))


def test_rows_are_found_where_they_lie(tmp_path: Path) -> None:
    """Also in large row groups and several files."""
    rows = [said(f"{n}.jpg", image=bytes([n]) * 5) for n in range(200)]
    write_triplets(tmp_path / "a", rows[:150], rows_per_file=70)
    table = pa.Table.from_pylist([to_row(row) for row in rows[150:]], triplet_schema())
    pq.write_table(table, tmp_path / "a" / "part-99999.parquet", row_group_size=1000)
    source = SourceRows(tmp_path / "a")
    assert source.count == 200
    wanted = [199, 0, 69, 70, 149, 150, 151, 160]
    assert source.read(wanted, images=True) == {n: rows[n] for n in wanted}
    assert source.read([3], images=False) == {3: rows[3].replace(image=None)}
    with pytest.raises(VsreError, match="no row 200"):
        source.read([200], images=False)


def test_a_triplet_that_says_anything_else_has_another_digest() -> None:
    one, box = said("1.jpg"), (0.0, 0.0, 1.0, 1.0)
    others = {f.name: "x" for f in dataclasses.fields(Triplet) if f.type == "str"}
    others |= {"label": False, "width": 3, "height": 3, "subject_box": box, "object_box": box, "provenance": {"a": 1}}
    assert {*others, "image"} == {f.name for f in dataclasses.fields(Triplet)}
    digests = {row_digest(one.replace(**{name: value})) for name, value in others.items()}
    assert len(digests | {row_digest(one)}) == 1 + len(others)
    assert row_digest(one.replace(image=b"x")) == row_digest(one), "a picture is known by its id"


def test_the_same_arguments_give_the_same_plan(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 6)
    first = plan(source, tmp_path / "a")
    assert plan(source, tmp_path / "b").digest == first.digest == read_plan(tmp_path / "a").digest
    before = (tmp_path / "a" / "plan" / "plan.json").stat().st_mtime_ns
    assert plan(source, tmp_path / "a") == first
    assert (tmp_path / "a" / "plan" / "plan.json").stat().st_mtime_ns == before


class OtherRevision(QuickPainter):
    name = "quick/2"


class OtherNumbers(QuickPainter):
    parameters = {"side": 17}  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"per_triplet": 2}, "per_triplet: 1 there, 2 now"),
        ({"limit": 3}, "rows: 6 there, 3 now"),
        ({"settings": ("t2i",)}, "settings"),
        ({"painter": OtherRevision}, "painter: 'quick/1' there, 'quick/2' now"),
        ({"painter": OtherNumbers}, "parameters.t2i.side: 16 there, 17 now"),
        ({"verifier": SceneTruth()}, "verifier: None there, 'scene-truth/1' now"),
        ({"shard_jobs": 96}, "shard_jobs: 48 there, 96 now"),
        ({"allow_held_out": True}, "held_out.allowed: False there, True now"),
    ],
)
def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    source = write_source(tmp_path / "train", 6)
    plan(source, tmp_path / "out")
    with pytest.raises(VsreError, match=r"holds another plan.*choose another folder") as told:
        plan(source, tmp_path / "out", **changes)
    assert what in str(told.value)


def test_other_sources_and_held_out_rows_make_another_plan(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 6)
    plan(source, tmp_path / "out")
    write_triplets(tmp_path / "test", [said("x.jpg", "bus", split="test")])
    with pytest.raises(VsreError, match=r"held_out\.captions: 0 there, 1 now"):
        plan(source, tmp_path / "out")
    plan(source, tmp_path / "more")
    write_triplets(tmp_path / "test", [said("y.jpg", "bus", split="test")])
    with pytest.raises(VsreError, match=r"held_out\.folders: "):
        plan(source, tmp_path / "more")
    write_triplets(source, [said(f"{n}.jpg", "cat", label=False) for n in range(6)])
    with pytest.raises(VsreError, match="source: "):
        plan(source, tmp_path / "more")


def test_a_source_that_changed_behind_the_plan_is_found(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 6)
    made = plan(source, tmp_path / "out")
    rows = list(read_triplets(source))
    write_triplets(source, [rows[0], rows[1].replace(provenance={"boxes": "others"}), *rows[2:]])
    with pytest.raises(VsreError, match="row 1: not the triplet that the plan was made with"):
        list(made.batches(0, SourceRows(source), QuickPainter(Vocabulary((), frozenset()))))


def test_a_triplet_twice_is_planned_once(tmp_path: Path) -> None:
    write_triplets(tmp_path / "train", [said("1.jpg"), said("2.jpg"), said("1.jpg")])
    summary = repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",), painter=ScenePainter)
    assert summary["images"] == 2 and summary["refused"] == {"the same triplet stands in the source before": 1}


def test_words_and_specs_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.verify.build_verifier", lambda name, **options: SceneTruth())
    write_triplets(tmp_path / "train", [said("1.jpg")])
    write_triplets(tmp_path / "dev", [said("2.jpg", "bus", split="dev")])
    spec, verifier = Scenes(size=64), VerifierSpec(verifier="scene-truth")
    made, painter = make_plan(tmp_path / "train", tmp_path / "out", spec, verifier=verifier)
    again = read_plan(tmp_path / "out")
    assert again.vocabulary() == painter.vocabulary and again.vocabulary().pairs == {("bus", "dog")}
    assert again.head.made_with.painter == spec and again.head.made_with.verifier == verifier
    assert again.head == made.head


def test_weights_in_a_folder_are_found_from_anywhere(
    tmp_path: Path, tiny_sdxl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_sdxl import tiny_config

    monkeypatch.chdir(tiny_sdxl_folder.parent)
    config = tiny_config(Path(tiny_sdxl_folder.name)).changed(inpaint_unet={"model": "some/hub-id"})
    spec = Diffusion(config=config).anywhere()
    assert spec.config.model == str(tiny_sdxl_folder) and spec.config.inpaint_unet.model == "some/hub-id"
    assert spec.config.changed(model="model") == config


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "plan.json").unlink(), "no plan in there"),
        (lambda folder: (folder / "plan.json").write_text("{"), "not a plan that this version reads"),
        (lambda folder: (folder / "vocabulary.json").write_text("[]"), "vocabulary.json: missing or damaged"),
        (lambda folder: (folder / "jobs.parquet").write_bytes(b"PAR1"), "jobs.parquet: missing or damaged"),
    ],
)
def test_a_damaged_plan_is_told(tmp_path: Path, damage: Any, message: str) -> None:
    source = write_source(tmp_path / "train", 3)
    plan(source, tmp_path / "out")
    damage(tmp_path / "out" / "plan")
    with pytest.raises(VsreError, match=message):
        made = read_plan(tmp_path / "out")
        made.vocabulary()
        made.rows(0)


def test_a_plan_stopped_half_way_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source(tmp_path / "train", 3)
    monkeypatch.setattr("vsre.repaint.planning.row_digest", lambda row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plan(source, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(VsreError, match="no plan in there"):
        read_plan(tmp_path / "out")
    assert plan(source, tmp_path / "out").head.jobs == 9


def test_the_photos_licences_are_taken_from_coco(tmp_path: Path) -> None:
    own = said("3.jpg", provenance={"license": "CC0"})
    write_triplets(tmp_path / "train", [said("1.jpg"), said("2.jpg"), own, said("4.jpg")])
    coco = {
        "licenses": [{"id": 4, "name": "Attribution License", "url": "u"}, {"id": 7, "url": "no name"}],
        "images": [{"id": 1, "file_name": "1.jpg", "license": 4}, {"id": 2, "file_name": "2.jpg", "license": 7},
                   {"id": 4, "file_name": "4.jpg", "license": 99}],
        "annotations": [], "categories": [],
    }  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    summary = repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",), instances=[tmp_path / "instances.json"])
    assert summary["source_licences"] == {"Attribution License": 1, "no name": 1, "CC0": 1, "unknown": 1}
    told: dict[str, Any] = {}
    for row in read_triplets(tmp_path / "out"):
        told[row.provenance["source_image_id"]] = row.provenance.get("source_licence")
    assert told == {
        "name:1.jpg": "Attribution License",
        "name:2.jpg": "no name",
        "name:3.jpg": "CC0",
        "name:4.jpg": None,
    }
    with pytest.raises(VsreError, match=r"none\.json: no such file"):
        repaint(tmp_path / "train", tmp_path / "other", instances=[tmp_path / "none.json"])
    (tmp_path / "bad.json").write_text('{"licenses": [1]}')
    with pytest.raises(VsreError, match="not as in COCO"):
        repaint(tmp_path / "train", tmp_path / "other", instances=[tmp_path / "bad.json"])


def test_licences_are_part_of_the_plan(tmp_path: Path) -> None:
    source = write_source(tmp_path / "train", 2)
    plan(source, tmp_path / "out")
    coco = {"licenses": [{"id": 1, "name": "x"}], "images": [{"file_name": "0.jpg", "license": 1}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(VsreError, match="licences: None there"):
        plan(source, tmp_path / "out", instances=[tmp_path / "coco.json"])
