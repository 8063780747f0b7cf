"""The Trainer for any vision-language model: the model's own forward pass, the same loss, the same safeguards."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from vsre.errors import VsreError
from vsre.numerics import apart, tolerance
from vsre.train.packing import IGNORE
from vsre.train.trainer import VsreTrainer


class VlmTrainer(VsreTrainer):
    """Trains one question per sequence with the model's own masks and positions; logits start at the first answer."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        for module in self.asleep:
            module.eval()
        labels = inputs.pop("labels")
        if self.data_collator.renderer.encoder_decoder:
            outputs = model(**inputs, labels=labels, use_cache=False)  # from which it makes its decoder's inputs
            logits, targets = outputs.logits, labels
        else:
            places = (labels != IGNORE).any(0).nonzero()
            first = int(places[0]) if len(places) else labels.shape[1] - 1
            keep = labels.shape[1] - first + 1  # the token before an answer predicts its first one
            more = {"logits_to_keep": keep} if "logits_to_keep" in self._accepted else {}
            outputs = model(**inputs, use_cache=False, **more)
            logits, targets = outputs.logits[:, -keep:-1], labels[:, first:]
        learnt = targets != IGNORE
        count = num_items_in_batch if num_items_in_batch is not None else learnt.sum()
        loss = F.cross_entropy(logits[learnt].float(), targets[learnt], reduction="sum") / count
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over devices, tokens are not
        return (loss, outputs) if return_outputs else loss

    @property
    def _accepted(self) -> Any:
        return inspect.signature(self.accelerator.unwrap_model(self.model).forward).parameters


SUFFIX = 1
"""The token type that prefix-LM models (PaliGemma) give to what they write: only later tokens see it."""


def prove_answers_unseen(trainer: VlmTrainer) -> float | None:
    """How much the prediction of an answer's first token changes with the answer itself, on the longest text.

    Nothing else would reveal a model whose masks let the prompt see what follows it: its loss would fall, and it would
    learn to copy. If the prediction changes, answers are given the type SUFFIX. Raises VsreError if it still changes,
    and if that question is longer than the model takes. None for an encoder-decoder, whose encoder never gets the
    answer, and if the model is sharded over devices before it runs.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return None
    collator, model = trainer.data_collator, trainer.model
    item = trainer.train_dataset[next(iter(trainer.sampler))]  # the longest text comes first
    batch = collator([item])
    length, most = batch["tokens"], getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most and length > most:
        name = trainer.train_dataset.question_ids(batch["rows"][:1])[0]
        raise VsreError(f"question {name}: has {length} tokens with its picture, the model takes {most}.")
    if collator.renderer.encoder_decoder:
        return None
    for answer_type in (None, SUFFIX):
        collator.answer_type = answer_type
        difference, limit = _moved(trainer, collator([item]))
        if difference <= limit:
            return difference
    raise VsreError(
        f"{Path(trainer.args.output_dir).name}: {type(model).__name__} sees the answer before giving it (its "
        f"prediction changes by {difference:.1e} with the answer, {limit:.0e} is allowed), so it would learn to copy. "
        "It cannot be trained this way."
    )


@torch.no_grad()
def _moved(trainer: VlmTrainer, batch: dict[str, Any]) -> tuple[float, float]:
    """The difference of the logits (1, V) at the prompt's last token under two answers, and the largest allowed."""
    labels = batch.pop("labels")
    del batch["rows"], batch["tokens"]
    first = int((labels[0] != IGNORE).nonzero()[0])
    other = dict(batch)
    # Another answer: the prompt's last token repeated, so that nothing but words changes.
    other["input_ids"] = torch.where(labels == IGNORE, batch["input_ids"], batch["input_ids"][:, first - 1 : first])
    model: Any = trainer.model
    training = model.training
    model.eval()
    try:
        at = first - labels.shape[1] - 1  # from the end: some models return logits of the text only
        one, two = (
            model(**trainer._prepare_inputs(dict(inputs)), use_cache=False).logits[:, at] for inputs in (batch, other)
        )
    finally:
        model.train(training)
    return apart(one, two), tolerance(one.dtype)
