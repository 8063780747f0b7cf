"""What a scene shows, in words: for training a vision-language model on plain captions and questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsre.sources.scenes.scene import Scene

if TYPE_CHECKING:
    from vsre.triplets import Box

_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing: its class, the cell of a 3 x 3 grid that its centre is in ("top left"), its rank in depth (0 is
    nearest)."""

    name: str
    row: str
    column: str
    depth_rank: int
    box: Box

    @property
    def cell(self) -> str:
        return f"{self.row} {self.column}"


def object_list(scene: Scene) -> list[Seen]:
    """The things of a scene, nearest first."""
    result = []
    for rank, index in enumerate(reversed(scene.order)):
        placed = scene.objects[index]
        x0, y0, x1, y1 = placed.box
        row = _ROWS[min(2, max(0, int((y0 + y1) / 2 * 3)))]
        column = _COLUMNS[min(2, max(0, int((x0 + x1) / 2 * 3)))]
        result.append(Seen(placed.name, row, column, rank, placed.box))
    return result
