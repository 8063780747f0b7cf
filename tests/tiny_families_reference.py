"""The families that the engine is tested on, and what one prompt alone is answered by a model's own functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diagnose_data import picture
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from tiny_families import tiny_blip2, tiny_florence2, tiny_instructblip, tiny_paligemma
from tiny_families_native import (
    tiny_gemma3,
    tiny_glm4v,
    tiny_kosmos2,
    tiny_mistral3,
    tiny_mllama,
    tiny_pixtral,
)
from tiny_families_qwen import tiny_qwen_vl
from tiny_families_tiles import (
    tiny_aya_vision,
    tiny_cohere2_vision,
    tiny_idefics2,
    tiny_idefics3,
    tiny_internvl,
    tiny_llava_next,
    tiny_llava_onevision,
    tiny_smolvlm,
)
from vsre.diagnose import Decoding, Prompt
from vsre.rewrite import FORMATS
from vsre.sources.images import load_image

DECODING = Decoding(short_tokens=4, full_tokens=7)
TEXTS = (
    "Is the cat left of the dog?",
    "Is it?",
    "Does the bowl contain the cake? Answer yes or no.",
    "The teddy bear is above the couch, next to the bowl, and the dog is not in the couch. True or false?",
    "Is the dog in the bowl? A. yes B. no",
)


@dataclass(frozen=True)
class Family:
    """A model to be asked; `way` and `why` are what the notes must say of it, `alike` whether it cannot be padded."""

    build: Callable[[Path], Any]
    way: str
    why: str
    encoder_decoder: bool = False
    alike: bool = False
    # Tensors that go along with the ids: what they hold for an answer's tokens, None for what they hold last.
    grow: tuple[tuple[str, int | None], ...] = ()
    lead: str = ""  # what its chat template writes before an answer


ENCODER = "encoder-decoder"
NOTHING = "nothing of the prompt stands behind"
TYPES = (("mm_token_type_ids", 0),)


def plain(build: Callable[..., Any], why: str, **more: Any) -> Family:
    return Family(build, "plain", why, **more)


def shared(build: Callable[..., Any], **more: Any) -> Family:
    return Family(build, "shared prefix", "apart", **more)


FAMILIES = {
    "paligemma": plain(tiny_paligemma, NOTHING, grow=(("token_type_ids", 1),)),
    "instructblip-llama": plain(partial(tiny_instructblip, language="llama"), "qformer_input_ids", alike=True),
    "instructblip-t5": plain(partial(tiny_instructblip, language="t5"), ENCODER, encoder_decoder=True),
    "blip2-opt": plain(partial(tiny_blip2, language="opt"), "the shared prefix fails"),
    "blip2-t5": plain(partial(tiny_blip2, language="t5"), ENCODER, encoder_decoder=True),
    "florence2": plain(tiny_florence2, ENCODER, encoder_decoder=True),
    "kosmos2": plain(tiny_kosmos2, "no image tokens", grow=(("image_embeds_position_mask", 0),), alike=True),
    "llava-next": shared(tiny_llava_next),
    "llava-onevision": shared(tiny_llava_onevision),
    "idefics2": plain(tiny_idefics2, "changes the words behind the image"),
    "idefics3": shared(tiny_idefics3),
    "smolvlm": shared(tiny_smolvlm),
    "internvl": shared(tiny_internvl),
    "aya-vision": shared(tiny_aya_vision),
    "cohere2-vision": shared(tiny_cohere2_vision),
    "glm-4v": shared(tiny_glm4v, grow=TYPES),
    "pixtral": shared(tiny_pixtral),
    "mistral3": shared(tiny_mistral3),
    "gemma3": shared(tiny_gemma3, grow=(("token_type_ids", 0),)),
    "llama3.2-vision": shared(tiny_mllama, grow=(("cross_attention_mask", None),)),
    "qwen2-vl": shared(partial(tiny_qwen_vl, version="2"), grow=TYPES),
    "qwen2.5-vl": shared(partial(tiny_qwen_vl, version="2.5"), grow=TYPES),
    "qwen3-vl": shared(partial(tiny_qwen_vl, version="3"), grow=TYPES),
    "qwen3.5": plain(partial(tiny_qwen_vl, version="3.5"), "LinearAttentionLayer", grow=TYPES),
}


def load(build: Callable[[Path], Any], folder: Path, patch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The saved model and its processor; one that cannot be loaded is handed to the engine too."""
    processor = made[1] if isinstance(made := build(folder), tuple) else AutoProcessor.from_pretrained(folder)
    if isinstance(made, tuple):
        patch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), processor


