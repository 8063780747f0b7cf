"""Branches that read their prefix in place continue as each sequence does alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from vsre.diagnose import split
from vsre.diagnose.branches import Branches, prefill
from vsre.diagnose.split import SplitBranches
from vsre.errors import VsreError

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
}

PREFIXES = torch.randint(0, 97, (3, 11), generator=torch.Generator().manual_seed(1))
ROWS = [0, 0, 0, 2, 2]  # none about the second prefix, and not the same number about the others
SUFFIXES = [[5, 6, 7], [8], [9, 1, 2, 3, 4, 11], [12, 13], [5, 6, 7]]


def made(kind: type[PreTrainedModel], config: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def llama(groups: int = 6) -> Any:
    return made(LlamaForCausalLM, LlamaConfig(**SIZES, num_key_value_heads=groups))


@torch.inference_mode()
def alone(model: Any, row: int, suffix: list[int]) -> torch.Tensor:
    ids = torch.tensor([PREFIXES[row].tolist() + suffix])
    return model(input_ids=ids).logits[0, PREFIXES.shape[1] + len(suffix) - 1 :]


@torch.inference_mode()
def check(model: Any, kind: type[Branches]) -> None:
    prefilled = prefill(model, PREFIXES, {})
    before = [layer.keys.clone() for layer in prefilled.cache.layers]
    branches = kind(model, prefilled, ROWS, SUFFIXES, pad=0)
    grown = [list(s) for s in SUFFIXES]
    expect = [alone(model, r, s)[-1] for r, s in zip(ROWS, grown, strict=True)]
    torch.testing.assert_close(branches.logits, torch.stack(expect), rtol=1e-4, atol=1e-4)
    # Two tokens at once, on some of the sequences, which leaves the others as they were.
    kept = torch.tensor([1, 2, 4])
    some = branches.select(kept).extend(torch.tensor([[20, 21]] * 3))
    for i, number in enumerate(kept.tolist()):
        wanted = alone(model, ROWS[number], [*SUFFIXES[number], 20, 21])[-1]
        torch.testing.assert_close(some[i, -1], wanted, rtol=1e-4, atol=1e-4)
    for step in range(3):
        branches.extend(torch.full((len(ROWS), 1), 30 + step))
        grown = [[*s, 30 + step] for s in grown]
    expect = [alone(model, r, s)[-1] for r, s in zip(ROWS, grown, strict=True)]
    torch.testing.assert_close(branches.logits, torch.stack(expect), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(layer.keys, b) for layer, b in zip(prefilled.cache.layers, before, strict=True))
    assert expect[0].std() > 0.1  # logits that tell nothing apart would be equal for nothing


@pytest.mark.parametrize("kind", [SplitBranches, Branches])
@pytest.mark.parametrize("groups", [6, 2])
def test_equals_each_sequence_alone(kind: type[Branches], groups: int) -> None:
    check(llama(groups), kind)


def test_without_the_cpu_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula that other devices compute."""

    def attend(q: Any, k: Any, v: Any, scale: Any, mask: Any, on_cpu: Any = split._attend) -> Any:
        joined = torch.cat([v, torch.zeros_like(v[..., :1])], -1)  # another width than the keys: not for the kernel
        out, lse = on_cpu(q, k, joined, scale, mask)
        return out[..., :-1], lse

    monkeypatch.setattr(split, "_attend", attend)
    monkeypatch.setattr(split, "_flash", None)
    check(llama(2), SplitBranches)


def test_other_language_models() -> None:
    check(made(Qwen3ForCausalLM, Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8)), SplitBranches)
    check(made(MistralForCausalLM, MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=None)), SplitBranches)


def test_attention_of_another_kind_is_refused() -> None:
    window = made(MistralForCausalLM, MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=32))
    capped = made(Gemma2ForCausalLM, Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8))
    for model in (window, capped):
        with pytest.raises(VsreError, match=r"attends in a way of its own|not a plain one"):
            check(model, SplitBranches)
        assert model.config._attn_implementation != split.SPLIT
    check(window, Branches)
