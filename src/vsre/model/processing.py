"""VsreProcessor: pictures and text in, the model's inputs out."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from vsre.errors import VsreError
from vsre.model.frame import VsreImageProcessor

IMAGE_TOKEN = "<image>"
PAD_TOKEN = "<pad>"


def chat_template() -> str:
    """The chat template in LLaVA-1.5's form, with answers marked for label masks.

    "USER: <image>\\n{prompt} ASSISTANT: {answer}" and the tokenizer's end token, turn after turn.
    """
    return files("vsre.model").joinpath("chat_template.jinja").read_text(encoding="utf-8")


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give a tokenizer the `<image>` token and a padding token if it lacks them.

    Returns how many tokens it gained. From now on it pads on the left, as generation needs. Raises VsreError
    for a tokenizer without an end token, since answers could not end.
    """
    if tokenizer.eos_token is None:
        raise VsreError(
            f"{tokenizer.name_or_path or 'The tokenizer'}: it has no end-of-sequence token, so an answer "
            "could not end. Set tokenizer.eos_token before building the model."
        )
    gained = tokenizer.add_special_tokens(
        {"additional_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False
    )
    if tokenizer.pad_token is None:
        gained += tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "left"
    return gained


class VsreProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template of a VSRE model.

    Each `<image>` in the text becomes `num_image_tokens` placeholders, one per visual token.
    `apply_chat_template` takes messages whose content is a string or a list of {"type": "image", "image":
    picture} and {"type": "text", "text": words}; with `return_assistant_tokens_mask` it marks the tokens of
    the answers. Raises VsreError for a tokenizer without the `<image>` token.
    """

    def __init__(
        self,
        image_processor: VsreImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        num_image_tokens: int = 1,
        image_token: str = IMAGE_TOKEN,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        if self.image_token_id is None or self.image_token_id == tokenizer.unk_token_id:
            raise VsreError(
                f"The tokenizer has no {image_token} token. Add it with vsre.model.prepare_tokenizer and "
                "resize the model's embeddings, as build_vsre does."
            )
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        return self.image_token * self.num_image_tokens
