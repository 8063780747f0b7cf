"""The configs of the paper's checkpoints, written out so that real shapes can be checked without a download.

They hold what determines shapes and parameter counts; a real run reads the checkpoint's own config.json.
"""

from __future__ import annotations

from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    PreTrainedConfig,
    SamVisionConfig,
    SiglipVisionConfig,
)

VISION: dict[str, PreTrainedConfig] = {
    "clip": CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    ),
    "siglip": SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    ),
    "dinov2": Dinov2Config(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        mlp_ratio=4,
        image_size=518,
        patch_size=14,
    ),
    "sam": SamVisionConfig(
        hidden_size=768,
        output_channels=256,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=1024,
        patch_size=16,
        window_size=14,
        global_attn_indexes=[2, 5, 8, 11],
    ),
}
"""Vision configs by the names of vsre.model.ENCODERS."""

LLAMA_2_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=4096,
    rms_norm_eps=1e-5,
)
"""LLaMA-2 7B and Vicuna 7B v1.5."""
