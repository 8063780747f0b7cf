"""A random SDXL of toy size: the true component classes, saved as a pipeline folder of under 1 MB.

Its pictures are noise. What they go through is real: two tokenizers and text encoders, added time conditions, VAE.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from vsre.repaint.presets import DiffusionConfig, load_config

SIDE = 64
"""Pixels along a side of the pictures it is made for."""


def _tokenizer(pad: str) -> CLIPTokenizer:
    """Byte-level words without merges: every letter is a token, the last one of a word another."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], pad_token=pad, model_max_length=77)


def _text(cls: Any, tokenizer: CLIPTokenizer, **more: Any) -> Any:
    return cls(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **more,
        )
    )


def tiny_sdxl(folder: Path, *, unet_channels: int = 4, seed: int = 0) -> Path:
    """Save the pipeline to FOLDER/model and return that; `unet_channels` 9 makes an inpainting UNet."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    first, second = _tokenizer("<|endoftext|>"), _tokenizer("!")
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=unet_channels,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=4,
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=_text(CLIPTextModel, first),
        text_encoder_2=_text(CLIPTextModelWithProjection, second, projection_dim=32, hidden_act="gelu"),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def photo(seed: int, width: int = 80, height: int = 60) -> bytes:
    """A smooth picture unlike any other seed's."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def tiny_config(folder: Path, **changes: Any) -> DiffusionConfig:
    """A configuration of few steps for the pipeline in a folder, on the CPU."""
    return load_config("sdxl").changed(
        **{
            "model": str(folder),
            "size": [SIDE, SIDE],
            "t2i": {"steps": 2},
            "i2i": {"steps": 4},
            "inpaint": {"steps": 4},
            "device": "cpu",
            "dtype": "float32",
            "offline": True,
            **changes,
        }
    )
