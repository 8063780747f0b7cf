"""The blind floor: guessers on data whose leaks are known, and on the published VSR splits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vsre.diagnose.blind import Statement, blind_floor, leave_one_out, read_statements

DATA = os.environ.get("VSRE_TEST_DATA", "")
real = pytest.mark.skipif(not DATA, reason="set VSRE_TEST_DATA to a folder with vsr/annotations")


def test_a_leaking_split_is_found_out() -> None:
    """Captions with one true and one false image; one half of each pair is in training."""
    train = [Statement(f"a{i}", f"The cat is on the {i}.", "on", i % 2 == 0) for i in range(100)]
    test = [Statement(f"b{i}", f"The cat is on the {i}.", "on", i % 2 == 1) for i in range(100)]
    both = [s for pair in zip(train, test, strict=True) for s in pair]
    # Trained on whole pairs it learns the opposite; from halves alone there is nothing to learn it from.
    whole = [Statement(f"c{i}", f"The dog is in the {i // 2}.", "in", i % 2 == 0) for i in range(40)]
    assert (leave_one_out(train + whole, test) == [s.label for s in test]).all()
    floor = blind_floor(both, test, resamples=20)
    assert floor["lookup"]["value"] == 1 and floor["majority"]["value"] == 0.5
    assert floor["per_relation"]["value"] == 0.5


def test_words_give_labels_away() -> None:
    train = [Statement(f"{i}", f"The {'cat' if i % 2 else 'dog'} is on the {i}.", "on", bool(i % 2)) for i in range(60)]
    assert blind_floor(train, train[:20], resamples=20)["ngrams"]["value"] == 1


def test_without_training_data_only_the_majority() -> None:
    test = [Statement(f"{i}", "The cat is on the mat.", "on", i < 3) for i in range(4)]
    floor = blind_floor(None, test, resamples=20)
    assert floor["majority"]["value"] == 0.75 and floor["fitted_on"] == "test"
    assert floor["ngrams"] is None


def test_one_label_only() -> None:
    test = [Statement(f"{i}", "The cat is on the mat.", "on", True) for i in range(4)]
    assert blind_floor(test, test, resamples=20)["ngrams"]["value"] == 1


def _vsr(*names: str) -> list[Statement]:
    rows = []
    for name in names:
        lines = (Path(DATA) / "vsr" / "annotations" / f"{name}.jsonl").read_text("utf-8").splitlines()
        rows += [json.loads(line) for line in lines]
    return [Statement(r["image"], r["caption"], r["relation"], bool(int(r["label"]))) for r in rows]


@real
def test_published_splits() -> None:
    """The audit's figures: zero-shot gives a guesser nothing, random splits and the paper's protocol give much."""
    zero, random = (blind_floor(_vsr(f"{s}/train"), _vsr(f"{s}/test"), resamples=200) for s in ("zeroshot", "random"))
    for name in ("majority", "per_relation", "ngrams", "leave_one_out"):
        assert zero[name]["value"] == pytest.approx(0.515, abs=0.005)
        assert zero[name]["low"] < 0.515 < zero[name]["high"]
    assert random["leave_one_out"]["low"] < 0.74 < random["leave_one_out"]["high"]
    assert random["ngrams"]["value"] < 0.48
    paper = blind_floor(_vsr("zeroshot/train", "random/train"), _vsr("zeroshot/test"), resamples=200)
    assert paper["lookup"]["value"] == pytest.approx(0.895, abs=0.005)


def test_statements_of_a_triplet_file(tmp_path: Path) -> None:
    from diagnose_data import make_triplets, write_data

    triplets = make_triplets(3)
    assert read_statements(write_data(tmp_path, triplets)) == [
        Statement(t.image_id, t.caption, t.relation, t.label) for t in triplets
    ]
