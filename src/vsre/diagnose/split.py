"""Branches that read their image's prefix in place: attention in two parts, joined exactly.

A branch's token attends to its image's prefix, whose keys all branches of the image read in place, and to its own
branch. Each part yields its output and its log-sum-exp; weighted by these the two add up to attention over both (as in
Hydragen, arXiv 2402.05099). Only a branch's own keys are stored for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import repeat_kv

from vsre.diagnose.branches import Branches, Prefilled
from vsre.errors import VsreError

SPLIT = "vsre_split"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True, eq=False)
class Split:
    """What split attention needs: the prefixes' cache, which branches belong to which of its rows [(row, first branch,
    end), ...], and what each token sees within its own branch, boolean (Q, 1, k, columns)."""

    prefix: Any
    runs: list[tuple[int, int, int]]
    own_mask: torch.Tensor


class SplitBranches(Branches):
    """Branches that copy nothing of their prefix. Jobs about one image must be adjacent.

    Raises VsreError for a model whose attention cannot be replaced.
    """

    def _fork(self, prefilled: Prefilled, at: torch.Tensor) -> None:
        if not all(type(layer) is DynamicLayer for layer in prefilled.cache.layers):
            raise VsreError("the model's cache is not a plain one")
        self.prefix, self.at = prefilled.cache, at
        self.cache = DynamicCache()

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, **more: Any) -> torch.Tensor:
        columns, steps = self.mask.shape[1], ids.shape[1]
        causal = torch.ones(columns, columns, dtype=torch.bool, device=ids.device).tril_()[columns - steps :]
        # Padding sees itself, because a row that sees nothing is NaN.
        itself = torch.eye(columns, dtype=torch.bool, device=ids.device)[columns - steps :]
        own = ((self.mask[:, None, :] > 0) & causal) | itself
        split = Split(self.prefix, _runs(self.at.tolist()), own[:, None])
        with _attention(self.model, SPLIT):
            out = self.model(split=split, **self._inputs(ids, positions), **more)
        self.logits = out.logits[:, -1].float()
        return out.logits

    def select(self, rows: torch.Tensor) -> Self:
        some = super().select(rows)
        some.at = self.at[rows]
        return some


def _runs(rows: list[int]) -> list[tuple[int, int, int]]:
    """[0, 0, 3] -> [(0, 0, 2), (3, 2, 3)]."""
    runs, start = [], 0
    for row, same in itertools.groupby(rows):
        end = start + len(list(same))
        runs.append((row, start, end))
        start = end
    return runs


def split_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    split: Split | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: query (Q, H, k, D), own key and value (Q, G, columns, D), to (Q, k, H, D).

    Raises VsreError for what it does not compute: windows, capped scores, sinks.
    """
    special = [name for name in ("sliding_window", "softcap", "s_aux") if kwargs.get(name) is not None]
    if split is None or special:
        raise VsreError(f"{type(module).__name__} attends in a way of its own ({', '.join(special) or 'no split'})")
    layer: Any = module.layer_idx
    prefix = split.prefix.layers[layer]
    heads, groups = query.shape[1], key.shape[1]
    own, own_lse = _attend(
        query,
        repeat_kv(key, heads // groups),
        repeat_kv(value, heads // groups),
        scaling,
        split.own_mask.to(query.device),
    )
    seen, seen_lse = torch.empty_like(own), torch.empty_like(own_lse)
    for row, first, end in split.runs:
        # All branches of the image, and all heads that share keys, are queries of the same keys: (1, G, n, D).
        asked = query[first:end].unflatten(1, (groups, -1)).transpose(0, 1).flatten(1, 3)[None]
        out, lse = _attend(asked, prefix.keys[row : row + 1], prefix.values[row : row + 1], scaling, None)
        shape = (groups, end - first, heads // groups, query.shape[2])
        seen[first:end] = out[0].unflatten(1, shape[1:]).transpose(0, 1).flatten(1, 2)
        seen_lse[first:end] = lse[0].view(shape).transpose(0, 1).flatten(1, 2)
    weight = torch.sigmoid(own_lse - seen_lse)[..., None].to(own.dtype)
    return torch.lerp(seen, own, weight).transpose(1, 2).contiguous(), None


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and, in float32, each query's log-sum-exp: (..., n, D) and (..., n)."""
    if q.device.type == "cpu" and q.shape[-1] == v.shape[-1]:
        bias = None
        if mask is not None:
            bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill_(~mask, float("-inf"))
        return _flash(q, k, v, attn_mask=bias, scale=scale)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale) @ k.mT).float()  # float16 ends at 65,504
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse


AttentionInterface.register(SPLIT, split_attention)


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    """Have the language model compute attention by the function registered as `name` within the context."""
    text = model.config.get_text_config()
    found = [m for m in model.modules() if isinstance(m, PreTrainedModel) and m.config.model_type == text.model_type]
    if not found or not all(m._can_set_attn_implementation() and m._supports_attention_backend for m in found):
        raise VsreError("the language model's attention cannot be replaced")
    configs = {id(c): c for c in (text, *(m.config for m in found))}.values()
    before = [c._attn_implementation for c in configs]
    for config in configs:
        config._attn_implementation_internal = name
    try:
        yield
    finally:
        for config, kind in zip(configs, before, strict=True):
            config._attn_implementation_internal = kind
