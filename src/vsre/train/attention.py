"""Attention over packed questions, in the form that each of the language model's implementations takes.

All compute the same: a token sees its image's prefix and the earlier tokens of its own branch.

    sdpa on a CPU    `packed`: the prefix to itself, branches to the prefix, each branch to itself; no mask at all
    sdpa elsewhere   a boolean mask (B, 1, L, L)
    eager            an additive mask (B, 1, L, L)
    flex_attention   a BlockMask
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from vsre.errors import VsreError

PACKED = "vsre_packed"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def branch_mask(branch: torch.Tensor) -> torch.Tensor:
    """The boolean mask (B, 1, L, L) for branch numbers (B, L) (0 prefix, -1 padding), True where a token may look.

    Padding looks at itself, because a row that may look nowhere gives nan in some kernels.
    """
    looking, seen = branch[:, :, None], branch[:, None, :]
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=branch.device).tril_()
    return (((seen == 0) | (looking == seen)) & causal)[:, None]


@dataclass(frozen=True)
class Layout:
    """Where the branches of a batch of packs lie. N branches, the longest of T tokens; R = L - prefix.

    `slots` (N, T): which of the B x R tokens after the prefixes is at each place of a branch; a short branch
    repeats its last token, and `filled` (N, T) is False there. `places` (B x R): the way back, indices into N x T;
    `alone` (B x R): True for padding, which is in no branch.
    """

    branch: torch.Tensor
    prefix: int
    slots: torch.Tensor
    filled: torch.Tensor
    places: torch.Tensor
    alone: torch.Tensor

    @classmethod
    def of(cls, branch: torch.Tensor) -> Layout:
        """The layout of branch numbers (B, L) as Packer makes them: prefixes of one length, padding on the right.

        Raises ValueError for prefixes of different lengths.
        """
        length = branch.shape[1]
        prefix = int((branch[0] == 0).sum())
        if bool(((branch == 0).sum(1) != prefix).any()):
            raise ValueError("the prefixes of a batch of packs have several lengths")
        tails = branch[:, prefix:].reshape(-1)
        alone = tails < 0
        tokens = torch.nonzero(~alone)[:, 0]
        row = tokens // max(1, length - prefix)
        _, number, sizes = torch.unique_consecutive(
            row * (length + 1) + tails[tokens], return_inverse=True, return_counts=True
        )
        first = torch.cumsum(sizes, 0) - sizes  # (N,), where each branch begins in `tokens`
        longest = int(sizes.max())
        steps = torch.arange(longest, device=branch.device)
        slots = tokens[first[:, None] + torch.minimum(steps, sizes[:, None] - 1)]
        places = torch.zeros_like(tails)
        places[tokens] = number * longest + torch.arange(len(tokens), device=branch.device) - first[number]
        return cls(branch, prefix, slots, steps < sizes[:, None], places, alone)


class _Packed(torch.autograd.Function):
    """PyTorch's CPU kernel on three parts, combined by their log-sum-exps.

    The kernel's backward pass needs only the combined output and log-sum-exps, so it is called on each part with
    those, and the gradients add up to the exact ones.
    """

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, layout: Layout, scale: float | None) -> torch.Tensor:
        p = layout.prefix
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        out[:, :, :p], lse_prefix = _flash(q[:, :, :p], k[:, :, :p], v[:, :, :p], is_causal=True, scale=scale)
        seen, lse_seen = _flash(q[:, :, p:], k[:, :, :p], v[:, :, :p], scale=scale)
        own, lse_own = _flash(
            _fold(q, layout), _fold(k, layout), _fold(v, layout), is_causal=True, scale=scale
        )  # (N, H, T, D), (N, H, T)
        lse_own = _unfold(lse_own[..., None], layout, like=seen, fill=float("-inf"))[..., 0]
        lse = torch.logaddexp(lse_seen, lse_own)
        weight = (lse_own - lse).exp_()[..., None].to(q.dtype)
        out[:, :, p:] = torch.lerp(seen, _unfold(own, layout, like=seen), weight)
        ctx.save_for_backward(q, k, v, out, lse_prefix, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        q, k, v, out, lse_prefix, lse = ctx.saved_tensors
        layout, scale, p = ctx.layout, ctx.scale, ctx.layout.prefix
        grad = grads[0]
        head = [x[:, :, :p] for x in (grad, q, k, v, out)]
        dq_head, dk, dv = _flash_backward(*head, lse_prefix, 0.0, True, scale=scale)
        tail = [grad[:, :, p:], q[:, :, p:], k[:, :, :p], v[:, :, :p], out[:, :, p:]]
        dq_tail, dk_seen, dv_seen = _flash_backward(*tail, lse, 0.0, False, scale=scale)
        folded = [_fold(x, layout) for x in (grad, q, k, v, out)]
        folded[0] = folded[0] * layout.filled[:, None, :, None]
        folded_lse = _fold(F.pad(lse, (p, 0))[..., None], layout)[..., 0]
        own = _flash_backward(*folded, folded_lse, 0.0, True, scale=scale)
        dq_own, dk_own, dv_own = (_unfold(x, layout, like=dq_tail) for x in own)
        dq = torch.cat([dq_head, dq_tail + dq_own], 2)
        return dq, torch.cat([dk + dk_seen, dk_own], 2), torch.cat([dv + dv_seen, dv_own], 2), None, None


def _fold(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The branches of (B, H, L, D), as (N, H, T, D)."""
    tails = x[:, :, layout.prefix :].transpose(1, 2).flatten(0, 1)  # (B x R, H, D)
    return tails[layout.slots].transpose(1, 2)


