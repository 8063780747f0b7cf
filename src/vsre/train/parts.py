"""The parts of any vision-language model in transformers: what sees, what speaks, and what joins the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from vsre.errors import VsreError
from vsre.model import VsreForConditionalGeneration, module_groups
from vsre.train.stages import Stage


@dataclass(frozen=True)
class Parts:
    """`groups` has every parameter once: "encoders" those of `eyes`, "llm" those of `llm` and the output layer,
    "adapters" all others. Some models have no adapter outside their encoder (Qwen-VL's merger is inside it).
    """

    eyes: nn.Module
    llm: nn.Module
    groups: dict[str, list[nn.Parameter]]


def parts_of(model: Any) -> Parts:
    """The parts of a model, as transformers or, for its own models, VSRE names them. Raises VsreError if it cannot."""
    name = type(model).__name__
    if isinstance(model, VsreForConditionalGeneration):
        groups = {g: [p for m in modules for p in m.parameters()] for g, modules in module_groups(model).items()}
        return Parts(model.encoders, model.language_model, groups)
    eyes, llm = model.get_encoder(modality="image"), model.get_decoder()
    if eyes is model or llm is model:
        what = "vision encoder" if eyes is model else "language model"
        raise VsreError(f"{name}: transformers cannot tell its {what} from the rest, so no stage can say what trains.")
    seeing = {id(p) for p in eyes.parameters()}
    head = model.get_output_embeddings()
    speaking = {id(p) for module in (llm, head) if module is not None for p in module.parameters()}
    found: dict[str, list[nn.Parameter]] = {"encoders": [], "adapters": [], "llm": []}
    for parameter in model.parameters():
        at = id(parameter)
        found["encoders" if at in seeing else "llm" if at in speaking else "adapters"].append(parameter)
    return Parts(eyes, llm, found)


def freeze_parts(model: Any, stage: Stage) -> list[nn.Module]:
    """Unfreeze what a stage trains and freeze every other parameter; returns the modules to keep in eval mode.

    Raises VsreError if nothing would train, and for VSRE models.
    """
    if isinstance(model, VsreForConditionalGeneration):
        raise VsreError(
            f"{type(model).__name__}: a VSRE model trains as a `checkpoint`, its questions packed by image, not as a "
            "`vlm`."
        )
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
    if "llm" not in stage.train:
        asleep.append(parts.llm)
    return asleep
