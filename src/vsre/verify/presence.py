"""Whether a thing is in a picture, according to one detector or two.

| state | when |
| --- | --- |
| present | a box scores `present` or more; with a second opinion, the other detector has it too |
| absent | no detector has a box that scores `absent` or more |
| faint | there are boxes, but none is sure enough |
| disputed | one detector is sure of a box that the other does not have |
| unknown | no detector knows the class |
| unclear | a detector gave no numbers, or has no annotation of the picture |

The instances that count are the confident ones: with a second opinion, the first detector's boxes that the second
confirms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vsre.repaint.verify import iou
from vsre.verify.sight import Detection


class State(StrEnum):
    PRESENT = "present"
    ABSENT = "absent"
    FAINT = "faint"
    DISPUTED = "disputed"
    UNKNOWN = "unknown"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Opinion:
    """What one detector sees of a class in a picture; `seen` is None if it cannot tell."""

    by: str
    present: float
    absent: float
    seen: tuple[Detection, ...] | None

    @property
    def sure(self) -> tuple[Detection, ...]:
        return tuple(d for d in self.seen or () if d.score >= self.present)

    @property
    def doubtful(self) -> tuple[Detection, ...]:
        """All boxes that speak against the thing being missing."""
        return tuple(d for d in self.seen or () if d.score >= self.absent)

    @property
    def best(self) -> float:
        return max((d.score for d in self.seen or ()), default=0.0)


@dataclass(frozen=True)
class Presence:
    """A class in a picture. `instances` are the boxes that count, surest first; `clear_by` is how far below its
    threshold the best box of an absent thing scores."""

    name: str
    state: State
    instances: tuple[Detection, ...]
    opinions: tuple[Opinion, ...]
    clear_by: float = 0.0

    def row(self) -> dict[str, Any]:
        """As JSON: the state, and every box that could have counted with the detector that saw it."""
        return {
            "state": str(self.state),
            "boxes": [
                {
                    "by": opinion.by,
                    "box": [round(x, 4) for x in detection.box],
                    "score": round(detection.score, 4),
                    "counts": detection in self.instances,
                }
                for opinion in self.opinions
                for detection in opinion.doubtful
            ],
        }


def presence(name: str, opinions: Sequence[Opinion], *, same: float) -> Presence:
    """The state of a class, from the opinions of the detectors that were asked; the first one's boxes count.

    `same` is the intersection over union from which boxes of two detectors are one thing.
    """
    given = tuple(opinions)
    if not given:
        return Presence(name, State.UNKNOWN, (), given)
    if any(opinion.seen is None for opinion in given):
        return Presence(name, State.UNCLEAR, (), given)
    if not any(opinion.doubtful for opinion in given):
        return Presence(name, State.ABSENT, (), given, min(o.absent - o.best for o in given))
    first, *others = given
    agreed = tuple(d for d in first.sure if all(_has(other.sure, d, same) for other in others))
    if agreed:
        return Presence(name, State.PRESENT, agreed, given)
    state = State.DISPUTED if any(opinion.sure for opinion in given) else State.FAINT
    return Presence(name, state, (), given)


def _has(seen: Sequence[Detection], wanted: Detection, same: float) -> bool:
    return any(iou(wanted.box, other.box) >= same for other in seen)
