"""The check before a stage: packed questions must give the same logits as each alone, or the stage does not begin.

Most language models in transformers keep packed branches apart when told to. Some cannot: they have attention that no
mask reaches, windows shorter than a sequence, or recurrent layers that carry state from one question to the next.
Nothing else would reveal it: the loss would simply be that of a different task.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from vsre.errors import VsreError
from vsre.numerics import apart, tolerance
from vsre.train.examples import Example
from vsre.train.processes import sharded

QUESTIONS = 4
"""How many questions of the longest pack are compared."""


def prove_packing(trainer: Any) -> float | None:
    """The difference between the logits of the longest pack's questions, packed and alone, as `apart` measures it.

    None if no pack holds several questions, or if the model is sharded over devices before it runs. Raises VsreError
    if the difference is more than the dtype allows.
    """
    if not trainer.attention or sharded():
        return None
    pack = next((pack for pack in trainer.sampler if len(pack) > 1), None)  # the longest comes first
    if pack is None:
        return None
    _, examples = trainer.train_dataset[pack]
    longest = sorted(range(len(pack)), key=lambda i: -len(examples[i].ids))[:QUESTIONS]
    rows, some = pack[longest], [examples[i] for i in longest]
    model = trainer.model
    training = model.training
    model.eval()
    try:
        together = _logits(trainer, rows, some)
        alone = torch.cat([_logits(trainer, rows[i : i + 1], some[i : i + 1]) for i in range(len(some))])
    finally:
        model.train(training)
    difference, limit = apart(together, alone), tolerance(together.dtype)
    if difference > limit:  # nan passes here and stops the first training step
        raise VsreError(
            f"{Path(trainer.args.output_dir).name}: {type(model).__name__} does not keep packed questions apart (their "
            f"logits differ by {difference:.1e} from those of each question alone, {limit:.0e} is allowed). Its "
            "attention has windows, or its layers carry state along. Set questions_per_image: 1."
        )
    return difference


@torch.no_grad()
def _logits(trainer: Any, rows: Any, examples: list[Example]) -> torch.Tensor:
    """Logits at the learnt tokens of one sequence, (tokens, V), in the order of the questions."""
    batch = trainer.data_collator([(rows, examples)])
    del batch["rows"], batch["tokens"]
    # Weights that are held in bf16 or four bits compute in bf16; all others are compared in full precision.
    half = any(p.dtype in (torch.bfloat16, torch.uint8) for p in trainer.model.parameters())
    with (
        trainer.attention.active() if "branch" in batch else nullcontext(),
        trainer.accelerator.autocast() if half else nullcontext(),
    ):
        return trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch), return_outputs=True)[1].logits
