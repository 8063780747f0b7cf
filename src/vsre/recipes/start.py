"""Where a model starts: a checkpoint as it is, VSRE built on a language model, or any vision-language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed

from vsre.diagnose.loading import load_model
from vsre.errors import VsreError, kind_and_line
from vsre.model import (
    ENCODERS,
    EncoderSpec,
    Fusion,
    build_vsre,
    fusion_from,
    keep_encoders,
    resolve_checkpoint,
    spec_from_checkpoint,
)
from vsre.model.checkpoints import load_weights
from vsre.recipes.schema import EncoderChoice


def encoder_specs(encoders: Sequence[str | EncoderChoice]) -> list[EncoderSpec]:
    """Return specs by the paper's names (clip, siglip, dinov2, sam) or of any checkpoint: zoo:NAME, folder, hub id."""
    specs = []
    for entry in encoders:
        choice = EncoderChoice.model_validate(entry)
        spec = ENCODERS[choice.id] if choice.id in ENCODERS else spec_from_checkpoint(choice.id)
        specs.append(with_options(spec, choice))
    return specs


def with_options(spec: EncoderSpec, choice: EncoderChoice) -> EncoderSpec:
    """Return a checkpoint's spec with the chosen options. Raises VsreError for options that are not possible."""
    named = spec if choice.name is None else dataclasses.replace(spec, name=choice.name)
    return named.at(image_size=choice.image_size, tokens=choice.tokens)


def open_model(
    checkpoint: str | None,
    llm: str | None,
    encoders: Sequence[str | EncoderChoice],
    *,
    fusion: Fusion | str | Mapping[str, Any] = "sequence",
    seed: int,
    keep_cls: bool = False,
) -> tuple[Any, Any]:
    """Return the model to train and its processor, in float32; fresh adapters are drawn from `seed`.

    If the checkpoint is a VSRE model, the named `encoders` are kept as they are, or all if none is named. Raises
    VsreError for a checkpoint that is not an image-text model with its processor.
    """
    set_seed(seed)
    if llm is not None:
        return build_vsre(llm, encoder_specs(encoders), fusion=fusion_from(fusion), keep_cls=keep_cls)
    path = resolve_checkpoint(str(checkpoint))
    try:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
        if not hasattr(processor, "image_processor"):  # transformers falls back on the tokenizer
            raise ValueError("there is no processor with an image processor and a tokenizer")
        model = load_weights(AutoModelForImageTextToText, path, torch.float32)
    except (OSError, ValueError, ImportError) as error:
        raise VsreError(
            f"{checkpoint}: cannot be loaded as an image-text model ({kind_and_line(error)}). Give one whose code is "
            "in transformers or here, with its processor's files, or build on a language model as `llm`."
        ) from error
    choices = [EncoderChoice.model_validate(entry) for entry in encoders]
    if resized := [choice.id for choice in choices if choice != EncoderChoice(id=choice.id)]:
        raise VsreError(
            f"encoder {resized[0]}: {path} keeps its encoders as they are. Leave names, image sizes and tokens out, or "
            "build on an `llm`."
        )
    kept = [choice.id for choice in choices]
    return keep_encoders(model, processor, kept) if kept else (model, processor)


def open_vlm(checkpoint: str) -> tuple[Any, Any]:
    """Return any image-text model to train, in float32 on the CPU, and its own processor."""
    loaded = load_model(checkpoint, device="cpu", dtype="float32")
    return loaded.model, loaded.processor
