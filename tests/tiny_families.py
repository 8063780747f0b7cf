"""Tiny random models of other families than ours, each with its real processor class; see `tiny_models`.

Every builder saves a model under FOLDER and returns the folder; weights are strong enough for answers to differ. The
chat templates are short ones of the kind that such models are asked with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import (
    BartConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GemmaConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    OPTConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
)

from tiny_models import SIZE, tiny_text_config, tiny_tokenizer, tiny_vision_configs

QUERIES = 4
SIDE = {"height": SIZE, "width": SIZE}
LLAMA_LIKE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
USER = (
    "{%- for message in messages -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}IMAGE{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- if message['role'] == 'user' -%}AFTER{%- endif -%}{%- endfor -%}"
)


def template(image: str, after: str) -> str:
    """A chat template that writes `image` for the picture and `after` behind the question."""
    return USER.replace("IMAGE", image).replace("AFTER", after)


def tokenizer(around: str = "<s> $A", *, padding_side: str = "left", **named: str) -> PreTrainedTokenizerFast:
    """The tiny tokenizer, with these special tokens around a text, and with special tokens known to it by a name."""
    made = tiny_tokenizer()
    names = [name for name in ("<s>", "</s>") if name in around]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[(name, made.convert_tokens_to_ids(name)) for name in names]
    )
    made.padding_side = padding_side
    if not named:
        return made
    made.add_special_tokens({"additional_special_tokens": list(named.values())}, replace_extra_special_tokens=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
        extra_special_tokens=named,
    )


def special_ids(made: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "bos_token_id": made.bos_token_id,
        "eos_token_id": made.eos_token_id,
        "pad_token_id": made.pad_token_id,
    }


def text_config(tok: Any, kind: type[PreTrainedConfig] = LlamaConfig, **more: Any) -> PreTrainedConfig:
    return kind(
        vocab_size=len(tok),
        **LLAMA_LIKE,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        **special_ids(tok),
        **more,
    )


def strengthen(model: PreTrainedModel, gain: float) -> PreTrainedModel:
    """Scale all matrices, so that answers hang on every token and on the picture.

    What joins two parts is scaled once more: else a decoder hears mostly itself, and a Q-Former its own queries.
    """
    joints = ("crossattention", "EncDecAttention", "encoder_attn", "language_projection", "query_tokens")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("bias") and not weight.any():  # zero until trained: gates, queries
                weight.normal_() if weight.numel() > 1 else weight.fill_(1.0)
            if weight.ndim >= 2:
                weight.mul_(gain * (4 if any(joint in name for joint in joints) else 1))
    return model.eval()


def tiny_paligemma(folder: Path) -> Path:
    """PaliGemma: picture and question see each other both ways."""
    torch.manual_seed(10)
    tok = tokenizer("$A")
    images = CLIPImageProcessorPil(size=SIDE, do_center_crop=False)
    images.image_seq_length = 36
    processor = PaliGemmaProcessor(images, tok, chat_template=template("<image>", ""))
    config = PaliGemmaConfig(
        vision_config=tiny_vision_configs()["siglip"],
        text_config=GemmaConfig(
            vocab_size=len(tok), **LLAMA_LIKE, num_key_value_heads=2, head_dim=16, **special_ids(tok)
        ),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        projection_dim=32,
        hidden_size=32,
    )
    return save(folder, PaliGemmaForConditionalGeneration(config), processor, 6.0)


def q_former_parts(made: PreTrainedTokenizerFast) -> dict[str, Any]:
    body = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "vision": {**body, "image_size": SIZE, "patch_size": 16, "initializer_range": 0.02},
        "q_former": {**body, "vocab_size": len(made), "encoder_hidden_size": 16, "pad_token_id": made.pad_token_id},
        "whole": {"num_query_tokens": QUERIES, "image_token_index": made.convert_tokens_to_ids("<image>")},
    }


def t5_config(made: PreTrainedTokenizerFast) -> T5Config:
    ids = special_ids(made) | {"decoder_start_token_id": made.pad_token_id}
    return T5Config(
        vocab_size=len(made), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, tie_word_embeddings=False, **ids
    )


def tiny_instructblip(folder: Path, language: str) -> Path:
    """InstructBLIP with a "llama" or "t5": its Q-Former reads the question before it looks at the picture."""
    torch.manual_seed(11)
    tok = tokenizer("<s> $A" if language == "llama" else "$A </s>")
    text: PreTrainedConfig = tiny_text_config(tok) if language == "llama" else t5_config(tok)
    parts = q_former_parts(tok)
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**parts["vision"]),
        qformer_config=InstructBlipQFormerConfig(**parts["q_former"]),
        text_config=text,
        **parts["whole"],
    )
    own = tokenizer("<s> $A </s>", padding_side="right")
    processor = InstructBlipProcessor(blip_images(), tok, own, num_query_tokens=QUERIES)
    tok.chat_template = template("", " Short answer:")
    return save(folder, InstructBlipForConditionalGeneration(config), processor, 6.0 if language == "llama" else 2.0)


def tiny_blip2(folder: Path, language: str) -> Path:
    """BLIP-2 with an "opt" or "t5"."""
    torch.manual_seed(12)
    tok = tokenizer("</s> $A" if language == "opt" else "$A </s>")
    opt = OPTConfig(
        vocab_size=len(tok),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        **special_ids(tok),
    )
    parts = q_former_parts(tok)
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**parts["vision"]),
        qformer_config=Blip2QFormerConfig(**parts["q_former"]),
        text_config=opt if language == "opt" else t5_config(tok),
        **parts["whole"],
    )
    processor = Blip2Processor(blip_images(), tok, num_query_tokens=QUERIES)
    tok.chat_template = template("", " Answer:")
    return save(folder, Blip2ForConditionalGeneration(config), processor, 6.0 if language == "opt" else 2.0)


def tiny_florence2(folder: Path) -> Path:
    """Florence-2: a BART, whose positions are counted over padding too."""
    torch.manual_seed(13)
    tok = tokenizer("<s> $A </s>", image_token="<image>")
    images = CLIPImageProcessorPil(size=SIDE, do_center_crop=False)
    images.image_seq_length = 10
    text = BartConfig(
        vocab_size=len(tok),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=256,
        decoder_start_token_id=tok.eos_token_id,
        forced_eos_token_id=None,
        **special_ids(tok),
    )
    vision = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [8, 4],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [16, 32],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "window_size": 3,
        "projection_dim": 32,
    }
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=tok.image_token_id)
    processor = Florence2Processor(images, tok, chat_template=template("", ""))
    return save(folder, Florence2ForConditionalGeneration(config), processor, 4.0)


def blip_images() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(size=SIDE)


def save(folder: Path, model: PreTrainedModel, processor: Any, gain: float) -> Path:
    strengthen(model, gain).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
