"""Tiny random models with the real classes, saved as checkpoint folders in a second or two.

`tiny_vsre` and `tiny_llava` write a model with its processor and return the folder. Pictures are 96 pixels;
all seeds are fixed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    SamVisionConfig,
    SamVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vsre.model import build_vsre, chat_template, spec_from_checkpoint

SENTENCES = [
    "USER: Is the cat left of the dog? Answer yes or no. ASSISTANT: Yes",
    "USER: Is the teddy bear in the couch? ASSISTANT: No, the teddy bear is not in the couch.",
    "USER: The bowl contains the cake. True or false? ASSISTANT: True",
    "USER: Does the bowl contain the cake? A. yes B. no ASSISTANT: False. Not above, below, next to.",
]
SIZE = 96


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, 400 tokens, with <s>, </s>, <pad> and <image>; adds <s> in front as Llama's does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES * 4, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        model_max_length=1024,
    )


def tiny_text_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_window_config(window: int) -> MistralConfig:
    """The same sizes with attention to a window of tokens."""
    text = tiny_text_config(tiny_tokenizer())
    return MistralConfig(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        num_key_value_heads=2,
        max_position_embeddings=text.max_position_embeddings,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        sliding_window=window,
    )


def tiny_vision_configs() -> dict[str, PreTrainedConfig]:
    """Grids of 6x6 (SAM: a neck of 24x24, 6x6 after its adapter)."""
    body = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 16,
    }
    return {
        "clip": CLIPVisionConfig(**body, intermediate_size=32, projection_dim=16),
        "siglip": SiglipVisionConfig(**body, intermediate_size=32),
        "dinov2": Dinov2Config(**body, mlp_ratio=2),
        "sam": SamVisionConfig(
            **{**body, "patch_size": 4},
            output_channels=8,
            mlp_dim=32,
            window_size=6,
            global_attn_indexes=[1],
            num_pos_feats=4,
            initializer_range=0.02,
        ),
    }


CLASSES = {"clip": CLIPVisionModel, "siglip": SiglipVisionModel, "dinov2": Dinov2Model, "sam": SamVisionModel}


def tiny_encoders(folder: Path) -> dict[str, Path]:
    """Four encoder checkpoints in FOLDER/clip, FOLDER/siglip, FOLDER/dinov2 and FOLDER/sam."""
    torch.manual_seed(0)
    for name, config in tiny_vision_configs().items():
        CLASSES[name](config).save_pretrained(folder / name)
    return {name: folder / name for name in CLASSES}


def tiny_llm(folder: Path) -> Path:
    """A Llama of two layers with its tokenizer."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    LlamaForCausalLM(tiny_text_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_vsre(folder: Path, encoders: tuple[str, ...] = ("clip", "siglip", "dinov2", "sam")) -> Path:
    """A VSRE model of these encoders (36 visual tokens each) in FOLDER/vsre."""
    paths = tiny_encoders(folder / "encoders")
    llm = tiny_llm(folder / "llm")
    torch.manual_seed(2)
    model, processor = build_vsre(llm, [spec_from_checkpoint(paths[name]) for name in encoders])
    model.save_pretrained(folder / "vsre")
    processor.save_pretrained(folder / "vsre")
    return folder / "vsre"


def tiny_llava(folder: Path, text_config: PreTrainedConfig | None = None) -> Path:
    """A LLaVA (CLIP only, 36 visual tokens) in FOLDER/llava: no crop, the same chat template. Its language model is a
    Llama, or of another configuration."""
    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    config = LlavaConfig(
        vision_config=tiny_vision_configs()["clip"],
        text_config=text_config or tiny_text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=36,
        vision_feature_layer=-2,
    )
    model = LlavaForConditionalGeneration(config).eval()
    side = {"height": SIZE, "width": SIZE}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size=side, do_center_crop=False, crop_size=side),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=chat_template(),
        num_additional_image_tokens=1,
    )
    model.save_pretrained(folder / "llava")
    processor.save_pretrained(folder / "llava")
    return folder / "llava"
