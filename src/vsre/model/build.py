"""Build a VSRE model from checkpoints, and check the plan before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)

from vsre.errors import VsreError
from vsre.model.checkpoints import load_config, load_weights, locate
from vsre.model.config import VsreConfig, check_language_model, check_names
from vsre.model.frame import VsreImageProcessor
from vsre.model.fusion import SEQUENCE, Fusion
from vsre.model.modeling import VsreForConditionalGeneration
from vsre.model.processing import VsreProcessor, chat_template, prepare_tokenizer
from vsre.model.specs import EncoderSpec, check_spec, vision_config

ROOM_FOR_TEXT = 256
"""Positions kept free for question and answer."""


@dataclass(frozen=True)
class PlanRow:
    """One encoder of a plan: the visual tokens that hold its features, and its own adapter.

    Under channel fusion the encoders share tokens and adapter.
    """

    encoder: str
    checkpoint: str
    image_size: int
    grid: str
    tokens: int
    adapter: str
    adapter_parameters: int


@dataclass(frozen=True)
class Plan:
    """What a model will look like: its encoders, visual tokens, and positions left for text."""

    rows: tuple[PlanRow, ...]
    fusion: str
    adapter_parameters: int
    """The sum over all adapters."""
    frame_size: int
    tokens: int
    hidden_size: int
    positions: int
    text_room: int


def plan(
    text_config: PreTrainedConfig,
    encoders: Sequence[EncoderSpec],
    *,
    fusion: Fusion = SEQUENCE,
    room_for_text: int = ROOM_FOR_TEXT,
) -> Plan:
    """The plan for a language model's config, encoder specs and how they are joined; reads nothing.

    Raises VsreError if they cannot be joined this way, and if the visual tokens leave fewer than `room_for_text` of the
    language model's positions.
    """
    if not encoders:
        raise VsreError("No encoders: give at least one encoder spec, for example vsre.model.ENCODERS['clip'].")
    check_names(encoders)
    fusion.check(encoders)
    width, positions = text_config.hidden_size, text_config.max_position_embeddings
    with torch.device("meta"):
        adapters = fusion.adapters(encoders, width)
    parameters = {name: sum(p.numel() for p in adapter.parameters()) for name, adapter in adapters.items()}
    rows = tuple(
        PlanRow(
            encoder=spec.name,
            checkpoint=spec.checkpoint,
            image_size=spec.image_size,
            grid=f"{spec.grid}x{spec.grid}",
            tokens=fusion.tokens_of(spec, encoders),
            adapter=spec.adapter if spec.name in parameters else "shared",
            adapter_parameters=parameters.get(spec.name, 0),
        )
        for spec in encoders
    )
    tokens = fusion.tokens(encoders)
    if tokens + room_for_text > positions:
        each = ", ".join(f"{row.encoder} {row.tokens}" for row in rows)
        raise VsreError(
            f"{tokens} visual tokens ({each}) leave {positions - tokens} of the language model's {positions} "
            f"positions for text, fewer than {room_for_text}. Use fewer encoders, smaller inputs, a budget of tokens, "
            "another fusion, or a language model with a longer context."
        )
    return Plan(
        rows=rows,
        fusion=fusion.kind,
        adapter_parameters=sum(parameters.values()),
        frame_size=max(spec.image_size for spec in encoders),
        tokens=tokens,
        hidden_size=width,
        positions=positions,
        text_room=positions - tokens,
    )


def plan_checkpoints(
    llm: str | Path,
    encoders: Sequence[EncoderSpec],
    *,
    fusion: Fusion = SEQUENCE,
    keep_cls: bool = False,
    room_for_text: int = ROOM_FOR_TEXT,
) -> Plan:
    """The plan for checkpoints; reads their configs but no weights.

    Raises VsreError as `plan` does, for a language model that does not stand alone, and if a spec contradicts its
    checkpoint's config.
    """
    config, _ = load_config(llm)
    text_config = config.get_text_config(decoder=True)
    check_language_model(text_config, str(llm))
    specs = [spec.with_cls() if keep_cls else spec for spec in encoders]
    made = plan(text_config, specs, fusion=fusion, room_for_text=room_for_text)
    for spec in specs:
        check_spec(spec, load_config(spec.checkpoint)[0])
    return made


def build_vsre(
    llm: str | Path,
    encoders: Sequence[EncoderSpec],
    *,
    fusion: Fusion = SEQUENCE,
    keep_cls: bool = False,
    llm_from: str | Path | None = None,
    dtype: torch.dtype | None = None,
    room_for_text: int = ROOM_FOR_TEXT,
) -> tuple[VsreForConditionalGeneration, VsreProcessor]:
    """A VSRE model with pretrained encoders and language model and new adapters, and its processor.

    `llm` is a causal language model or a vision-language model such as LLaVA, whose language model is taken:
    a hub id, a folder or `zoo:NAME`. With `llm_from` the language model's weights and tokenizer come from
    that checkpoint, which must have the same architecture. `fusion` says how the encoders are joined. `keep_cls` keeps
    the CLS tokens. `dtype` defaults to float32. New adapters are drawn from torch's global generator: seed it for a
    reproducible model. Token budget, grids and specs are checked before any weight is read; what cannot work raises
    VsreError.
    """
    specs = [spec.with_cls() if keep_cls else spec for spec in encoders]
    plan_checkpoints(llm, specs, fusion=fusion, room_for_text=room_for_text)
    if llm_from is not None:
        _check_same_architecture(llm, llm_from)
    dtype = dtype or torch.float32
    language_model, tokenizer = load_language_model(llm_from or llm, dtype)
    prepare_tokenizer(tokenizer)
    if len(tokenizer) > language_model.get_input_embeddings().num_embeddings:
        # The mean of all rows, transformers' default, would depend on the number of threads; the new rows are not read.
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)

    towers = {spec.name: load_encoder(spec, dtype) for spec in specs}
    language_model.config.name_or_path = ""  # a path on this machine means nothing elsewhere
    config = VsreConfig.of(
        language_model.config,
        [(spec, towers[spec.name].config) for spec in specs],
        fusion=fusion,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        dtype=dtype,
    )
    # Built empty, so that a large language model is never in memory twice.
    with torch.device("meta"):
        model = VsreForConditionalGeneration(config)
    model.adapters.to_empty(device="cpu").to(dtype)
    for module in model.adapters.modules():
        model._init_weights(module)
    for name, tower in towers.items():
        model.encoders[name] = tower
    model.language_model = language_model
    model.encoders.requires_grad_(False)
    model.generation_config = language_model.generation_config
    model.eval()

    processor = VsreProcessor(
        VsreImageProcessor(size={"height": config.frame_size, "width": config.frame_size}),
        tokenizer,
        chat_template=chat_template(),
        num_image_tokens=config.image_tokens,
    )
    return model, processor


def load_encoder(spec: EncoderSpec, dtype: torch.dtype) -> PreTrainedModel:
    """The vision encoder a spec names; only the vision part of a full CLIP, SigLIP or SAM checkpoint."""
    config, path = load_config(spec.checkpoint)
    vision = vision_config(config)
    return load_weights(MODEL_MAPPING[type(vision)], path, dtype, config=vision)


def load_language_model(checkpoint: str | Path, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """A causal language model and its tokenizer, also from a vision-language checkpoint or a GGUF file."""
    config, _ = load_config(checkpoint)
    path, more = locate(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **more)
    text_config = config.get_text_config(decoder=True)
    if text_config is config:
        model = load_weights(AutoModelForCausalLM, path, dtype, **more)
        if more:  # a GGUF file: dequantised, but it would be saved as a quantised model, which cannot be trained
            del model.config.quantization_config
            model.is_quantized = False
        return model, tokenizer
    whole = load_weights(AutoModelForImageTextToText, path, dtype)
    decoder = whole.get_decoder()
    if decoder.get_output_embeddings() is not None:
        return decoder, tokenizer
    head = whole.get_output_embeddings()
    # Many such checkpoints say so only at the top of their config; a model saved as not tied would lack its head.
    text_config.tie_word_embeddings = head.weight is decoder.get_input_embeddings().weight
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text_config)
    setattr(model, model.base_model_prefix, decoder)
    model.set_output_embeddings(head)
    model.generation_config = whole.generation_config
    return model, tokenizer


def _check_same_architecture(llm: str | Path, llm_from: str | Path) -> None:
    wanted, given = (load_config(c)[0].get_text_config(decoder=True) for c in (llm, llm_from))
    for field in (
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
    ):
        a, b = getattr(wanted, field, None), getattr(given, field, None)
        if a != b:
            raise VsreError(
                f"llm_from={llm_from}: its language model has {field} {b}, that of {llm} has {a}. Take the "
                "weights from a checkpoint of the same architecture, or give it as the language model."
            )


def module_groups(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules of "encoders", "adapters" and "llm" of a VSRE or LLaVA model.

    Together they hold every parameter. Raises VsreError for any other model.
    """
    if isinstance(model, VsreForConditionalGeneration):
        return {
            "encoders": list(model.encoders.values()),
            "adapters": list(model.adapters.values()),
            "llm": [model.language_model],
        }
    if isinstance(model, LlavaForConditionalGeneration):
        return {
            "encoders": [model.model.vision_tower],
            "adapters": [model.model.multi_modal_projector],
            "llm": [model.model.language_model, model.lm_head],
        }
    raise VsreError(
        f"{type(model).__name__}: only VSRE and LLaVA models can be split into encoders, adapters and "
        "language model. Use a checkpoint of one of these."
    )


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Parameters of each module group: (all, trainable). Tied weights count once."""
    counts = {}
    for group, modules in module_groups(model).items():
        parameters = {id(p): p for module in modules for p in module.parameters()}.values()
        counts[group] = (
            sum(p.numel() for p in parameters),
            sum(p.numel() for p in parameters if p.requires_grad),
        )
    return counts
