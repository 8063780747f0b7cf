"""How the features of several encoders become the visual tokens of one picture.

    sequence     one encoder's tokens after another's: the merged encoder of arXiv 2412.18224, and the default
    channel      maps on one grid, concatenated along channels, one projector: one token per cell
    interleave   every encoder's tokens on one grid, alternating by place: cell by cell, or row by row

A fusion is data (`to_dict`, `fusion_from`) and has no weights: the adapters it asks for belong to the model. An
encoder's spec says what is taken from it, so frozen features are the same, and are kept once, under every fusion.
"""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from vsre.errors import VsreError
from vsre.model.adapters import ADAPTERS, Projector
from vsre.model.encoders import as_map, as_tokens, on_device, resample
from vsre.model.specs import EncoderSpec
from vsre.triplets import Box

Specs = Sequence[EncoderSpec]
Features = Mapping[str, torch.Tensor]
"""By encoder: (B, tokens, channels), or (B, channels, n, n) if its adapter takes a map."""


@dataclass(frozen=True)
class Place:
    """Whose features a visual token holds, and the cell it stands for in fractions of the frame.

    A CLS token stands for the whole frame.
    """

    encoders: tuple[str, ...]
    box: Box


WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def cells(n: int) -> list[Box]:
    """The cells of an n x n grid in reading order."""
    return [(x / n, y / n, (x + 1) / n, (y + 1) / n) for y in range(n) for x in range(n)]


