"""A part of a set: whole pictures from all over it, smaller parts within larger ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.relations.grammar import caption
from vsre.sources.subset import write_subset
from vsre.triplets import Triplet, read_triplets, write_triplets

RELATIONS = ("left of", "right of", "near", "above")


def row(picture: int, number: int) -> Triplet:
    relation = RELATIONS[(picture + number) % len(RELATIONS)]
    subject = f"thing {number}"
    return Triplet(
        image_id=f"sha256:{picture}",
        image_name=f"{picture}.jpg",
        subject=subject,
        relation=relation,
        object="dog",
        caption=caption(subject, relation, "dog"),
        label=number % 2 == 0,
        split="train",
        origin="vsr",
    )


def keys(folder: Path) -> list[str]:
    return [t.key for t in read_triplets(folder)]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=60, unique=True),
    limits=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 3),
    without=st.sets(st.sampled_from(RELATIONS), max_size=2),
    shuffled=st.randoms(use_true_random=False),
)
def test_smaller_parts_lie_within_larger_ones(
    rows: list[tuple[int, int]], limits: tuple[int, int], seed: int, without: set[str], shuffled: object
) -> None:
    """With pictures' rows together or strewn about: how many rows of a picture does not hang on their order."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        all_rows = [row(*r) for r in rows]
        write_triplets(folder / "all", all_rows)
        left = [t for t in all_rows if t.relation not in without]
        if not left:
            with pytest.raises(VsreError, match=r"none of its .* Leave fewer relations out"):
                write_subset(folder / "all", folder / "x", limit=limits[0], without=without, seed=seed)
            return
        parts = []
        for at, limit in enumerate(sorted(limits)):
            summary = write_subset(folder / "all", folder / str(at), limit=limit, without=without, seed=seed)
            part = [*read_triplets(folder / str(at))]
            parts.append({t.key for t in part})
            assert summary["triplets"] == len(part) == min(limit, len(left)), "as many as asked for"
            assert not {t.relation for t in part} & without
            of, taken = Counter(t.image_id for t in left), Counter(t.image_id for t in part)
            assert sum(taken[image] < of[image] for image in taken) <= 1, "all but one of the pictures are whole"
            assert summary["pictures"] == len(taken) and sum(summary["without"].values()) == len(all_rows) - len(left)
        assert parts[0] <= parts[1]


def test_pictures_come_from_all_over_and_by_the_seed(tmp_path: Path) -> None:
    write_triplets(tmp_path / "all", [row(p, n) for p in range(400) for n in range(2)])
    write_triplets(tmp_path / "turned", [row(p, n) for p in reversed(range(400)) for n in range(2)])
    numbers = {}
    for seed in (0, 1):
        write_subset(tmp_path / "all", tmp_path / str(seed), limit=80, seed=seed)
        numbers[seed] = sorted({int(t.image_name.split(".")[0]) for t in read_triplets(tmp_path / str(seed))})
        assert len(numbers[seed]) == 40
        assert all(sum(low <= n < low + 100 for n in numbers[seed]) >= 3 for low in (0, 100, 200, 300))
    assert numbers[0] != numbers[1]
    write_subset(tmp_path / "turned", tmp_path / "t", limit=80, seed=0)
    assert sorted(keys(tmp_path / "t")) == sorted(keys(tmp_path / "0")), "whatever order the rows come in"


def test_no_limit_and_a_bad_one(tmp_path: Path) -> None:
    write_triplets(tmp_path / "all", [row(p, n) for p in range(5) for n in range(4)])
    summary = write_subset(tmp_path / "all", tmp_path / "part", without=["near"])
    assert summary["triplets"] == 15 and summary["without"] == {"near": 5} and summary["of"] == 20
    assert keys(tmp_path / "part") == [t.key for t in read_triplets(tmp_path / "all") if t.relation != "near"]
    with pytest.raises(VsreError, match="limit must be at least 1"):
        write_subset(tmp_path / "all", tmp_path / "x", limit=0)
