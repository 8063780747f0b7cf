"""Tiny random models that cut a picture into tiles or keep its shape by padding; see `tiny_families`.

As in `tiny_families_qwen`, a processor is handed back where loading it wants torchvision.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    CLIPVisionConfig,
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionProcessor,
    GotOcr2ImageProcessorPil,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    ProcessorMixin,
    Qwen2Config,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

from tiny_families import save, strengthen, template, text_config, tokenizer
from tiny_families_qwen import pictures_only

TILE = 32
EDGES = {"height": TILE, "width": TILE}
BODY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TOWER = {**BODY, "image_size": TILE, "patch_size": 8}
GRID = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]


def tiny_llava_next(folder: Path) -> Path:
    """LLaVA-NeXT: the picture and its tiles, whose padding is cut off again behind the tower."""
    torch.manual_seed(20)
    tok = tokenizer(image_token="<image>")
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER, projection_dim=16),
        text_config=text_config(tok),
        image_token_index=tok.image_token_id,
        image_grid_pinpoints=GRID,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE}, crop_size=EDGES, image_grid_pinpoints=GRID, do_center_crop=True
    )
    processor = LlavaNextProcessor(
        images,
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template("<image>\n", " ASSISTANT:"),
        num_additional_image_tokens=1,
    )
    return save(folder, LlavaNextForConditionalGeneration(config), processor, 6.0)


def tiny_llava_onevision(folder: Path) -> tuple[Path, ProcessorMixin]:
    """LLaVA-OneVision: as LLaVA-NeXT, with SigLIP and Qwen2."""
    torch.manual_seed(31)
    tok = tokenizer("$A", image_token="<image>", video_token="<video>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=text_config(tok, Qwen2Config),
        image_token_index=tok.image_token_id,
        video_token_index=tok.video_token_id,
        image_grid_pinpoints=GRID,
    )
    images = LlavaOnevisionImageProcessorPil(size=EDGES, image_grid_pinpoints=GRID)
    processor = pictures_only(LlavaOnevisionProcessor)(
        images,
        tok,
        None,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n", "<|im_end|>"),
    )
    strengthen(LlavaOnevisionForConditionalGeneration(config), 6.0).save_pretrained(folder)
    return folder, processor


def tiny_idefics2(folder: Path) -> Path:
    """Idefics2: each picture at its own shape, resampled to eight tokens."""
    torch.manual_seed(22)
    tok = tokenizer()
    processor = Idefics2Processor(
        Idefics2ImageProcessorPil(size={"longest_edge": 64, "shortest_edge": 24}),
        tok,
        image_seq_len=8,
        chat_template=template("<image>", "<end_of_utterance>\nAssistant:"),
    )
    config = Idefics2Config(
        vision_config={**TOWER, "image_size": 64},
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 8,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        text_config=text_config(processor.tokenizer),
        image_token_id=processor.image_token_id,
    )
    return save(folder, Idefics2ForConditionalGeneration(config), processor, 14.0)


def tiny_idefics3(folder: Path) -> Path:
    """Idefics3: rows and columns of tiles, each named in the text, and the whole picture behind them."""
    torch.manual_seed(23)
    tok = tokenizer()
    images = Idefics3ImageProcessorPil(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
    chat = template("<image>", "<end_of_utterance>\nAssistant:")
    processor = Idefics3Processor(images, tok, image_seq_len=4, chat_template=chat)
    config = Idefics3Config(
        vision_config=TOWER,
        text_config=text_config(processor.tokenizer),
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return save(folder, Idefics3ForConditionalGeneration(config), processor, 6.0)


def tiny_smolvlm(folder: Path) -> tuple[Path, ProcessorMixin]:
    """SmolVLM: Idefics3's way of cutting with its own classes."""
    torch.manual_seed(24)
    # The package that spells the number of a video's frames is asked for even where there is none.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    tok = tokenizer(
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    images = SmolVLMImageProcessorPil(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
    chat = template("<image>", "<end_of_utterance>\nAssistant:")
    processor = pictures_only(SmolVLMProcessor)(
        images, tok, SimpleNamespace(num_frames=1, fps=1), image_seq_len=4, chat_template=chat
    )
    config = SmolVLMConfig(
        vision_config=TOWER, text_config=text_config(tok), image_token_id=tok.image_token_id, scale_factor=2
    )
    strengthen(SmolVLMForConditionalGeneration(config), 6.0).save_pretrained(folder)
    return folder, processor


def tiny_internvl(folder: Path) -> tuple[Path, ProcessorMixin]:
    """InternVL as transformers has it: tiles and a thumbnail, four patches a token."""
    torch.manual_seed(25)
    tok = tokenizer(
        "$A",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**TOWER, layer_scale_init_value=1.0),
        text_config=text_config(tok, Qwen2Config),
        image_token_id=tok.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    images = GotOcr2ImageProcessorPil(size=EDGES, crop_to_patches=True, min_patches=1, max_patches=4)
    chat = template("<IMG_CONTEXT>\n", "<|im_end|>")
    processor = pictures_only(InternVLProcessor)(images, tok, None, image_seq_length=4, chat_template=chat)
    strengthen(InternVLForConditionalGeneration(config), 6.0).save_pretrained(folder)
    return folder, processor


def tiny_aya_vision(folder: Path) -> Path:
    """Aya Vision: the same tiles before a Cohere2, whose layers see a window."""
    torch.manual_seed(26)
    names = ("START_OF_IMG", "END_OF_IMG", "IMG_PATCH", "IMG_LINE_BREAK")
    tok = tokenizer(image_token="<image>", **{name.lower(): f"<|{name}|>" for name in names})
    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=text_config(tok, Cohere2Config, sliding_window=256),
        image_token_index=tok.img_patch_id,
        tie_word_embeddings=False,
    )
    images = GotOcr2ImageProcessorPil(size=EDGES, crop_to_patches=True, min_patches=1, max_patches=4)
    processor = AyaVisionProcessor(
        images, tok, patch_size=8, img_size=TILE, downsample_factor=2, chat_template=template("<image>", "<|END|>")
    )
    return save(folder, AyaVisionForConditionalGeneration(config), processor, 6.0)


def tiny_cohere2_vision(folder: Path) -> tuple[Path, ProcessorMixin]:
    """Command A Vision: tiles, each with an end. Its own image processor, which chooses them in another way, needs
    torchvision."""
    torch.manual_seed(27)
    tok = tokenizer(
        image_token="<|IMG_PATCH|>",
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )
    config = Cohere2VisionConfig(
        vision_config=SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=text_config(tok, Cohere2Config, sliding_window=256),
        image_token_id=tok.image_token_id,
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    images = GotOcr2ImageProcessorPil(size=EDGES, crop_to_patches=True, min_patches=1, max_patches=4)
    images.patch_size = 2  # the side of a tile in tokens
    processor = Cohere2VisionProcessor(images, tok, chat_template=template("<|IMG_PATCH|>", "<|END|>"))
    strengthen(Cohere2VisionForConditionalGeneration(config), 6.0).save_pretrained(folder)
    return folder, processor
