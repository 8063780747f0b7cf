"""A one-encoder VSRE model from LLaVA, and back: the same weights under other names, equal logits.

The paper's baseline (arXiv 2412.18224) is LLaVA-1.5: CLIP's penultimate layer without CLS, a two-layer projector,
Vicuna. VSRE with that one encoder and that projector is the same function of the same pixels, which `check_equal`
checks for two given models. What differs is how a picture becomes pixels: LLaVA's processor in transformers crops it to
its centre, VSRE's never crops.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedModel,
)

from vsre.errors import VsreError
from vsre.model.adapters import LlavaProjector
from vsre.model.config import VsreConfig
from vsre.model.frame import VsreImageProcessor, encoder_pixels
from vsre.model.modeling import VsreForConditionalGeneration
from vsre.model.processing import VsreProcessor, chat_template
from vsre.model.specs import ENCODERS, EncoderSpec, spec_from_config

ADAPTER = "llava"


def vsre_from_llava(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, *, name: str = ""
) -> tuple[VsreForConditionalGeneration, VsreProcessor]:
    """A VSRE model with LLaVA's encoder, projector and language model, and its processor.

    The modules are shared with `model`, not copied. `name`: the checkpoint's, recorded if LLaVA's config does not name
    its encoder's. Raises VsreError for a LLaVA that takes several layers, drops a patch for want of a CLS token, has
    an activation other than GELU in its projector, or a vision encoder that is not known here.
    """
    spec = spec_of_llava(model.config, processor, name)
    text = copy.deepcopy(model.config.text_config)
    text.tie_word_embeddings = model.config.tie_word_embeddings
    config = VsreConfig.of(
        text, [(spec, model.config.vision_config)], image_token_id=model.config.image_token_id, dtype=model.dtype
    )
    with torch.device("meta"):
        made = VsreForConditionalGeneration(config)
    old = model.model.multi_modal_projector
    projector = LlavaProjector(spec.hidden_size, text.hidden_size).to(model.dtype)
    for at, linear in ((0, old.linear_1), (2, old.linear_2)):
        weight = linear.weight
        projector[at].weight = weight
        projector[at].bias = linear.bias if linear.bias is not None else nn.Parameter(weight.new_zeros(len(weight)))
    made.encoders[spec.name] = model.model.vision_tower
    made.adapters[spec.name] = projector
    language = made.language_model
    setattr(language, language.base_model_prefix, model.model.language_model)
    language.set_output_embeddings(model.lm_head)
    made.generation_config = model.generation_config
    made.encoders.requires_grad_(False)
    _all_there(made.eval(), "VSRE")
    side = {"height": config.frame_size, "width": config.frame_size}
    made_processor = VsreProcessor(
        VsreImageProcessor(size=side, resample=processor.image_processor.resample),
        processor.tokenizer,
        chat_template=_same_prompts(processor) or processor.chat_template,
        num_image_tokens=config.image_tokens,
        image_token=processor.image_token,
    )
    if made_processor.image_token_id != config.image_token_id:
        raise VsreError(
            f"The tokenizer's {processor.image_token} is token {made_processor.image_token_id}, the model's image "
            f"token {config.image_token_id}. Save the processor that belongs to this model beside it."
        )
    return made, made_processor


def llava_from_vsre(
    model: VsreForConditionalGeneration, processor: VsreProcessor
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA model with the modules of a one-encoder VSRE model, shared and not copied, and its processor.

    Raises VsreError for what LLaVA cannot express: several encoders, an adapter other than LLaVA's projector, a layer
    after the encoder's final norm, a budget of tokens, a language model whose head does more than a matrix product.
    """
    spec = _sayable(model.config)
    text = copy.deepcopy(model.config.text_config)
    strategy = "default" if spec.cls == "drop" else "full"
    config = LlavaConfig(
        vision_config=model.config.vision_configs[0],
        text_config=text,
        image_token_index=model.config.image_token_id,
        image_seq_length=spec.tokens,
        vision_feature_layer=spec.layer,
        vision_feature_select_strategy=strategy,
        tie_word_embeddings=text.tie_word_embeddings,
        dtype=model.dtype,
    )
    language = model.language_model
    adapter: Any = model.adapters[spec.name]
    head = language.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise VsreError(f"{type(language).__name__}: its head has a bias, which LLaVA's does not.")
    with torch.device("meta"):
        made = LlavaForConditionalGeneration(config)
    made.model.vision_tower = model.encoders[spec.name]
    made.model.multi_modal_projector.linear_1, made.model.multi_modal_projector.linear_2 = adapter[0], adapter[2]
    made.model.language_model = getattr(language, language.base_model_prefix)
    made.lm_head = head
    made.generation_config = model.generation_config
    _all_there(made.eval(), "LLaVA")
    side = {"height": spec.image_size, "width": spec.image_size}
    made_processor = LlavaProcessor(
        LlavaImageProcessorPil(
            size=side,
            crop_size=side,
            do_center_crop=False,
            do_pad=True,
            resample=processor.image_processor.resample,
            image_mean=list(spec.mean),
            image_std=list(spec.std),
        ),
        processor.tokenizer,
        patch_size=spec.patch_size,
        vision_feature_select_strategy=strategy,
        chat_template=processor.chat_template,
        image_token=processor.image_token,
        num_additional_image_tokens=int(spec.cls != "none"),
    )
    return made, made_processor


