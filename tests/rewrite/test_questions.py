"""Questions on disk: what is written, what is sampled, and that it is the same every time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from vsre.errors import VsreError
from vsre.relations.grammar import caption
from vsre.rewrite import Question, ask, load_pack, read_questions, rewrite
from vsre.triplets import Triplet, write_triplets


def triplets(count: int, *, boxes: int = 0) -> list[Triplet]:
    box = (0.1, 0.2, 0.3, 0.4)
    return [
        Triplet(
            image_id=f"name:{i}.jpg",
            image_name=f"{i}.jpg",
            subject="cat",
            relation="contains" if i % 3 else "left of",
            object="dog",
            caption=caption("cat", "contains" if i % 3 else "left of", "dog"),
            label=i % 2 == 0,
            split="train" if i % 5 else "test",
            origin="test",
            image=b"not read",
            subject_box=box if i < boxes else None,
            object_box=box if i < boxes else None,
        )
        for i in range(count)
    ]


def test_every_template_of_every_triplet(tmp_path: Path) -> None:
    rows = triplets(7)
    write_triplets(tmp_path / "t", rows)
    summary = rewrite(tmp_path / "t", tmp_path / "q", "stage1")
    assert list(read_questions(tmp_path / "q")) == [ask(t, r) for r in rows for t in load_pack("stage1").templates]
    assert (summary["triplets"], summary["questions"], summary["not_asked"], summary["repeated"]) == (
        7,
        70,
        0,
        0,
    )
    assert json.loads((tmp_path / "q/rewrite.json").read_text()) == summary


def test_a_draw_does_not_hang_on_the_rest_of_the_data(tmp_path: Path) -> None:
    rows = triplets(60)
    drawn: list[dict[str, list[str]]] = []
    for name, some, seed in (("a", rows, 1), ("b", rows[::-1][:30], 1), ("c", rows, 2)):
        write_triplets(tmp_path / name, some)
        rewrite(tmp_path / name, tmp_path / f"q{name}", "pool", per_triplet=5, seed=seed)
        templates: dict[str, list[str]] = {}
        for question in read_questions(tmp_path / f"q{name}"):
            templates.setdefault(question.key, []).append(question.template)
        assert list(templates) == [t.key for t in some]
        assert all(len(set(ids)) == 5 and ids == sorted(ids) for ids in templates.values())
        drawn.append(templates)
    assert all(drawn[0][key] == ids for key, ids in drawn[1].items())
    assert drawn[0] != drawn[2]
    counts = Counter(t for ids in drawn[0].values() for t in ids)
    assert len(counts) > 45 and max(counts.values()) < 20


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    write_triplets(tmp_path / "t", triplets(500))
    for name in ("one", "two"):
        rewrite(tmp_path / "t", tmp_path / name, "pool", per_triplet=45, seed=3)
    files = [sorted(p for p in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert [p.name for p in files[0]] == ["part-00000.parquet", "rewrite.json"]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_what_cannot_be_asked_is_counted(tmp_path: Path) -> None:
    write_triplets(tmp_path / "t", triplets(10, boxes=4))
    summary = rewrite(tmp_path / "t", tmp_path / "all", "diagnosis")
    assert summary["questions"] == 10 * 48 + 4 * 21 and summary["not_asked"] == 6 * 21
    summary = rewrite(tmp_path / "t", tmp_path / "some", "diagnosis", per_triplet=50)
    assert summary["questions"] == 6 * 48 + 4 * 50 and summary["not_asked"] == 6 * 2


def test_a_triplet_that_stands_twice_is_asked_once(tmp_path: Path) -> None:
    rows = triplets(3)
    write_triplets(tmp_path / "t", [*rows, rows[0]])
    summary = rewrite(tmp_path / "t", tmp_path / "q", "test-s")
    assert summary["questions"] == 3 and summary["repeated"] == 1


def test_many_chunks_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsre.rewrite.questions._CHUNK", 60)
    rows = triplets(20)
    write_triplets(tmp_path / "t", rows)
    seen: list[int] = []
    rewrite(tmp_path / "t", tmp_path / "q", "pool", progress=seen.append)
    assert seen == [*range(2, 21, 2)]
    assert [q.key for q in read_questions(tmp_path / "q")][::50] == [t.key for t in rows]


def test_an_empty_data_set_and_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match="no Parquet files here"):
        rewrite(tmp_path, tmp_path / "q", "pool")
    write_triplets(tmp_path / "t", triplets(2))
    with pytest.raises(VsreError, match="not a question file, it lacks the columns template"):
        list(read_questions(tmp_path / "t"))
    with pytest.raises(VsreError, match="pack pool has 50"):
        rewrite(tmp_path / "t", tmp_path / "q", "pool", per_triplet=51)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("source", ["data", "data/train", "data/train/part-00000.parquet", "link"])
def test_the_triplets_are_not_written_over(tmp_path: Path, source: str) -> None:
    train = tmp_path / "data" / "train"
    write_triplets(train, triplets(3))
    (tmp_path / "link").symlink_to(train)
    before = contents(train)
    with pytest.raises(VsreError, match="this is where the source is"):
        rewrite(tmp_path / source, train, "test-s")
    assert contents(train) == before


def test_earlier_questions_stay_until_the_new_ones_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_triplets(tmp_path / "t", triplets(60))
    rewrite(tmp_path / "t", tmp_path / "q", "test-s")
    before = contents(tmp_path / "q")
    with pytest.raises(VsreError, match="no Parquet files here"):
        rewrite(tmp_path / "typo", tmp_path / "q", "pool")
    assert contents(tmp_path / "q") == before
    monkeypatch.setattr("vsre.rewrite.questions._CHUNK", 500)

    def stop(done: int) -> None:
        assert list((tmp_path / "q").glob("*.tmp"))
        if done > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(tmp_path / "t", tmp_path / "q", "pool", progress=stop)
    assert contents(tmp_path / "q") == before


def test_killed_questions_are_no_questions(tmp_path: Path) -> None:
    """A kill runs nothing of what an error does: a child process ends itself after its first files."""
    write_triplets(tmp_path / "t", triplets(60))
    killed = (
        "import os, signal; from vsre.rewrite import questions as q\n"
        "q._CHUNK = 500; shards = q.ParquetShards\n"
        "q.ParquetShards = lambda folder, schema, rows_per_file: shards(folder, schema, rows_per_file=500)\n"
        "stop = lambda done: done > 30 and os.kill(os.getpid(), signal.SIGKILL)\n"
        f"q.rewrite({str(tmp_path / 't')!r}, {str(tmp_path / 'q')!r}, 'pool', progress=stop)"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "q").iterdir())) > 1
    with pytest.raises(VsreError, match="no Parquet files here"):
        list(read_questions(tmp_path / "q"))
    rewrite(tmp_path / "t", tmp_path / "q", "test-s")
    assert sorted(contents(tmp_path / "q")) == ["part-00000.parquet", "rewrite.json"]


def test_question_id() -> None:
    assert Question("k", "i", "t", "p", "?", "Yes", True, "yes-no", "test").id == "k/t"
