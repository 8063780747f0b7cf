from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsre.errors import VsreError
from vsre.sources.protocols import PROTOCOLS, SOURCE_IMAGE, HeldOut, Overlap, apply_protocol
from vsre.triplets import Triplet


def triplet(image: str, subject: str = "cat", object: str = "dog", **fields: object) -> Triplet:
    return Triplet(
        **{
            "image_id": f"sha256:{image}",
            "image_name": f"{image}.jpg",
            "subject": subject,
            "relation": "left of",
            "object": object,
            "caption": f"The {subject} is left of the {object}.",
            "label": True,
            "split": "train",
            "origin": "vsr",
            **fields,
        }
    )


TEST = [triplet("t1", "bear", "car"), triplet("t2", "bear", "cup")]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (triplet("a"), None),
        (triplet("t1", "bear", "car"), "test row"),
        (triplet("t1"), "test image"),
        (triplet("a", image_id="sha256:t1"), "test image"),
        (triplet("t1", image_id="sha256:saved-again"), "test image"),
        (triplet("t1", "bear", "car", image_id="sha256:saved-again"), "test row"),
        (triplet("painted", provenance={SOURCE_IMAGE: "sha256:t2"}), "test image"),
        (triplet("a", "dog", "cup"), "test concept"),
        (triplet("a", "car", "dog"), "test concept"),
    ],
)
def test_what_each_protocol_removes(row: Triplet, why: str | None) -> None:
    for name, protocol in PROTOCOLS.items():
        removed = Counter[str]()
        left = list(apply_protocol([row], TEST, name, removed))
        goes = why in protocol.removes
        assert left == ([] if goes else [row])
        assert removed == ({why: 1} if goes else {})


def test_names_tell_annotations_without_pictures_apart() -> None:
    test = [triplet("t1", image_id="name:t1.jpg")]
    assert list(apply_protocol([triplet("t1", "bed", "cup")], test, "clean")) == []


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(VsreError, match="paper, clean, clean-concepts"):
        list(apply_protocol([], [], "dirty"))


def test_overlap_counts_rows_and_images_of_the_held_out_side() -> None:
    overlap = Overlap(HeldOut(TEST))
    train = [triplet("t1"), triplet("t1", "bear", "car"), triplet("t1", "bear", "car"), triplet("b")]
    assert list(overlap.watch(train)) == train
    assert overlap.summary() == {"rows": 2, "rows_in_train": 1, "images": 2, "images_in_train": 1}


NAMES = st.sampled_from(["a", "b", "c", "d"])
ROWS = st.lists(st.builds(triplet, NAMES, NAMES, NAMES), max_size=12)


@given(ROWS, ROWS)
def test_after_clean_nothing_of_the_test_is_left(train: list[Triplet], test: list[Triplet]) -> None:
    removed = Counter[str]()
    left = list(apply_protocol(train, test, "clean-concepts", removed))
    assert len(left) + removed.total() == len(train)
    assert not {t.image_id for t in left} & {t.image_id for t in test}
    assert not {c for t in left for c in (t.subject, t.object)} & {c for t in test for c in (t.subject, t.object)}
    assert list(apply_protocol(left, test, "clean-concepts")) == left
