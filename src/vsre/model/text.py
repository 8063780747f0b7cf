"""The parts of a processor that determine how a question becomes tokens."""

from __future__ import annotations

from typing import Any


def text_parts(processor: Any) -> list[Any]:
    """Vocabulary, special tokens and chat template of a processor with a tokenizer, as JSON values."""
    tokenizer = processor.tokenizer
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    return [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map, template]