@dataclass(frozen=True)
class Fusion(ABC):
    """One way to join encoders. Raises VsreError for what cannot be joined, before any weight is read."""

    kind: ClassVar[str]

    @abstractmethod
    def check(self, specs: Specs) -> None:
        """Raise VsreError if these encoders cannot be joined this way."""

    @abstractmethod
    def tokens_of(self, spec: EncoderSpec, specs: Specs) -> int:
        """How many visual tokens hold an encoder's features."""

    @abstractmethod
    def places(self, specs: Specs) -> list[Place]:
        """Encoder and cell of each visual token, in order."""

    @abstractmethod
    def adapters(self, specs: Specs, width: int) -> dict[str, nn.Module]:
        """New adapters, by the names under which their weights are kept."""

    @abstractmethod
    def join(self, specs: Specs, adapters: Any, features: Features) -> torch.Tensor:
        """The visual tokens (B, N, width)."""

    def tokens(self, specs: Specs) -> int:
        """N, the number of visual tokens of a picture."""
        return sum(self.tokens_of(spec, specs) for spec in specs)

    def to_dict(self) -> dict[str, Any]:
        """`kind` and the fields, as JSON values."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class SequenceFusion(Fusion):
    """One encoder's tokens after another's, each through its own adapter; grids may differ."""

    kind = "sequence"

    def check(self, specs: Specs) -> None:
        pass

    def tokens_of(self, spec: EncoderSpec, specs: Specs) -> int:
        return spec.tokens

    def places(self, specs: Specs) -> list[Place]:
        return [
            Place((spec.name,), box)
            for spec in specs
            for box in [WHOLE] * (spec.cls == "keep") + cells(spec.token_grid)
        ]

    def adapters(self, specs: Specs, width: int) -> dict[str, nn.Module]:
        return _own_adapters(specs, width)

    def join(self, specs: Specs, adapters: Any, features: Features) -> torch.Tensor:
        return torch.cat([_adapted(adapters[spec.name], features[spec.name]) for spec in specs], dim=1)


@dataclass(frozen=True)
class _GridFusion(Fusion):
    """All encoders on one grid: `grid`, to which they are resampled, or their own if they have the same."""

    grid: int | None = None

    def __post_init__(self) -> None:
        if self.grid is not None and (not isinstance(self.grid, int) or self.grid < 1):
            raise VsreError(f"fusion {self.kind}: grid is {self.grid!r}, not a number of cells along a side.")

    def side(self, specs: Specs) -> int:
        """Cells along a side of the common grid."""
        return self.grid or specs[0].token_grid

    def check(self, specs: Specs) -> None:
        if kept := [spec.name for spec in specs if spec.cls == "keep"]:
            raise VsreError(
                f"fusion {self.kind}: the CLS tokens of {', '.join(kept)} have no cell on the grid. Drop them, or join "
                "the encoders by sequence."
            )
        if self.grid is None and len({spec.token_grid for spec in specs}) > 1:
            each = ", ".join(f"{spec.name} {spec.token_grid}x{spec.token_grid}" for spec in specs)
            raise VsreError(
                f"fusion {self.kind}: the encoders' grids differ ({each}). Name one to which all are resampled, for "
                f"example grid: {max(spec.token_grid for spec in specs)}, or make them equal by image_size or tokens."
            )

    def tokens_of(self, spec: EncoderSpec, specs: Specs) -> int:
        return self.side(specs) ** 2


@dataclass(frozen=True)
class ChannelFusion(_GridFusion):
    """Maps on one grid, concatenated along channels before one projector: one token per cell.

    For SAM, the neck's map is taken; its adapter is not used.
    """

    kind = "channel"

    def tokens(self, specs: Specs) -> int:
        return self.side(specs) ** 2  # the same tokens hold all encoders

    def places(self, specs: Specs) -> list[Place]:
        names = tuple(spec.name for spec in specs)
        return [Place(names, box) for box in cells(self.side(specs))]

    def adapters(self, specs: Specs, width: int) -> dict[str, nn.Module]:
        return {self.kind: Projector(sum(spec.hidden_size for spec in specs), width)}

    def join(self, specs: Specs, adapters: Any, features: Features) -> torch.Tensor:
        adapter, n = adapters[self.kind], self.side(specs)
        device = next(adapter.parameters()).device
        maps = [resample(as_map(on_device(device, features[spec.name])), n) for spec in specs]
        return _adapted(adapter, as_tokens(torch.cat(maps, dim=1)))  # (B, sum of channels, n, n) -> (B, n * n, width)


@dataclass(frozen=True)
class InterleaveFusion(_GridFusion):
    """Every encoder's tokens on one grid, each through its own adapter, alternating by place.

    By cell, the encoders' tokens of one cell are adjacent; by row, an encoder's row is followed by the next
    encoder's.
    """

    kind = "interleave"
    by: Literal["cell", "row"] = "cell"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in ("cell", "row"):
            raise VsreError(f"fusion interleave: by is {self.by!r}, not cell or row.")

    def places(self, specs: Specs) -> list[Place]:
        n = self.side(specs)
        one = cells(n)
        run = 1 if self.by == "cell" else n  # tokens of one encoder in a row
        return [Place((spec.name,), box) for at in range(0, n * n, run) for spec in specs for box in one[at : at + run]]

    def adapters(self, specs: Specs, width: int) -> dict[str, nn.Module]:
        return _own_adapters(specs, width)

    def join(self, specs: Specs, adapters: Any, features: Features) -> torch.Tensor:
        n = self.side(specs)
        tokens = []
        for spec in specs:
            adapter = adapters[spec.name]
            own = resample(as_map(features[spec.name]), n * spec.reduction)
            tokens.append(_adapted(adapter, own if adapter.takes_map else as_tokens(own)))  # (B, n * n, width)
        run = 1 if self.by == "cell" else n
        split = torch.stack([t.unflatten(1, (-1, run)) for t in tokens], dim=2)  # (B, n * n / run, E, run, width)
        return split.flatten(1, 3)


FUSIONS: dict[str, type[Fusion]] = {kind.kind: kind for kind in (SequenceFusion, ChannelFusion, InterleaveFusion)}
"""The kinds a configuration can name; add an entry to add one."""

SEQUENCE = SequenceFusion()


def fusion_from(given: Fusion | str | Mapping[str, Any] | None) -> Fusion:
    """A fusion by its kind ("channel") or its fields ({"kind": "channel", "grid": 24}); None is sequence.

    Raises VsreError for a kind or a field that does not exist, naming the nearest one.
    """
    if given is None or isinstance(given, Fusion):
        return given or SEQUENCE
    fields = {"kind": given} if isinstance(given, str) else dict(given)
    kind = fields.pop("kind", None)
    if kind not in FUSIONS:
        raise VsreError(f"fusion: no kind {kind!r}{_meant(str(kind), FUSIONS)}. There are {', '.join(FUSIONS)}.")
    known = [field.name for field in dataclasses.fields(FUSIONS[kind])]
    for name in fields:
        if name not in known:
            raise VsreError(
                f"fusion {kind}: no option {name!r}{_meant(name, known)}. It has {', '.join(known) or 'none'}."
            )
    return FUSIONS[kind](**fields)


def _meant(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _own_adapters(specs: Specs, width: int) -> dict[str, nn.Module]:
    return {spec.name: ADAPTERS[spec.adapter](spec.hidden_size, width) for spec in specs}


def _adapted(adapter: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Features through an adapter, on its device and in its dtype."""
    weight = next(adapter.parameters())
    return adapter(on_device(weight.device, features).to(weight.dtype))
