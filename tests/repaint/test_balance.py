from collections import Counter
from random import Random

from vsre.repaint import Painted, PaintJob, Statement
from vsre.repaint.balance import SLACK, Balance
from vsre.triplets import Triplet

SOURCE = Triplet("i", "1.jpg", "cat", "by", "dog", "The cat is by the dog.", True, "train", "vsr")
JOB = PaintJob(SOURCE, "t2i", 0, "p")


def said(relation: str, label: bool, number: int = 0) -> Statement:
    return Statement(f"thing {number}", relation, "dog", "positive" if label else "relation-false", None, None)


def test_lopsided_relations_come_out_even() -> None:
    rng, balance, counts = Random(0), Balance(6), Counter[tuple[str, bool]]()
    for _ in range(300):
        others = tuple(
            said(relation, rng.random() < share, number)
            for relation, share in (("contains", 0.03), ("left of", 0.5), ("outside", 0.9))
            for number in range(6)
        )
        main = said("by", rng.random() < 0.5)
        chosen = balance.choose(Painted(JOB, b"", 1, 1, (main,), others))
        assert chosen[0] is main and len(chosen) <= 7
        counts.update((s.relation, s.label) for s in chosen)
    for relation in ("contains", "left of", "outside"):
        true, false = counts[relation, True], counts[relation, False]
        assert true and abs(true - false) <= SLACK + 1, relation


def test_a_picture_gets_true_captions_for_its_false_ones() -> None:
    others = tuple(said(r, label) for r in ("on", "by", "in") for label in (True, False))
    painted = Painted(JOB, b"", 1, 1, (said("far from", False), said("near", False)), others)
    chosen = Balance(4).choose(painted)
    assert [s.label for s in chosen] == [False, False, True, True, True, False]


def test_nothing_is_added_when_nothing_may_be() -> None:
    painted = Painted(JOB, b"", 1, 1, (said("on", True),), (said("on", False),))
    assert len(Balance(0).choose(painted)) == 1
    assert len(Balance(9).choose(painted)) == 2


def test_a_caption_is_not_said_true_again_before_it_was_false() -> None:
    balance, counts = Balance(4), Counter[tuple[str, bool]]()
    for number in range(20):
        others = tuple(said(r, label) for r, label in (("on", True), ("in", number % 2 == 0), ("by", False)))
        counts.update((s.relation, s.label) for s in balance.choose(Painted(JOB, b"", 1, 1, (), others)))
    assert counts["on", True] == counts["by", False] == 1
    assert counts["in", True] >= 2 and abs(counts["in", True] - counts["in", False]) <= 1
