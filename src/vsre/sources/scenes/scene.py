"""A scene: exactly what is where in the embedded world. Everything else (pixels, masks, facts) follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vsre.errors import VsreError
from vsre.relations.geometry import Contact, Pair, Thing
from vsre.sources.scenes.backgrounds import BACKGROUNDS, HORIZON
from vsre.sources.scenes.sprites import Sprite, extent, sprite

if TYPE_CHECKING:
    from vsre.triplets import Box

NEAREST, FARTHEST = 1.0, 2.0
"""The range of depths at which things stand: at 2 they look half as large as at 1."""

FRONT_ROW = 0.95
"""Height of the ground at depth 1, as a fraction of the picture from the top."""


def ground(z: float) -> float:
    """Height in the picture of the ground at a depth, as a fraction from the top."""
    return HORIZON + (FRONT_ROW - HORIZON) / z


def _afloat(sprite: Sprite) -> str:
    """How a thing of this kind stays in the air."""
    return "air" if sprite.flies else "shelf"


@dataclass(frozen=True)
class Placed:
    """One thing in a scene.

    `x` and `y` are the middle of its lower edge and `size` the root of its upright area, as fractions of the picture;
    `z` is its depth; `angle` turns it counter-clockwise, after the `flip` if any. `link` says how it is held: "ground",
    "air", "shelf", or by its `host` (an index into the scene's objects): "on", "in", "touches", "sheltered". `open`
    shows a container's inside.
    """

    name: str
    x: float
    y: float
    z: float
    size: float
    variant: int = 0
    flip: bool = False
    angle: float = 0.0
    link: str = "ground"
    host: int | None = None
    open: bool = False

    @cached_property
    def sprite(self) -> Sprite:
        return sprite(self.name, self.variant)

    @cached_property
    def box(self) -> Box:
        """The whole thing, as if nothing were in front of it."""
        w, h = extent(self.sprite, self.flip, self.angle)
        w, h = w * self.size, h * self.size
        return (self.x - w / 2, self.y - h, self.x + w / 2, self.y)

    @property
    def facing(self) -> int | None:
        way = self.sprite.facing
        return -way if way and self.flip else way

    @property
    def axis(self) -> float | None:
        native = self.sprite.axis
        if native is None:
            return None
        return ((180 - native if self.flip else native) + self.angle) % 180

    def region(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        """A region of the upright sprite (fractions of it) in the picture."""
        if self.flip:
            x0, x1 = 1 - x1, 1 - x0
        left, top, right, bottom = self.box
        w, h = right - left, bottom - top
        return (left + x0 * w, top + y0 * h, left + x1 * w, top + y1 * h)

    def thing(self) -> Thing:
        """What `geometry` is told about it."""
        return Thing(box=self.box, depth=self.z, facing=self.facing, axis=self.axis)

    def released(self) -> Placed:
        """The same thing in the same place, held by nothing."""
        free = _afloat(self.sprite) if self.link in ("on", "in") else "ground"
        return self.moved(link=free, host=None)

    def moved(self, **changes: Any) -> Placed:
        return replace(self, **changes)


_CONTACTS = {
    "on": Contact.ON,
    "in": Contact.IN,
    "touches": Contact.TOUCHES,
    "sheltered": Contact.SHELTERED,
}


@dataclass(frozen=True)
class Scene:
    """Two to six things before a background. `render`, `masks` and the captions are functions of this alone."""

    kind: str
    seed: int
    objects: tuple[Placed, ...]
    size: int = 192

    def __post_init__(self) -> None:
        if self.kind not in BACKGROUNDS:
            raise VsreError(f"{self.kind!r} is not a background of the embedded world: {', '.join(BACKGROUNDS)}.")
        names = [o.name for o in self.objects]
        if len(set(names)) != len(names):
            raise VsreError(f"A scene shows each class once, but this one has {', '.join(names)}.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.objects)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Indices of the objects from the farthest to the nearest: the order in which they are painted."""
        return tuple(sorted(range(len(self.objects)), key=self._paint_key))

    def _paint_key(self, index: int) -> tuple[float, int, int]:
        """A thing in, on or against another is painted right after it, a sheltered one right before."""
        placed, level = self.objects[index], 0
        if placed.host is not None:
            level = -1 if placed.link == "sheltered" else 1
        return (-placed.z, level, index)

    def contact(self, subject: int, object: int) -> Contact:
        """How one object of the scene touches another."""
        a, b = self.objects[subject], self.objects[object]
        if a.host == object and a.link in _CONTACTS:
            return _CONTACTS[a.link]
        if b.host == subject and b.link in _CONTACTS:
            return _CONTACTS[b.link].inverse
        return Contact.NONE

    def pairs(self) -> Iterator[tuple[int, int, Pair]]:
        """Every ordered pair of objects with its measures."""
        things = [o.thing() for o in self.objects]
        for a in range(len(things)):
            for b in range(a):
                pair = Pair(things[a], things[b], self.contact(a, b))
                yield a, b, pair
                yield b, a, pair.swapped

    def pair(self, subject: int, object: int) -> Pair:
        return Pair(self.objects[subject].thing(), self.objects[object].thing(), self.contact(subject, object))

    def index(self, name: str) -> int:
        """The index of a class among the objects; raises VsreError if it is not there."""
        if name not in self.names:
            raise VsreError(f"The scene shows {', '.join(self.names)}, not {name!r}.")
        return self.names.index(name)

    def elsewhere(self, kind: str, seed: int) -> Scene:
        """The same things in the same places, before another background."""
        return replace(self, kind=kind, seed=seed)

    def swap_class(self, old: str, new: str) -> Scene:
        """The same scene with another class in the box of `old`: standing at the same place, fitted into the box.

        What was in or on the old thing stays where it was, but is no longer held by it.
        """
        index = self.index(old)
        was = self.objects[index]
        w, h = was.box[2] - was.box[0], was.box[3] - was.box[1]
        unit_w, unit_h = extent(sprite(new), was.flip, 0.0)
        now = Placed(
            name=new,
            x=was.x,
            y=was.y,
            z=was.z,
            size=min(w / unit_w, h / unit_h),
            flip=was.flip,
            link=_afloat(sprite(new)) if was.link in ("air", "shelf") else was.link,
            host=was.host,
        )
        objects = [o if o.host != index else o.released() for o in self.objects]
        objects[index] = now
        return replace(self, objects=tuple(objects))

    def to_json(self) -> dict[str, Any]:
        """A small JSON object; `Scene.from_json` gives the scene back exactly."""
        defaults = {name: field.default for name, field in Placed.__dataclass_fields__.items()}
        objects = [{k: v for k, v in asdict(o).items() if v != defaults[k]} for o in self.objects]
        return {"kind": self.kind, "seed": self.seed, "size": self.size, "objects": objects}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scene:
        """The scene that `to_json` described. Raises VsreError if the data is not a scene."""
        try:
            objects = tuple(Placed(**o) for o in data["objects"])
            return cls(kind=data["kind"], seed=data["seed"], objects=objects, size=data["size"])
        except (KeyError, TypeError) as error:
            raise VsreError(f"Not a scene of the embedded world ({error}). Take it from a scenes.jsonl.") from None
