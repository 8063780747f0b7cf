"""The shape of a model from configs alone: parameters, widths and tokens; nothing is allocated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig

from vsre.diagnose.prompts import Renderer
from vsre.errors import VsreError
from vsre.model import (
    ENCODERS,
    EncoderSpec,
    VsreConfig,
    VsreForConditionalGeneration,
    config_with,
    count_parameters,
    fusion_from,
    spec_from_config,
)
from vsre.model.checkpoints import encoder_name, locate
from vsre.model.specs import check_spec, vision_config
from vsre.recipes.hub import Checkpoints, OutOfReach, shapes
from vsre.recipes.near import nearest
from vsre.recipes.schema import EncoderChoice, Start
from vsre.recipes.start import with_options
from vsre.train.parts import parts_of

UNKNOWN = 1024
"""Visual tokens assumed for a picture if nothing says how many there are."""

PHOTO = (640, 480)
"""Size in pixels of the picture that a processor is tried on, as most of COCO's are."""


@dataclass(frozen=True)
class Shape:
    """What determines memory and time.

    parameters      how many, by module group
    hidden, inner   widths of the language model and of its gated layers; `queries`, `keys`: of all heads together
    layer, linear   parameters of one decoder layer, and name and (inputs, outputs) of each of its linear layers
    picture_tokens  visual tokens of a photograph; UNKNOWN if `guessed`
    picture_flops   of the encoders' forward pass, for one picture
    packs           whether all questions of a picture share a sequence
    """

    parameters: dict[str, int]
    hidden: int
    inner: int
    layers: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    positions: int
    picture_tokens: int
    guessed: bool
    picture_flops: float
    layer: int
    linear: tuple[tuple[str, tuple[int, int]], ...]
    packs: bool


def shape_of(start: Start, checkpoints: Checkpoints) -> Shape:
    """Return the shape of what a model starts with.

    Raises OutOfReach if its configs are out of reach or its layers are of a kind without estimates, and VsreError if
    its parts do not fit together.
    """
    if start.llm is not None:
        pairs = [encoder(choice, checkpoints) for choice in start.encoders]
        text = checkpoints.config(start.llm).get_text_config(decoder=True)
        config: PreTrainedConfig = VsreConfig.of(text, pairs, fusion=fusion_from(start.fusion))
    else:
        config = checkpoints.config(str(start.vlm or start.checkpoint))
        if start.encoders:
            config = config_with(config, [choice.id for choice in start.encoders])
    with torch.device("meta"):
        if isinstance(config, VsreConfig):
            model: Any = VsreForConditionalGeneration(config)
        else:
            try:
                model = AutoModelForImageTextToText.from_config(config)
            except ValueError as error:
                raise VsreError(
                    f"{start.vlm or start.checkpoint}: a model of type {config.model_type} sees no pictures. Give "
                    "a language model as `llm`, with `encoders`."
                ) from error
    tokens = config.image_tokens if isinstance(config, VsreConfig) else _picture_tokens(start, config, checkpoints)
    try:
        return _shape(model, config, tokens, packs=start.vlm is None)
    except (AttributeError, StopIteration) as error:  # an encoder-decoder, or layers of another kind
        raise OutOfReach(f"memory and hours are not estimated for models of type {config.model_type}") from error


def encoder(choice: EncoderChoice, checkpoints: Checkpoints) -> tuple[EncoderSpec, PreTrainedConfig]:
    """Return an encoder's spec and vision config. Raises VsreError for an unknown name, suggesting the nearest one."""
    spec = ENCODERS.get(choice.id)
    if spec is None:
        if "/" not in choice.id and ":" not in choice.id and checkpoints.find(choice.id).source != "folder":
            raise VsreError(f"encoder {choice.id!r}: there is no encoder of this name. {nearest(choice.id, ENCODERS)}")
        config = vision_config(checkpoints.config(choice.id))
        spec = spec_from_config(config, encoder_name(choice.id), choice.id)
    else:
        config = vision_config(checkpoints.config(spec.checkpoint))
    spec = with_options(spec, choice)
    check_spec(spec, config)
    return spec, config


def _shape(model: Any, config: PreTrainedConfig, picture_tokens: int | None, *, packs: bool) -> Shape:
    text = config.get_text_config(decoder=True)
    ours = isinstance(config, VsreConfig)
    speaker = model.language_model if ours else model.get_decoder()
    layer = next(m[0] for m in speaker.modules() if isinstance(m, nn.ModuleList) and len(m) == text.num_hidden_layers)
    linear = [(at.rpartition(".")[2], m) for at, m in layer.named_modules() if isinstance(m, nn.Linear)]
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if ours:
        parameters = {group: count for group, (count, _) in count_parameters(model).items()}
        patches = {spec.name: spec.grid**2 for spec in config.specs}
        flops = sum(2.0 * _count(model.encoders[name].parameters()) * n for name, n in patches.items())
    else:
        parameters = {group: _count(found) for group, found in parts_of(model).groups.items()}
        flops = 2.0 * parameters["encoders"] * (picture_tokens or UNKNOWN) * _patches_a_token(config)
    return Shape(
        parameters=parameters,
        hidden=text.hidden_size,
        inner=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        queries=width * text.num_attention_heads,
        keys=width * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
        vocabulary=text.vocab_size,
        positions=text.max_position_embeddings,
        picture_tokens=picture_tokens or UNKNOWN,
        guessed=picture_tokens is None,
        picture_flops=flops,
        layer=_count(layer.parameters()),
        linear=tuple((at, (m.in_features, m.out_features)) for at, m in linear),
        packs=packs,
    )


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in {id(p): p for p in parameters}.values())


def _picture_tokens(start: Start, config: PreTrainedConfig, checkpoints: Checkpoints) -> int | None:
    """Return a photograph's visual tokens: as the package knows, as the config says, or by trying the processor."""
    name = str(start.vlm or start.checkpoint)
    known = shapes().get(name, {}).get("picture_tokens")
    known = known or getattr(config, "image_seq_length", None) or getattr(config, "mm_tokens_per_image", None)
    if known or checkpoints.find(name).source == "package":
        return known
    path, _ = locate(name)
    try:
        processor = AutoProcessor.from_pretrained(
            path, local_files_only=not checkpoints.online, trust_remote_code=False
        )
        renderer = Renderer(processor, config, name=name)
        asked = renderer.render(["Is it?"])
        ids = renderer.whole([Image.new("RGB", PHOTO)], asked)["input_ids"]
        return int(ids.shape[1]) - len(renderer.tokenize(asked)[0]) + 1
    except Exception:  # anything wrong with the processor is reported when it is loaded for use
        return None


def _patches_a_token(config: PreTrainedConfig) -> float:
    """Return how many patches of the encoder become one visual token."""
    vision: Any = getattr(config, "vision_config", None)
    merged = getattr(vision, "spatial_merge_size", None) or getattr(config, "scale_factor", None)
    if merged:
        return float(merged) ** 2
    a_picture = getattr(config, "mm_tokens_per_image", None)
    return (vision.image_size // vision.patch_size) ** 2 / a_picture if a_picture else 1.0