@dataclass
class Alone:
    """The reference: one prompt at a time, with nothing of the engine's; without `picture` the prompt's text alone."""

    family: Family
    model: Any
    processor: Any
    picture: bool = True

    def inputs(self, data: bytes, prompt: Prompt) -> dict[str, torch.Tensor]:
        picture = [{"type": "image", "image": load_image(data)}] if self.picture else []
        content = [*picture, {"type": "text", "text": prompt.text}]
        tensors = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.processor.chat_template or self.processor.tokenizer.chat_template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return {name: t for name, t in tensors.items() if name != "labels"}

    def text(self, data: bytes, prompt: Prompt) -> str:
        """Greedy decoding by the forward pass alone."""
        inputs, limit, said = self.inputs(data, prompt), DECODING.limit(prompt.style), []
        while len(said) < limit:
            token = int(self.forward(inputs, said)[-1].argmax())
            if token == self.processor.tokenizer.eos_token_id:
                break
            said.append(token)
        return self.processor.tokenizer.decode(said, skip_special_tokens=True)

    def generated(self, data: bytes, prompt: Prompt) -> str:
        inputs = self.inputs(data, prompt)
        settings = GenerationConfig(do_sample=False, max_new_tokens=DECODING.limit(prompt.style))
        out = self.model.generate(**inputs, generation_config=settings)[0]
        head = 0 if self.family.encoder_decoder else inputs["input_ids"].shape[1]
        return self.processor.tokenizer.decode(out[head:], skip_special_tokens=True)

    def forward(self, inputs: dict[str, torch.Tensor], said: list[int]) -> torch.Tensor:
        """Log-probabilities behind the prompt and behind each token said: (1 + len(said), V)."""
        ids = torch.tensor([said], dtype=torch.long)
        if self.family.encoder_decoder:
            start = torch.tensor([[self.model.generation_config.decoder_start_token_id]])
            logits = self.model(**inputs, decoder_input_ids=torch.cat([start, ids], 1)).logits
        else:
            more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            for name, value in self.family.grow:
                if name not in inputs:
                    continue
                last = inputs[name][:, -1:].repeat_interleave(len(said), 1)
                more[name] = last if value is None else torch.full_like(last, value)
            logits = self.model(**inputs | {name: torch.cat([inputs[name], t], 1) for name, t in more.items()}).logits
        return logits[0, -1 - len(said) :].log_softmax(-1)

    def ids(self, answer: str) -> list[int]:
        return self.processor.tokenizer(self.family.lead + answer, add_special_tokens=False)["input_ids"]

    def answer(self, data: bytes, prompt: Prompt) -> tuple[str, list[float]]:
        """The greedy answer, and how likely each option is."""
        return self.text(data, prompt), [self.log_probability(data, prompt, option) for option in prompt.options]

    def log_probability(self, data: bytes, prompt: Prompt, answer: str) -> float:
        ids = self.ids(answer)
        logs = self.forward(self.inputs(data, prompt), ids[:-1])
        return float(sum(logs[i, token] for i, token in enumerate(ids)))


def questions() -> list[tuple[bytes, list[Prompt]]]:
    """Pictures of several sizes; prompts of several lengths, both styles, options of one token and of several."""
    formats = list(FORMATS.values())
    asked = []
    for i, size in enumerate([(96, 96), (96, 56), (56, 112), (96, 56)]):
        prompts = [
            Prompt(text, formats[(i + k) % len(formats)].options, ("short", "full")[k % 2])
            for k, text in enumerate(TEXTS)
        ]
        asked.append((picture(i, size=size), prompts))
    return asked
