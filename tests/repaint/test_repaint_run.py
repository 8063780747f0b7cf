import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vsre.errors import VsreError
from vsre.repaint import Painted, PaintJob, Refused, ScenePainter, Vocabulary, repaint
from vsre.repaint.judge import HELD_OUT_CAPTION, HELD_OUT_IMAGE
from vsre.repaint.plan import survey
from vsre.sources.protocols import SOURCE_IMAGE
from vsre.triplets import Triplet, read_triplets, write_triplets

LIMIT = 20


def contents(folder: Path) -> list[Triplet]:
    return list(read_triplets(folder))


@pytest.fixture(scope="module")
def made(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("made") / "out"
    summary = repaint(small_world / "triplets" / "train", out, scenes=small_world / "scenes.jsonl", limit=LIMIT, seed=1)
    return out, summary


def test_the_summary_agrees_with_the_rows(made: tuple[Path, dict[str, Any]], small_world: Path) -> None:
    out, summary = made
    rows = contents(out)
    assert summary == json.loads((out / "repaint.json").read_text())
    assert summary["rows"] == len(rows) and summary["images"] == len({t.image_id for t in rows})
    assert {k: n for k, n in summary["by_kind"].items() if n} == Counter(t.provenance["kind"] for t in rows)
    assert sum(summary["by_setting"].values()) == summary["images"]
    refused = [json.loads(line) for line in (out / "set_aside.jsonl").read_text().splitlines()]
    assert summary["refused"] == Counter(r["reason"] for r in refused)
    assert summary["images"] + len(refused) == LIMIT * 3
    sources = {t.image_id for t in read_triplets(small_world / "triplets" / "train", images=False)}
    assert all(t.provenance[SOURCE_IMAGE] in sources for t in rows)
    assert len({t.key for t in rows}) == len(rows)
    assert {t.split for t in rows} == {"train"} and {t.origin for t in rows} == {
        f"repaint:{s}" for s in ("t2i", "i2i", "inpaint")
    }


def test_true_and_false_are_balanced(made: tuple[Path, dict[str, Any]]) -> None:
    out, summary = made
    assert 0.46 < summary["true_share"] < 0.54
    labels = {True: Counter[str](), False: Counter[str]()}
    for row in contents(out):
        labels[row.label][row.relation] += 1
    common = [r for r in labels[True] | labels[False] if labels[True][r] + labels[False][r] >= 12]
    assert common and all(abs(labels[True][r] - labels[False][r]) <= 8 for r in common)


def test_what_the_test_split_says_is_never_said(made: tuple[Path, dict[str, Any]], small_world: Path) -> None:
    out, summary = made
    test = list(read_triplets(small_world / "triplets" / "test", images=False))
    pairs = {frozenset((t.subject, t.object)) for t in test}
    assert summary["held_out"]["from"] == ["test"] and summary["held_out"]["captions"]
    assert all(frozenset((t.subject, t.object)) not in pairs for t in contents(out))


def test_workers_change_nothing(small_world: Path, tmp_path: Path) -> None:
    summaries = [
        repaint(
            small_world / "triplets" / "train",
            tmp_path / str(workers),
            scenes=small_world / "scenes.jsonl",
            limit=8,
            workers=workers,
        )
        for workers in (1, 2)
    ]
    assert summaries[0] == summaries[1]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    refused = [(tmp_path / name / "set_aside.jsonl").read_text() for name in ("1", "2")]
    assert refused[0] == refused[1]


def cat(name: str, split: str = "train", label: bool = True) -> Triplet:
    said = "The cat is left of the dog."
    return Triplet(f"name:{name}", name, "cat", "left of", "dog", said, label, split, "vsr")


@pytest.mark.parametrize("split", ["test", "dev"])
def test_pictures_are_not_painted_from_held_out_rows(tmp_path: Path, split: str) -> None:
    source, out = tmp_path / "all", tmp_path / "out"
    write_triplets(source, [cat("1.jpg"), cat("2.jpg", split)])
    with pytest.raises(VsreError, match=f"row 1.*{split}"):
        repaint(source, out, settings=("t2i",))
    assert not out.exists()
    assert repaint(source, out, settings=("t2i",), allow_held_out=True)["images"] == 2


def test_a_caption_of_the_test_split_is_set_aside(tmp_path: Path) -> None:
    write_triplets(tmp_path / "train", [cat("1.jpg"), cat("2.jpg").replace(
        subject="bus", caption="The bus is left of the dog."
    )])  # fmt: skip
    write_triplets(tmp_path / "test", [cat("3.jpg", "test")])
    summary = repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",))
    assert summary["images"] == 1 and summary["refused"] == {HELD_OUT_CAPTION: 1}


def test_a_picture_of_the_test_split_is_never_repainted_whatever_is_said_of_it(tmp_path: Path) -> None:
    """As in the paper's own training set, which has other captions of the test's pictures."""
    bus = cat("2.jpg").replace(subject="bus", caption="The bus is left of the dog.")
    again = cat("renamed.jpg").replace(image_id="name:3.jpg", subject="cup", caption="The cup is left of the dog.")
    write_triplets(tmp_path / "train", [cat("1.jpg"), bus, again])
    other = {"subject": "fork", "object": "spoon", "caption": "The fork is left of the spoon."}
    held = [cat(name, "test").replace(**other) for name in ("2.jpg", "3.jpg")]
    write_triplets(tmp_path / "test", held)
    summary = repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",))
    assert summary["images"] == 1 and summary["refused"] == {HELD_OUT_IMAGE: 2}
    assert summary["held_out"]["images"] == 2


def test_what_is_held_out_elsewhere_can_be_named(tmp_path: Path) -> None:
    write_triplets(tmp_path / "a" / "train", [cat("1.jpg"), cat("2.jpg")])
    write_triplets(tmp_path / "b" / "mine", [cat("2.jpg", "test").replace(subject="bus", caption="The bus.")])
    mine = tmp_path / "b" / "mine"
    summary = repaint(tmp_path / "a" / "train", tmp_path / "out", settings=("t2i",), held_out=[mine, mine])
    assert summary["refused"] == {HELD_OUT_IMAGE: 1} and summary["held_out"]["from"] == ["mine"]
    with pytest.raises(VsreError, match="no Parquet files"):
        repaint(tmp_path / "a" / "train", tmp_path / "out", settings=("t2i",), held_out=[tmp_path / "none"])


@pytest.mark.parametrize(
    ("settings", "per_triplet", "expected"),
    [(("t2i",), 2, [True, False, False, True]), (("t2i", "inpaint"), 1, [True, True])],
)
def test_a_caption_is_drawn_true_as_often_as_it_is_said_false(
    tmp_path: Path, settings: tuple[str, ...], per_triplet: int, expected: list[bool]
) -> None:
    write_triplets(tmp_path / "train", [cat("1.jpg"), cat("2.jpg", label=False)])
    out = tmp_path / "out"
    repaint(tmp_path / "train", out, settings=settings, per_triplet=per_triplet, captions_per_image=0)
    assert [t.label for t in read_triplets(out)] == expected


def test_a_limit_is_spread_over_the_set(tmp_path: Path) -> None:
    write_triplets(tmp_path / "train", [cat(f"{n}.jpg") for n in range(10)])
    repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",), limit=3, captions_per_image=0)
    sources = [t.provenance[SOURCE_IMAGE] for t in read_triplets(tmp_path / "out")]
    assert sources == ["name:3.jpg", "name:6.jpg", "name:9.jpg"]


class Picky(ScenePainter):
    """Paints nothing but what its revision says, and only from the caption."""

    name = "picky/1"
    settings = ("t2i",)

    def paint(self, job: PaintJob) -> Painted | Refused:
        return Refused(job, "not in the mood")


def test_a_painter_of_ones_own(tmp_path: Path) -> None:
    write_triplets(tmp_path / "train", [cat("1.jpg")])
    with pytest.raises(VsreError, match=r"not in the mood \(1\)"):
        repaint(tmp_path / "train", tmp_path / "out", settings=("t2i",), painter=Picky)
    with pytest.raises(VsreError, match="i2i: the painter picky/1 has t2i"):
        repaint(tmp_path / "train", tmp_path / "out", settings=("t2i", "i2i"), painter=Picky)


def test_bad_arguments_are_told(tmp_path: Path) -> None:
    write_triplets(tmp_path / "train", [cat("1.jpg")])
    with pytest.raises(VsreError, match="another folder"):
        repaint(tmp_path / "train", tmp_path / "train")
    with pytest.raises(VsreError, match="no setting"):
        repaint(tmp_path / "train", tmp_path / "out", settings=())
    with pytest.raises(VsreError, match="must be at least 1"):
        repaint(tmp_path / "train", tmp_path / "out", limit=0)
    with pytest.raises(VsreError, match="no such file"):
        repaint(tmp_path / "train", tmp_path / "out", scenes=tmp_path / "none.jsonl")
    with pytest.raises(VsreError, match="no Parquet files"):
        repaint(tmp_path / "nothing", tmp_path / "out")
    write_triplets(tmp_path / "empty", [])
    with pytest.raises(VsreError):
        repaint(tmp_path / "empty", tmp_path / "out")


def test_the_vocabulary_is_that_of_the_source(tmp_path: Path) -> None:
    write_triplets(tmp_path / "train", [cat("1.jpg")])
    words, count, held_out = survey(tmp_path / "train", allow_held_out=False)
    assert words == Vocabulary(("cat", "dog"), frozenset({"left of"})) and (count, held_out) == (1, [])


@pytest.mark.skipif(
    not os.environ.get("VSRE_TEST_DATA"), reason="set VSRE_TEST_DATA to a folder with vsr/mini and its photos"
)
def test_real_photos_of_vsr(tmp_path: Path) -> None:
    from vsre.sources.vsr import import_vsr

    mini = Path(os.environ["VSRE_TEST_DATA"]) / "vsr" / "mini"
    import_vsr(
        {"train": [mini / "triplets.jsonl"]},
        tmp_path / "triplets",
        images=[mini / "images"],
        instances=[mini / "instances.json"],
    )
    summary = repaint(tmp_path / "triplets" / "train", tmp_path / "out")
    assert summary["source"]["triplets"] == 25
    assert min(summary["by_setting"].get(s, 0) for s in ("t2i", "i2i", "inpaint")) >= 10
    assert summary["images"] + sum(summary["refused"].values()) == 75
