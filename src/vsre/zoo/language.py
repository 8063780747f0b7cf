"""The tiny tokenizer and causal language model, and the tiny LLaVA built on it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from vsre.sources.coco import SUPERCATEGORY
from vsre.zoo.fit import Batch
from vsre.zoo.text import corpus, read_templates
from vsre.zoo.tokenizer import IMAGE, build_tokenizer

MAX_TOKENS = 160


def pairs(seed: int, start: int = 0) -> Any:
    return corpus(read_templates(), SUPERCATEGORY, seed, start)


def make_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """The tokenizer, trained on the first 20,000 text exchanges; the same every time."""
    texts = (f"USER: {p} ASSISTANT: {a}" for p, a in islice(pairs(seed=0), 20000))
    return build_tokenizer(texts, vocab_size)


def make_llm(
    settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> tuple[LlamaForCausalLM, Callable[[Sequence[int]], Batch]]:
    """A fresh Llama and its batches: some texts are learnt whole (to write), of most only the answer (to answer)."""
    model = LlamaForCausalLM(
        LlamaConfig(
            **settings["config"],
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )

    def collate(indices: Sequence[int]) -> Batch:
        rows, starts = [], []
        for i in indices:
            prompt, answer = next(pairs(seed=0, start=int(i)))
            question = f"USER: {prompt} ASSISTANT:"
            rows.append(f"{question} {answer}{tokenizer.eos_token}")
            # Loss on the answer alone in three texts out of four, on all of the text in the fourth.
            starts.append(len(question) if random.Random(f"loss/{i}").random() < 0.75 else 0)
        encoded = tokenizer(
            rows,
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        before = encoded["offset_mapping"][..., 1] <= torch.tensor(starts)[:, None]
        labels = encoded["input_ids"].masked_fill(before | (encoded["attention_mask"] == 0), -100)
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": labels,
        }

    return model, collate


def make_llava(clip: Path, llm: Path, size: int) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """LLaVA-1.5's shape: CLIP's penultimate layer without CLS, a two-layer projector (fresh), the language model."""
    vision = CLIPVisionModel.from_pretrained(clip)
    language = LlamaForCausalLM.from_pretrained(llm)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llm)
    for part in (vision, language):
        part.config.name_or_path = ""  # a path on this machine means nothing elsewhere
    config = LlavaConfig(
        vision_config=vision.config,
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(size // vision.config.patch_size) ** 2,
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(vision.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = LlavaProcessor(
        # Scenes are square; other pictures are squeezed, since a crop could hide what a question asks about.
        image_processor=CLIPImageProcessorPil(
            size={"height": size, "width": size}, do_center_crop=False, do_resize=True
        ),
        tokenizer=tokenizer,
        patch_size=vision.config.patch_size,
        vision_feature_select_strategy="default",
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=1,
    )
    return model, processor
