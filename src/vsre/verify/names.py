"""Which labels of a detector mean a class: detectors spell COCO's names in their own ways.

Labels are compared without case, spaces and punctuation ("diningtable"); "Monitor/TV" is a monitor and a TV. The groups
below are names of one thing, from the label sets of COCO 2014 to 2017, Pascal VOC and Objects365. Kinds of a class (a
pigeon is a bird) are not among them; to include one, add it to `names` in the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_SAME = (
    "airplane, aeroplane, plane",
    "motorcycle, motorbike",
    "couch, sofa",
    "potted plant, houseplant",
    "dining table, dinning table",
    "tv, television, tv monitor, monitor",
    "cell phone, mobile phone, cellular telephone",
    "hair drier, hair dryer",
    "donut, doughnut",
    "remote, remote control",
    "skis, ski, skiboard",
    "suitcase, luggage",
    "refrigerator, fridge",
    "microwave, microwave oven",
)


def plain(name: str) -> str:
    """The name in lower case, letters and digits only."""
    return "".join(c for c in name.lower() if c.isalnum())


_GROUP = {plain(name): {plain(other) for other in group.split(", ")} for group in _SAME for name in group.split(", ")}


def labels_of(name: str, labels: Iterable[str], more: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The detector's labels that mean the class; empty if it does not know the class.

    `more` gives further labels: class -> labels.
    """
    wanted = _GROUP.get(plain(name), {plain(name)}) | {plain(other) for other in more.get(name, ())}
    return frozenset(
        label for label in labels if plain(label) in wanted or wanted & {plain(part) for part in label.split("/")}
    )
