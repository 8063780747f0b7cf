"""Low-rank layers in a model's language model: added for a stage, merged at its end (LoRA, and QLoRA in 4 bits).

The model stays what it is, with some linear layers replaced by peft's, so everything that trains a whole language
model trains these too. Frozen weights beneath them are held in bf16 if the stage computes in it (which rounds them
anyway), or in NF4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from vsre.errors import VsreError
from vsre.train.parts import parts_of
from vsre.train.processes import processes
from vsre.train.stages import Lora, Stage


def check_lora(stages: Iterable[Stage]) -> None:
    """Raise VsreError if a stage asks for LoRA and a package or device for it is missing; loads nothing."""
    for stage in stages:
        if stage.lora and not find_spec("peft"):
            raise VsreError(f"stage {stage.name}: lora needs the package peft. Install vsre[lora].")
        if stage.lora and stage.lora.quantise == "4bit" and not find_spec("bitsandbytes"):
            raise VsreError(
                f"stage {stage.name}: quantise: 4bit needs the package bitsandbytes. Install vsre[qlora], or set "
                "quantise: none."
            )
        if stage.lora and stage.lora.quantise == "4bit" and not torch.cuda.is_available():
            raise VsreError(f"stage {stage.name}: quantise: 4bit needs a CUDA device. Set quantise: none.")


class LoraLayers:
    """The low-rank layers of one model during one stage; `merge` or `remove` ends them."""

    def __init__(self, model: Any, options: Lora, *, seed: int, bf16: bool) -> None:
        """Add the layers, initialised from `seed`, and let them train; everything else keeps its requires_grad.

        Raises VsreError if no layer has one of the names in `options.targets`.
        """
        from peft import LoraConfig
        from peft.tuners.lora import LoraLayer, LoraModel

        llm = parts_of(model).llm
        targets = options.targets if options.targets == "all-linear" else list(options.targets)
        config = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets
        )
        if not _targeted(llm, options):
            names = sorted({name.rpartition(".")[2] for name, _ in _linear_layers(llm)})
            if not names:
                raise VsreError(f"lora: {type(llm).__name__} has no linear layer (nn.Linear). Take lora out.")
            raise VsreError(f"lora: no linear layer is called {' or '.join(targets)}. There are: {', '.join(names)}.")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._peft = LoraModel(llm, config, "default")
        self._layers: list[Any] = [m for m in llm.modules() if isinstance(m, LoraLayer)]
        self._dtypes = [layer.base_layer.weight.dtype for layer in self._layers]
        for layer, dtype in zip(self._layers, self._dtypes, strict=True):
            base = layer.base_layer
            if options.quantise == "4bit":
                layer.base_layer = _in_four_bits(base, torch.bfloat16 if bf16 else dtype)
            elif bf16:
                base.to(torch.bfloat16)

    def merge(self) -> None:
        """Add what was learnt to the weights beneath, in their original dtype, and take the layers out."""
        self._float()
        self._peft.merge_and_unload(safe_merge=False)
        self._layers = []

    def remove(self) -> None:
        """Take the layers out with what they learnt; does nothing once they are merged."""
        if self._layers:
            self._float()
            self._peft.unload()
            self._layers = []

    def _float(self) -> None:
        for layer, dtype in zip(self._layers, self._dtypes, strict=True):
            layer.base_layer = _floating(layer.base_layer, dtype)


@contextmanager
def lora_layers(model: nn.Module, stage: Stage, seed: int) -> Iterator[LoraLayers | None]:
    """A stage's low-rank layers, gone from the model afterwards whatever happens; None for a stage without `lora`."""
    layers = LoraLayers(model, stage.lora, seed=seed, bf16=stage.bf16) if stage.lora else None
    try:
        yield layers
    finally:
        if layers:
            layers.remove()


def lora_parameters(model: nn.Module, options: Lora) -> int:
    """The number of parameters of a model's low-rank layers: rank x (inputs + outputs) of each targeted layer."""
    layers = _targeted(parts_of(model).llm, options)
    return sum(options.rank * (layer.in_features + layer.out_features) for layer in layers)


def _linear_layers(llm: Any) -> list[tuple[str, nn.Linear]]:
    """The linear layers of a language model except its output layer, as in peft's all-linear."""
    head = llm.get_output_embeddings()
    return [(n, m) for n, m in llm.named_modules() if isinstance(m, nn.Linear) and m is not head]


def _targeted(llm: Any, options: Lora) -> list[nn.Linear]:
    every = options.targets == "all-linear"
    return [m for n, m in _linear_layers(llm) if every or n.rpartition(".")[2] in options.targets]


def _in_four_bits(linear: nn.Linear, compute: torch.dtype) -> nn.Module:
    """The layer with its weight in NF4, the scales quantised too, on the device of this process."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    how = {"quant_type": "nf4", "compress_statistics": True}
    bias = linear.bias is not None
    layer: nn.Module = Linear4bit(linear.in_features, linear.out_features, bias, compute_dtype=compute, **how)
    layer.weight = Params4bit(linear.weight.data, requires_grad=False, **how)
    layer.bias = linear.bias
    return layer.to(processes().device)  # the move quantises


def _floating(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The frozen layer as a plain one with floating-point weights."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return layer.to(dtype)
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(layer.weight.data, state).to(dtype)
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), layer.bias  # type: ignore[assignment]
    return plain
