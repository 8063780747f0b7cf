"""Some of a pack's templates: nested, spread over answer formats, the plainest first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.rewrite import load_pack, read_questions, rewrite, shipped_packs
from vsre.rewrite.asking import TemplatePack
from vsre.rewrite.questions import some_templates
from vsre.triplets import Triplet, write_triplets

POOL = load_pack("pool")


def ids(pack: TemplatePack) -> list[str]:
    return [t.id for t in pack.templates]


@given(st.sampled_from(shipped_packs()), st.integers(0, 50), st.data())
def test_fewer_lie_within_more(name: str, seed: int, data: st.DataObject) -> None:
    pack = load_pack(name)
    few = data.draw(st.integers(1, len(pack.templates)))
    many = data.draw(st.integers(few, len(pack.templates)))
    smaller, larger = some_templates(pack, few, seed), some_templates(pack, many, seed)
    assert len(smaller.templates) == few and set(ids(smaller)) <= set(ids(larger)) <= set(ids(pack))
    assert ids(larger) == [i for i in ids(pack) if i in set(ids(larger))], "in the pack's order"
    room, uses = (Counter(t.format.name for t in p.templates) for p in (pack, larger))
    with_room = [uses[f] for f in room if uses[f] < room[f]]
    assert max(uses.values()) - min(with_room, default=max(uses.values())) <= 1, "formats take turns"
    assert some_templates(pack, len(pack.templates), seed) == pack


def test_the_first_is_the_plainest() -> None:
    for seed in range(8):
        (first,) = some_templates(POOL, 1, seed).templates
        assert (first.format.name, first.style, first.needs_boxes) == ("yes-no", "short", False)
    plain = load_pack("test-s").templates[0]
    mixed = TemplatePack("mixed", (*POOL.templates, plain))
    assert all(some_templates(mixed, 1, seed).templates == (plain,) for seed in range(8))
    assert len({*(ids(some_templates(POOL, 5, seed))[1] for seed in range(20))}) > 1, "drawn by the seed"


def test_a_pack_has_no_more_than_it_has(tmp_path: Path) -> None:
    for count in (0, 51):
        with pytest.raises(VsreError, match=f"Cannot take {count} templates: pack pool has 50"):
            some_templates(POOL, count, 0)


def test_questions_are_asked_through_them_alone(tmp_path: Path) -> None:
    said = "The cat is near the dog."
    rows = [Triplet(f"sha256:{i}", f"{i}.jpg", "cat", "near", "dog", said, True, "train", "vsr") for i in range(30)]
    write_triplets(tmp_path / "t", rows)
    summary = rewrite(tmp_path / "t", tmp_path / "q", "pool", 2, seed=3, templates=5)
    wanted = ids(some_templates(POOL, 5, 3))
    assert summary["templates"] == wanted and summary["questions"] <= 60
    assert {q.template for q in read_questions(tmp_path / "q")} <= set(wanted)
    with pytest.raises(VsreError, match="has 5"):
        rewrite(tmp_path / "t", tmp_path / "q", "pool", 6, templates=5)
