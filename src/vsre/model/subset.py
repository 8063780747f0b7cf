"""A VSRE model with only some of its encoders, so that the arms of an ablation start with all other weights alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vsre.errors import VsreError
from vsre.model.config import VsreConfig
from vsre.model.frame import VsreImageProcessor
from vsre.model.modeling import VsreForConditionalGeneration
from vsre.model.processing import VsreProcessor


def config_with(config: Any, names: Sequence[str]) -> VsreConfig:
    """The config of a VSRE model with only these of its encoders, in its own order.

    Raises VsreError for a model of another kind, a name it does not have, and encoders that share an adapter.
    """
    if not isinstance(config, VsreConfig):
        raise VsreError(f"encoders {', '.join(names)}: only a VSRE model can be reduced to some of its encoders.")
    known = [spec.name for spec in config.specs]
    if strange := [name for name in names if name not in known]:
        raise VsreError(f"encoder {strange[0]!r}: the model has {', '.join(known)}.")
    if len(config.fused_by.adapters(config.specs, 8)) < len(known):
        raise VsreError(f"fusion {config.fused_by.kind}: its encoders share an adapter, so none can be left out.")
    fields = config.to_dict()
    fields["encoders"] = [entry for entry in fields["encoders"] if entry["spec"]["name"] in names]
    return VsreConfig(**fields)


def keep_encoders(
    model: Any, processor: VsreProcessor, names: Sequence[str]
) -> tuple[VsreForConditionalGeneration, VsreProcessor]:
    """The model without its other encoders and their adapters, and a processor for it; parts are shared, not copied.

    Raises VsreError as `config_with` does.
    """
    config = config_with(model.config, names)
    with torch.device("meta"):
        kept = VsreForConditionalGeneration(config)
    for spec in config.specs:
        kept.encoders[spec.name] = model.encoders[spec.name]
        kept.adapters[spec.name] = model.adapters[spec.name]
    kept.language_model = model.language_model
    kept.generation_config = model.generation_config
    side = {"height": config.frame_size, "width": config.frame_size}
    smaller = VsreProcessor(
        VsreImageProcessor(size=side),
        processor.tokenizer,
        chat_template=processor.chat_template,
        num_image_tokens=config.image_tokens,
    )
    return kept.eval(), smaller
