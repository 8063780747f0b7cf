"""Tiny random models of the Qwen-VL families; see `tiny_families`.

The processor is handed back instead of saved: to load one, transformers wants torchvision, for videos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from tiny_families import LLAMA_LIKE, special_ids, strengthen, template, tokenizer


def pictures_only(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor class without its part for videos, which transformers would not make without torchvision."""

    class PicturesOnly(kind):  # type: ignore[valid-type, misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
            return type(argument)

    return PicturesOnly


TOWER = {"depth": 2, "num_heads": 2, "hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
QWEN2 = {"depth": 2, "num_heads": 2, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
QWEN2_5 = {**TOWER, "window_size": 56, "fullatt_block_indexes": [1]}
QWEN3 = {**TOWER, "patch_size": 14, "num_position_embeddings": 16}
QWEN: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "2": (Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, QWEN2),
    "2.5": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, QWEN2_5),
    "3": (
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        {**QWEN3, "deepstack_visual_indexes": [0, 1]},
    ),
    "3.5": (Qwen3_5Config, Qwen3_5ForConditionalGeneration, Qwen3VLProcessor, QWEN3),
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "partial_rotary_factor": 1.0,
}


def tiny_qwen_vl(folder: Path, version: str) -> tuple[Path, ProcessorMixin]:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3.5: positions along three axes, tokens by the picture's size."""
    torch.manual_seed(14)
    config_class, model_class, processor_class, vision = QWEN[version]
    tok = tokenizer("$A")
    tok.add_tokens(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"], special_tokens=True)
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = {name: tok.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    config = config_class(
        vision_config=vision,
        text_config={
            "vocab_size": len(tok),
            **LLAMA_LIKE,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            **(LINEAR if version == "3.5" else {}),
            **special_ids(tok),
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16})
    chat = template("<|vision_start|><|image_pad|><|vision_end|>", "{{ '\\n' }}")
    processor = pictures_only(processor_class)(images, tok, None, chat_template=chat)
    strengthen(model_class(config), 6.0).save_pretrained(folder)
    return folder, processor
