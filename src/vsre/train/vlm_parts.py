"""The parts of any vision-language model of transformers: what sees, what speaks, and what joins the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration
from vsre.train.stages import Lora, Stage


@dataclass(frozen=True)
class Parts:
    """`groups` hold every parameter once: "encoders" those of `eyes`, "llm" those of `llm` and the output layer,
    "adapters" all others. Some models have no adapter beside their encoder (Qwen-VL's merger is within it).
    """

    eyes: nn.Module
    llm: nn.Module
    groups: dict[str, list[nn.Parameter]]


def parts_of(model: Any) -> Parts:
    """The parts as transformers tells them apart. Raises VsreError where it cannot, and for VSRE models."""
    name = type(model).__name__
    if isinstance(model, VsreForConditionalGeneration):
        raise VsreError(
            f"{name}: a VSRE model trains as a `checkpoint`, its questions packed by image, not as a `vlm`."
        )
    eyes, llm = model.get_encoder(modality="image"), model.get_decoder()
    if eyes is model or llm is model:
        what = "vision encoder" if eyes is model else "language model"
        raise VsreError(f"{name}: transformers cannot tell its {what} from the rest, so no stage can say what trains.")
    seeing = {id(p) for p in eyes.parameters()}
    head = model.get_output_embeddings()
    speaking = {id(p) for module in (llm, head) if module is not None for p in module.parameters()}
    groups: dict[str, list[nn.Parameter]] = {"encoders": [], "adapters": [], "llm": []}
    for parameter in model.parameters():
        at = id(parameter)
        groups["encoders" if at in seeing else "llm" if at in speaking else "adapters"].append(parameter)
    return Parts(eyes, llm, groups)


def freeze_parts(model: Any, stage: Stage) -> list[nn.Module]:
    """Let what a stage trains learn and freeze every other parameter; returns the modules to keep in eval mode.

    Raises VsreError where nothing of it would learn.
    """
    parts = parts_of(model)
    model.requires_grad_(False)
    learning = [p for g in stage.train if not (g == "llm" and stage.lora) for p in parts.groups[g]]
    for parameter in learning:
        parameter.requires_grad_(True)
    if not learning and not stage.lora:
        raise VsreError(
            f"stage {stage.name}: {type(model).__name__} has no {' or '.join(stage.train)} that could train. What "
            "joins its encoder and language model lies in its encoder: put encoders or llm into train."
        )
    asleep = [] if "encoders" in stage.train else [parts.eyes]
    if "llm" not in stage.train and not stage.gradient_checkpointing:
        asleep.append(parts.llm)
    return asleep


class LowRank:
    """Low-rank layers in the language model of any model, for one stage (LoRA by peft)."""

    def __init__(self, model: Any, options: Lora, *, seed: int, bf16: bool) -> None:
        """Put them in, drawn from `seed`, and let them train; frozen weights beneath are held in bf16 where the stage
        computes in it. Raises VsreError for weights in 4 bits, and where no layer has one of the target names.
        """
        from peft import LoraConfig
        from peft.tuners.lora import LoraLayer, LoraModel

        if options.quantise != "none":
            raise VsreError("lora: quantise is for VSRE and LLaVA checkpoints; a `vlm` takes quantise: none.")
        targets = options.targets if options.targets == "all-linear" else list(options.targets)
        config = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                self._peft = LoraModel(parts_of(model).llm, config, "default")
            except ValueError as error:
                raise VsreError(f"lora: {error}") from error
        self._layers: list[Any] = [m for m in model.modules() if isinstance(m, LoraLayer)]
        self._dtypes = [layer.base_layer.weight.dtype for layer in self._layers]
        for layer in self._layers:
            layer.base_layer.requires_grad_(False)
            if bf16:
                layer.base_layer.to(torch.bfloat16)

    def merge(self) -> None:
        """Add what was learnt to the weights beneath, in the dtype that they came in, and take the layers out."""
        for layer, dtype in zip(self._layers, self._dtypes, strict=True):
            layer.base_layer.to(dtype)
        self._peft.merge_and_unload()