def spec_of_llava(config: LlavaConfig, processor: LlavaProcessor, name: str = "") -> EncoderSpec:
    """The encoder spec of what LLaVA takes from its vision encoder; raises VsreError as `vsre_from_llava` does."""
    vision = config.vision_config
    encoder = next((n for n, spec in ENCODERS.items() if spec.model_type == vision.model_type), "vision")
    spec = spec_from_config(vision, encoder, getattr(vision, "_name_or_path", "") or name)
    layers = (
        config.vision_feature_layer if isinstance(config.vision_feature_layer, list) else [config.vision_feature_layer]
    )
    if len(layers) != 1:
        raise VsreError(f"This LLaVA joins the layers {layers} of its encoder, but a VSRE encoder gives one.")
    if config.projector_hidden_act != "gelu":
        raise VsreError(f"This LLaVA's projector has the activation {config.projector_hidden_act!r}, VSRE's has gelu.")
    default = config.vision_feature_select_strategy == "default"
    if default and spec.cls == "none":
        raise VsreError(
            f"This LLaVA drops the first feature of {vision.model_type}, which has no CLS token: what is left is no "
            "square grid. Only vision_feature_select_strategy 'full' can be converted."
        )
    depth = vision.num_hidden_layers
    layer = layers[0] % (depth + 1) - (depth + 1)
    taken: dict[str, Any] = {
        "layer": depth if layer == -1 else layer,  # LLaVA takes the last one before the final norm; -1 is after it
        "cls": "drop" if default else "none" if spec.cls == "none" else "keep",
        "adapter": ADAPTER,
        "image_size": vision.image_size,
        "mean": tuple(processor.image_processor.image_mean),
        "std": tuple(processor.image_processor.image_std),
    }
    return dataclasses.replace(spec, **taken)


def _sayable(config: VsreConfig) -> EncoderSpec:
    """The one encoder's spec; raises VsreError if LLaVA cannot express the model."""
    if len(config.specs) != 1:
        names = ", ".join(spec.name for spec in config.specs)
        raise VsreError(f"This model has {len(config.specs)} encoders ({names}), LLaVA has one.")
    spec = config.specs[0]
    if spec.adapter != ADAPTER:
        raise VsreError(
            f"Encoder {spec.name} has the adapter {spec.adapter!r}; LLaVA's projector has two layers. Only a model "
            "with the adapter 'llava' can go back, as `vsre convert from-llava` makes it."
        )
    if spec.layer == -1 and spec.model_type != "clip_vision_model":
        raise VsreError(f"Encoder {spec.name}: its last layer is taken after the final norm, LLaVA takes it before.")
    if spec.tokens != spec.grid**2 + (spec.cls == "keep"):
        raise VsreError(f"Encoder {spec.name} is resampled to {spec.tokens} tokens, which LLaVA cannot do.")
    return spec


def _same_prompts(processor: LlavaProcessor) -> str | None:
    """VSRE's chat template, which ends answers and marks them for training, if it asks as the processor's own does."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]}]
    ours = chat_template()
    rendered = {
        processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
        for template in (processor.chat_template or ours, ours)
    }
    return ours if len(rendered) == 1 else None


def _all_there(model: PreTrainedModel, kind: str) -> None:
    missing = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if missing:
        raise VsreError(f"{kind} would need weights that this model does not have ({', '.join(missing[:3])}).")


@torch.no_grad()
def check_equal(vsre: VsreForConditionalGeneration, llava: LlavaForConditionalGeneration) -> float:
    """The largest difference between the two models' logits on one random square picture and some text.

    Raises VsreError if it is more than rounding (8 epsilon of the largest logit).
    """
    spec, config = vsre.config.specs[0], vsre.config
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, (1, 3, config.frame_size, config.frame_size), generator=generator, dtype=torch.uint8)
    vocabulary, image_token = config.get_text_config().vocab_size, config.image_token_id
    text = torch.randint(0, vocabulary, (1, 12), generator=generator)
    text[text == image_token] = (image_token + 1) % vocabulary
    ids = torch.cat([text[:, :4], torch.full((1, config.image_tokens), image_token), text[:, 4:]], dim=1)
    ids = ids.to(vsre.device)
    frame = frame.to(vsre.device)
    one: Any = vsre(input_ids=ids, pixel_values=frame).logits
    other: Any = llava(input_ids=ids, pixel_values=encoder_pixels(frame, spec).to(llava.dtype)).logits
    apart, largest = float((one - other).abs().max()), float(other.abs().max())
    if not apart <= 8 * torch.finfo(vsre.dtype).eps * largest:
        raise VsreError(
            f"The logits of the two models differ by {apart:.2g} (the largest is {largest:.2g}), so they are not the "
            f"same function. {type(vsre.language_model).__name__} may do more to its logits than LLaVA does."
        )
    return apart
