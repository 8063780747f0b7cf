"""Many continuations of one beginning: sequences that share a key-value cache and are extended in step.

    prefix, once an image   (B, P)     ids and picture -> cache of P positions
    branches, once a prompt (Q, P + S) each takes its image's row of the cache; its suffix stands left-padded
    answer, token by token  (Q, 1)     behind it, so that every branch grows at the same column

Padded columns are masked, and positions are counted without them: the logits are those of the prompt alone.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch


class Branches:
    """Q sequences being continued together. Tensors are on the model's device.

    `logits` (Q, V), float32, belong to the last token of each sequence.
    """

    def __init__(self, model: Any, cache: Any, mask: torch.Tensor, length: torch.Tensor, logits: torch.Tensor) -> None:
        self.model, self.cache = model, cache
        self.mask = mask  # (Q, columns in the cache), 0 where padded
        self.length = length  # (Q,) tokens so far, without padding
        self.logits = logits

    def __len__(self) -> int:
        return len(self.length)

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        """Append the same number of tokens to each sequence, (Q, k); returns the logits behind each, (Q, k, V)."""
        steps = ids.shape[1]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self), steps)], dim=1)
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.length[:, None] + torch.arange(steps, device=ids.device),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache, self.length = out.past_key_values, self.length + steps
        self.logits = out.logits[:, -1].float()
        return out.logits.float()

    def select(self, rows: torch.Tensor) -> Branches:
        """The sequences `rows` (indices) alone, to be extended without changing these."""
        cache = fork_cache(self.cache)
        cache.batch_select_indices(rows)
        return Branches(self.model, cache, self.mask[rows], self.length[rows], self.logits[rows])

    def log_probability(self, ids: Sequence[int], rows: torch.Tensor) -> torch.Tensor:
        """log P of `ids` as the next tokens of the sequences `rows`: the sum over the tokens, (len(rows),)."""
        first = self.logits[rows].log_softmax(-1)[:, ids[0]]
        if len(ids) == 1:
            return first
        given, wanted = (torch.tensor(part, device=rows.device).expand(len(rows), -1) for part in (ids[:-1], ids[1:]))
        later = self.select(rows).extend(given).log_softmax(-1)  # (len(rows), k - 1, V)
        return first + later.gather(-1, wanted[..., None]).sum((1, 2))


def fork_cache(cache: Any) -> Any:
    """A cache that can grow or be cut without changing `cache`; the tensors are shared until then."""
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    return forked


def prefill(model: Any, ids: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Any:
    """The cache behind the prefixes `ids` (B, P) and their pictures."""
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **tensors, **_last_only(model))
    return out.past_key_values


def branch(
    model: Any,
    cache: Any,
    prefix_length: int,
    rows: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    pad: int,
) -> Branches:
    """One branch a suffix: suffix q goes on from row rows[q] of the cache."""
    device = model.device
    lengths = torch.tensor([len(s) for s in suffixes], device=device)  # (Q,)
    width = int(lengths.max())
    ids = torch.tensor([[pad] * (width - len(s)) + list(s) for s in suffixes], device=device)  # (Q, S)
    place = torch.arange(width, device=device) - (width - lengths[:, None])  # (Q, S), negative where padded
    mask = torch.cat([ids.new_ones(len(ids), prefix_length), (place >= 0).long()], dim=1)  # (Q, P + S)
    forked = fork_cache(cache)
    forked.batch_select_indices(torch.tensor(list(rows), device=device))
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=prefix_length + place.clamp(min=0),
        past_key_values=forked,
        use_cache=True,
        **_last_only(model),
    )
    return Branches(model, out.past_key_values, mask, prefix_length + lengths, out.logits[:, -1].float())


def _last_only(model: Any) -> dict[str, int]:
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
