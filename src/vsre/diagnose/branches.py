"""Many continuations of one prefix: sequences that share a key-value cache and are extended in step.

    prefix, once an image   (B, P)     ids and picture -> cache of P positions
    branches, once a prompt (Q, S)     its suffix, left-padded, goes on from its image's row of the cache
    answer, token by token  (Q, 1)     behind it, so that every branch grows at the same column

Padded columns are masked, and positions are counted without them: the logits are those of the prompt alone. But in
layers with a sliding window padded columns take up room, so no branch may grow beyond `window`. `Branches` gives each
sequence a copy of its image's row, which any attention can read; `split.SplitBranches` copies nothing.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from vsre.errors import VsreError


@dataclass(frozen=True, eq=False)
class Prefilled:
    """The prefixes of B images after prefill: a cache of `length` positions, and the next position of each, `start`
    (B,).

    The two differ if positions have several axes: a picture then takes fewer of them than it has tokens. `behind` holds
    inputs, (B, 1, ...) each, that go along with every later token.
    """

    cache: Any
    length: int
    start: torch.Tensor
    behind: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def window(self) -> float:
        """How many columns the smallest window of a layer holds; infinite if every layer attends to all."""
        sizes = (getattr(layer, "sliding_window", None) for layer in self.cache.layers)
        return min((size for size in sizes if size is not None), default=math.inf)


class Branches:
    """Q sequences being continued together. Tensors are on the model's device.

    `logits` (Q, V), float32, belong to the last token of each sequence.
    """

    def __init__(
        self, model: Any, prefilled: Prefilled, rows: Sequence[int], suffixes: Sequence[Sequence[int]], pad: int
    ) -> None:
        """Suffix q continues row rows[q] of what was prefilled."""
        device = prefilled.start.device
        self.model = model
        at = torch.tensor(list(rows), device=device)  # (Q,)
        lengths = torch.tensor([len(s) for s in suffixes], device=device)  # (Q,)
        width = int(lengths.max())
        ids = torch.tensor([[pad] * (width - len(s)) + list(s) for s in suffixes], device=device)  # (Q, S)
        place = torch.arange(width, device=device) - (width - lengths[:, None])  # (Q, S), negative where padded
        self.mask = (place >= 0).long()  # (Q, columns), 0 where padded
        start = prefilled.start[at]
        self.position = start + lengths  # (Q,) of the next token
        self.behind = {name: t[at] for name, t in prefilled.behind.items()}  # (Q, 1, ...)
        self._fork(prefilled, at)
        self.logits = torch.empty(0)
        self._forward(ids, start[:, None] + place.clamp(min=0), **last_only(model))

    def _fork(self, prefilled: Prefilled, at: torch.Tensor) -> None:
        # Other layers (states of recurrent models, static caches) would be changed in place.
        if other := {type(layer) for layer in prefilled.cache.layers} - {DynamicLayer, DynamicSlidingWindowLayer}:
            raise VsreError(f"the model's cache holds {', '.join(sorted(kind.__name__ for kind in other))}")
        self.cache = fork_cache(prefilled.cache)
        select_rows(self.cache, at)
        self.mask = torch.cat([self.mask.new_ones(len(at), prefilled.length), self.mask], dim=1)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, **more: Any) -> torch.Tensor:
        out = self.model(attention_mask=self.mask, **self._inputs(ids, positions), **more)
        self.cache = out.past_key_values
        self.logits = out.logits[:, -1].float()
        return out.logits

    def _inputs(self, ids: torch.Tensor, positions: torch.Tensor) -> dict[str, Any]:
        along = {name: t.expand(-1, ids.shape[1], *t.shape[2:]) for name, t in self.behind.items()}
        return {"input_ids": ids, "position_ids": positions, "past_key_values": self.cache, "use_cache": True} | along

    def __len__(self) -> int:
        return len(self.position)

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        """Append the same number of tokens to each sequence, (Q, k); returns the logits after each, (Q, k, V)."""
        steps = ids.shape[1]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self), steps)], dim=1)
        positions = self.position[:, None] + torch.arange(steps, device=ids.device)
        self.position = self.position + steps
        return self._forward(ids, positions).float()

    def select(self, rows: torch.Tensor) -> Self:
        """Only the sequences `rows` (ascending indices), which can be extended without changing these."""
        some = copy.copy(self)
        some.cache = fork_cache(self.cache)
        select_rows(some.cache, rows)
        some.mask, some.position, some.logits = self.mask[rows], self.position[rows], self.logits[rows]
        some.behind = {name: t[rows] for name, t in self.behind.items()}
        return some

    def dictate(self, rows: torch.Tensor, told: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits after the sequences `rows` and after each of the k tokens forced on each: (len(rows), 1 + k, V)."""
        later = self.select(rows).extend(torch.tensor(told, device=rows.device))
        return torch.cat([self.logits[rows, None], later], 1)


def fork_cache(cache: Any) -> Any:
    """A cache that can grow or be cut without changing `cache`; the tensors are shared until then."""
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    return forked


def select_rows(cache: Any, rows: torch.Tensor) -> None:
    """Keep these rows of a cache, whose layers may be on several devices."""
    for layer in cache.layers:
        keys = getattr(layer, "keys", None)  # none yet in a layer that has seen nothing
        layer.batch_select_indices(rows if keys is None else rows.to(keys.device))


def prefill(
    model: Any, ids: torch.Tensor, tensors: dict[str, torch.Tensor], behind: dict[str, torch.Tensor] | None = None
) -> Prefilled:
    """Run the prefixes `ids` (B, P) with their pictures; `behind` (B, 1, ...) goes along with every later token."""
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **tensors, **last_only(model))
    rows, length = ids.shape
    start = torch.full((rows,), length, device=ids.device)
    # Models whose positions have several axes keep here how far positions lag behind the number of tokens.
    deltas = getattr(getattr(model, "model", None), "rope_deltas", None)
    if deltas is not None:
        start = start + deltas.reshape(rows).to(start)
    return Prefilled(out.past_key_values, length, start, behind or {})


def last_only(model: Any) -> dict[str, int]:
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
