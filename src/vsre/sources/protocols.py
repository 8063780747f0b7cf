"""Which rows train and which test: the paper's way, which leaks, and two clean ones.

The paper (arXiv 2412.18224, section 4) trains on turn-s, VSR's zero-shot train and random train splits together, and
tests on the zero-shot test split. In the published files 830 of those 1,222 test rows appear word for word in turn-s,
on 570 of the 715 test images. The functions here take any streams of triplets, so they measure and clean drawn and
repainted data as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vsre.errors import VsreError
from vsre.triplets import Triplet

SOURCE_IMAGE = "source_image_id"
"""Provenance key of a picture made from another one (repainted, mirrored): that one's `image_id`."""

TEST_ROW, TEST_IMAGE, TEST_CONCEPT = "test row", "test image", "test concept"


@dataclass(frozen=True)
class Protocol:
    """What is removed from the training data: a subset of TEST_ROW, TEST_IMAGE and TEST_CONCEPT."""

    name: str
    removes: tuple[str, ...]
    note: str


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "paper",
            (),
            "Training data as they are, for comparison with the published table. On VSR's files this is "
            "contaminated: most test rows stand in the training data, so the test also measures memory.",
        ),
        Protocol("clean", (TEST_ROW, TEST_IMAGE), "No test row and no test image is trained on."),
        Protocol(
            "clean-concepts",
            (TEST_ROW, TEST_IMAGE, TEST_CONCEPT),
            "No test row and no test image is trained on, nor any row whose subject or object is the subject "
            "or object of a test row.",
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise VsreError(f"no protocol {name!r}. There are: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def image_names(triplet: Triplet) -> set[str]:
    """Every name the triplet's picture goes by: its content id, its file name, and what it was made from.

    Content alone would miss a photo saved again, a name alone one that was renamed.
    """
    names = {triplet.image_id}
    if triplet.image_name:
        names.add(f"name:{triplet.image_name}")
    source = triplet.provenance.get(SOURCE_IMAGE)
    if isinstance(source, str):
        names.add(source)
    return names


class HeldOut:
    """The rows, images and concepts of a test set, to compare training data with."""

    def __init__(self, test: Iterable[Triplet] = ()) -> None:
        self.keys: dict[str, int] = {}
        self.images: dict[str, int] = {}
        self.concepts: set[str] = set()
        self.n_rows = self.n_images = 0
        for triplet in test:
            self.add(triplet)

    def add(self, triplet: Triplet) -> None:
        """Hold a triplet out; repeated, with a picture or without, it is the same row."""
        self.n_rows += _enter(self.keys, _row_keys(triplet), self.n_rows)
        self.n_images += _enter(self.images, image_names(triplet), self.n_images)
        self.concepts |= {triplet.subject, triplet.object}

    def found(self, triplet: Triplet) -> tuple[str, ...]:
        """Which of TEST_ROW, TEST_IMAGE, TEST_CONCEPT hold for a training triplet, in this order."""
        return tuple(
            what
            for what, holds in (
                (TEST_ROW, any(key in self.keys for key in _row_keys(triplet))),
                (TEST_IMAGE, any(name in self.images for name in image_names(triplet))),
                (TEST_CONCEPT, triplet.subject in self.concepts or triplet.object in self.concepts),
            )
            if holds
        )


def apply_protocol(
    train: Iterable[Triplet],
    test: Iterable[Triplet] | HeldOut,
    protocol: str,
    removed: Counter[str] | None = None,
) -> Iterator[Triplet]:
    """The training triplets that the protocol keeps, streaming; `removed` counts the others by reason.

    `test` is read completely first, but only names and keys of it are kept. Raises VsreError for an unknown protocol.
    """
    removes = protocol_named(protocol).removes
    held = test if isinstance(test, HeldOut) else HeldOut(test)
    for triplet in train:
        why = next((what for what in held.found(triplet) if what in removes), None) if removes else None
        if why is None:
            yield triplet
        elif removed is not None:
            removed[why] += 1


class Overlap:
    """How much of a held-out set appears in training data: pass that through `watch`, then call `summary`."""

    def __init__(self, held: HeldOut) -> None:
        self.held = held
        self.rows: set[int] = set()
        self.images: set[int] = set()

    def watch(self, train: Iterable[Triplet]) -> Iterator[Triplet]:
        for triplet in train:
            self.rows |= {self.held.keys[key] for key in _row_keys(triplet) if key in self.held.keys}
            self.images |= {self.held.images[name] for name in image_names(triplet) if name in self.held.images}
            yield triplet

    def summary(self) -> dict[str, Any]:
        """Rows and images of the held-out set, and how many of them were seen in the training data."""
        return {
            "rows": self.held.n_rows,
            "rows_in_train": len(self.rows),
            "images": self.held.n_images,
            "images_in_train": len(self.images),
        }


def _enter(numbers: dict[str, int], names: Collection[str], new: int) -> bool:
    """Register one thing under all its names, with the number that some of them have or a new one; True if it is
    new."""
    known = [numbers[name] for name in names if name in numbers]
    for name in names:
        numbers.setdefault(name, known[0] if known else new)
    return not known


def _row_keys(triplet: Triplet) -> tuple[str, str]:
    """The triplet's key, and its file name with its caption: a photo saved again has different content."""
    return triplet.key, f"{triplet.image_name}\n{triplet.caption}"
