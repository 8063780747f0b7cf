"""Which labels of a detector mean a class: detectors write COCO's names in their own ways.

Labels count as equal without case, spaces and punctuation ("diningtable"); "Monitor/TV" is a monitor and a TV. The
groups below are names of one thing, by the label sets of COCO 2014 to 2017, Pascal VOC and Objects365. A class that a
label merely contains (a pigeon is a bird) is not among them: who wants that says so in `names` of the configuration.
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
    """Lower case, letters and digits only."""
    return "".join(c for c in name.lower() if c.isalnum())


_GROUP = {plain(name): {plain(other) for other in group.split(", ")} for group in _SAME for name in group.split(", ")}


def labels_of(name: str, labels: Iterable[str], more: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Those of a detector's labels that mean the class; none where it does not know the class.

    `more` are further meanings, class -> labels.
    """
    wanted = _GROUP.get(plain(name), {plain(name)}) | {plain(other) for other in more.get(name, ())}
    return frozenset(
        label for label in labels if plain(label) in wanted or wanted & {plain(part) for part in label.split("/")}
    )
