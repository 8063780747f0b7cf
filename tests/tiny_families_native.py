"""Tiny random models that see a picture at its own size, or by attention of their own; see `tiny_families`.

A builder that returns a processor beside the folder could not save it: to load one, transformers wants torchvision,
mostly for videos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessorPil,
    Glm4vProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    MllamaTextConfig,
    MllamaVisionConfig,
    PixtralImageProcessorPil,
    PixtralVisionConfig,
    ProcessorMixin,
    SiglipVisionConfig,
)

from tiny_families import LLAMA_LIKE, SIDE, save, special_ids, strengthen, template, text_config, tokenizer
from tiny_families_qwen import pictures_only

SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 96,
    "patch_size": 16,
}


class RowsOfTokens(ProcessorMixin):
    """What PixtralProcessor does with a picture; that class can only be imported beside torchvision."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, side: int = 8, chat_template: str | None = None
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.side, self.image_token, self.image_token_id = side, tokenizer.image_token, tokenizer.image_token_id

    def _process_images(self, images: Any, **more: Any) -> Any:
        return super()._process_images(images, **more | {"patch_size": self.side})

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        height, width = (int(edge) // self.side for edge in image_inputs["image_sizes"][image_idx])
        rows = [self.image_token * width] * height
        return self.tokenizer.image_break_token.join(rows) + self.tokenizer.image_end_token


def pixtral_parts() -> tuple[Any, dict[str, Any], Any]:
    """Tokenizer, the vision tower's configuration and an image processor: rows of tokens, each with an end."""
    tok = tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
        "image_size": 64,
        "patch_size": 8,
    }
    return tok, vision, PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size={"height": 8, "width": 8})


def tiny_pixtral(folder: Path) -> tuple[Path, ProcessorMixin]:
    """Pixtral as transformers has it: LLaVA with a tower that takes every picture at its own size."""
    torch.manual_seed(15)
    tok, vision, images = pixtral_parts()
    config = LlavaConfig(
        vision_config=PixtralVisionConfig(**vision),
        text_config=text_config(tok, MistralConfig, sliding_window=None),
        image_token_index=tok.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    chat = template("[IMG]", "[/INST]")
    processor = RowsOfTokens(images, tok, 8, chat_template=chat)
    strengthen(LlavaForConditionalGeneration(config), 6.0).save_pretrained(folder)
    return folder, processor


def tiny_mistral3(folder: Path) -> tuple[Path, ProcessorMixin]:
    """Mistral 3: the same tower, four patches a token."""
    torch.manual_seed(16)
    tok, vision, images = pixtral_parts()
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**vision),
        text_config=text_config(tok, MistralConfig, sliding_window=None),
        image_token_index=tok.image_token_id,
        tie_word_embeddings=False,
    )
    chat = template("[IMG]", "[/INST]")
    processor = RowsOfTokens(images, tok, 16, chat_template=chat)
    strengthen(Mistral3ForConditionalGeneration(config), 6.0).save_pretrained(folder)
    return folder, processor


def tiny_gemma3(folder: Path, window: int = 512) -> Path:
    """Gemma 3: a picture's tokens see each other both ways, and every other layer sees a window."""
    torch.manual_seed(17)
    tok = tokenizer(boi_token="<start_of_image>", image_token="<image_soft_token>", eoi_token="<end_of_image>")
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**SIGLIP),
        text_config=text_config(
            tok,
            Gemma3TextConfig,
            sliding_window=window,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=16,
        ),
        mm_tokens_per_image=9,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        image_token_index=tok.image_token_id,
        tie_word_embeddings=False,
    )
    chat = template("<start_of_image>", "<end_of_turn>\n")
    processor = Gemma3Processor(Gemma3ImageProcessorPil(size=SIDE), tok, chat_template=chat, image_seq_length=9)
    return save(folder, Gemma3ForConditionalGeneration(config), processor, 6.0)


def tiny_mllama(folder: Path) -> Path:
    """Llama 3.2 vision: every other layer attends to the picture's tiles, which take no place in the text."""
    torch.manual_seed(18)
    tok = tokenizer(image_token="<|image|>")
    config = MllamaConfig(
        vision_config=MllamaVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_global_layers=1,
            attention_heads=2,
            vision_output_dim=32,
            image_size=48,
            patch_size=16,
            intermediate_layers_indices=[0],
        ),
        text_config=text_config(tok, MllamaTextConfig, cross_attention_layers=[1]),
        image_token_index=tok.image_token_id,
    )
    images = MllamaImageProcessorPil(size={"height": 48, "width": 48}, max_image_tiles=4)
    processor = MllamaProcessor(images, tok, chat_template=template("<s><|image|>", "<|eot_id|>"))
    return save(folder, MllamaForConditionalGeneration(config), processor, 6.0)


def tiny_kosmos2(folder: Path) -> Path:
    """Kosmos-2: the picture before everything else, its places marked in a mask beside the ids."""
    torch.manual_seed(119)
    tok = tokenizer(unk_token="<unk>")
    tok.chat_template = template("", " Answer:")
    images = CLIPImageProcessorPil(size=SIDE, crop_size=SIDE)
    processor = Kosmos2Processor(images, tok, 64)  # as many ids more as a picture takes
    config = Kosmos2Config(
        vision_config={**SIGLIP},
        text_config={
            "vocab_size": len(tok),
            "max_position_embeddings": 1024,
            "embed_dim": 32,
            "layers": 2,
            "ffn_dim": 64,
            "attention_heads": 2,
            **special_ids(tok),
        },
        latent_query_num=64,
        tie_word_embeddings=False,
    )
    model = Kosmos2ForConditionalGeneration(config)
    with torch.no_grad():  # else what is learned of pictures in general drowns what is seen of one
        model.image_to_text_projection.dense.weight.mul_(50)
        model.image_to_text_projection.latent_query.mul_(0.02)
    return save(folder, model, processor, 14.0)


def tiny_glm4v(folder: Path) -> tuple[Path, ProcessorMixin]:
    """GLM-4V: positions along three axes, rotated pair by pair, and norms on both sides of every layer."""
    torch.manual_seed(29)
    tok = tokenizer(
        image_token="<|image|>", video_token="<|video|>", start="<|begin_of_image|>", end="<|end_of_image|>"
    )
    text = {
        "vocab_size": len(tok),
        **LLAMA_LIKE,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 0.5,
        },
        **special_ids(tok),
    }
    config = Glm4vConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "num_heads": 2,
            "image_size": 56,
            "out_hidden_size": 32,
            "intermediate_size": 32,
        },
        text_config=text,
        image_token_id=tok.image_token_id,
        video_token_id=tok.video_token_id,
        image_start_token_id=tok.convert_tokens_to_ids("<|begin_of_image|>"),
        image_end_token_id=tok.convert_tokens_to_ids("<|end_of_image|>"),
    )
    images = Glm4vImageProcessorPil(size={"shortest_edge": 28 * 28 * 2, "longest_edge": 28 * 28 * 2 * 12})
    chat = template("<|begin_of_image|><|image|><|end_of_image|>", "<|assistant|>")
    processor = pictures_only(Glm4vProcessor)(images, tok, None, chat_template=chat)
    strengthen(Glm4vForConditionalGeneration(config), 6.0).save_pretrained(folder)
    return folder, processor