def _unfold(x: torch.Tensor, layout: Layout, *, like: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """(N, H, T, D) back to (B, H, R, D), `fill` where there is padding."""
    rows, heads, length = like.shape[:3]
    tails = x.transpose(1, 2).flatten(0, 1)[layout.places]  # (B x R, H, D)
    tails = tails.masked_fill_(layout.alone[:, None, None], fill)
    return tails.view(rows, length, heads, -1).transpose(1, 2)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: query (B, H, L, D), key and value (B, G, L, D), to (B, L, H, D).

    Raises VsreError if the model does not pass its extra arguments down to its attention.
    """
    if packed_layout is None:
        raise VsreError(
            f"{type(module).__name__} was not told how the questions are packed. Load the model with "
            "attn_implementation='eager', or set questions_per_image: 1."
        )
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if dropout or query.shape[-1] != value.shape[-1]:  # the kernel supports neither
        mask = branch_mask(packed_layout.branch)
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling)
    groups = query.shape[1] // key.shape[1]
    out = _Packed.apply(query, repeat_kv(key, groups), repeat_kv(value, groups), packed_layout, scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED, packed_attention)


class BranchAttention:
    """Gives a model's attention what it needs to keep packed questions apart, and leaves its configuration as it was.

    Raises VsreError if the language model's attention implementation cannot do it.
    """

    def __init__(self, model: Any) -> None:
        text = model.config.get_text_config()
        self.kind = text._attn_implementation
        if self.kind not in ("sdpa", "eager", "flex_attention"):
            raise VsreError(
                f"attention {self.kind!r} does not take the mask that keeps packed questions apart. Load the model "
                "with attn_implementation='sdpa', or set questions_per_image: 1."
            )
        self.model, self.dtype = model, model.dtype
        same = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
        self._configs = list({id(c): c for c in [text, *same] if c is text or c.model_type == text.model_type}.values())
        self.packed = self.kind == "sdpa" and _by_interface(model, text)

    @property
    def maskless(self) -> bool:
        """Whether `packed` attention is used: decided when asked, because a model may be moved to another device."""
        return self.packed and self.model.device.type == "cpu"

    def inputs(self, branch: torch.Tensor) -> dict[str, Any]:
        """The arguments of `forward` for branch numbers (B, L): an attention mask or, within `active`, the layout."""
        if self.maskless:
            return {"packed_layout": Layout.of(branch)}
        if self.kind == "flex_attention":
            return {"attention_mask": _block_mask(branch)}
        mask = branch_mask(branch)
        if self.kind == "sdpa":
            return {"attention_mask": mask}
        scores = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device)
        return {"attention_mask": scores.masked_fill_(~mask, torch.finfo(self.dtype).min)}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, the language model computes `packed` attention, forward and backward; outside it, its own."""
        if not self.maskless:
            yield
            return
        for config in self._configs:
            config._attn_implementation_internal = PACKED
        try:
            yield
        finally:
            for config in self._configs:
                config._attn_implementation_internal = self.kind


def _by_interface(model: Any, text: Any) -> bool:
    """Whether the language model's classes look up their attention through transformers' interface."""
    found = [m for m in model.modules() if isinstance(m, PreTrainedModel) and m.config.model_type == text.model_type]
    return bool(found) and all(m._can_set_attn_implementation() and m._supports_attention_backend for m in found)


def _block_mask(branch: torch.Tensor) -> Any:
    def may_look(b: torch.Tensor, _: torch.Tensor, looking: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        same = branch[b, looking] == branch[b, seen]
        return (looking >= seen) & ((branch[b, seen] == 0) | same)

    rows, length = branch.shape
    return create_block_mask(may_look, rows, None, length, length, device=branch.device)
