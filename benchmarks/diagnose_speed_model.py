"""The model and the prompts of diagnose_speed.py: LLaVA-1.5's shape at 8 M parameters, and templates about pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    set_seed,
)

from vsre.diagnose import Prompt
from vsre.model.processing import chat_template
from vsre.rewrite import Template, ask, load_pack
from vsre.triplets import Triplet

IMAGES, PROMPTS, TOKENS, SIZE, PATCH = 40, 20, 16, 336, 14
THINGS = ["cat", "dog", "horse", "car", "bus", "cup", "bowl", "chair", "couch", "bench", "bird", "cow", "sheep", "cake"]
RELATIONS = ["left of", "above", "touching", "in front of", "contains", "on"]


def write_model(folder: Path, texts: list[str]) -> None:
    """Write a model whose weights are drawn wider than usual, so that the answers differ from prompt to prompt."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        [*texts, "USER: ASSISTANT: Yes No yes no"] * 4,
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=["<s>", "</s>", "<pad>", "<image>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left",
        additional_special_tokens=["<image>"], model_max_length=4096,
    )  # fmt: skip
    set_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=6, image_size=SIZE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=2048, hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=8,
            max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=2, initializer_range=0.12,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(),
    ).save_pretrained(folder)


def templates() -> list[Template]:
    return [t for t in load_pack("pool").templates if not t.needs_boxes][:PROMPTS]


def questions() -> list[tuple[bytes, list[Prompt]]]:
    random = np.random.default_rng(0)
    asked = []
    for number in range(IMAGES):
        coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG")
        subject, object = (str(name) for name in random.choice(THINGS, 2, replace=False))
        relation = RELATIONS[number % len(RELATIONS)]
        triplet = Triplet(
            image_id=f"name:{number}", image_name=f"{number}.jpg", subject=subject, relation=relation, object=object,
            caption=f"The {subject} is {relation} the {object}.", label=True, split="test", origin="benchmark",
        )  # fmt: skip
        prompts = [Prompt(ask(t, triplet).prompt, t.format.options, t.style) for t in templates()]
        asked.append((file.getvalue(), prompts))
    return asked
