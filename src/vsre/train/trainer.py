"""The Hugging Face Trainer, changed in six points: data order, attention, freezing, loss, safety, checkpoints."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer

from vsre.errors import VsreError
from vsre.train.attention import BranchAttention
from vsre.train.checkpoints import keep_last, load_weights, mark_complete, no_bars, write_json
from vsre.train.data import PackedQuestions, PackSampler
from vsre.train.logs import Meter
from vsre.train.optimizer import MuonAdamW
from vsre.train.packing import IGNORE
from vsre.train.vision import FEATURES, FrozenVision

BAD_BATCH = "bad-batch.json"


class VsreTrainer(Trainer):
    """Trainer for packed questions.

    - packs come in PackSampler's order, a function of seed and epoch
    - the language model's attention keeps a sequence's branches apart, the model's configuration stays as it was
    - modules in `asleep` stay in evaluation mode, whatever `model.train()` says
    - the loss is the sum over learnt tokens divided by their number in the whole step, however the step is
      cut into micro-batches; logits are computed at learnt tokens only
    - a loss or gradient that is not finite stops the run before it reaches the weights, and names the batch
    - a checkpoint counts once its marker is written; weights are read back through `from_pretrained`
    """

    train_dataset: PackedQuestions
    optimizer: Any

    def __init__(
        self,
        *,
        sampler: PackSampler,
        asleep: list[nn.Module],
        meter: Meter,
        keep_checkpoints: int,
        attention: BranchAttention | None = None,
        vision: FrozenVision | None = None,
        muon: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.muon = muon
        self.sampler, self.asleep, self.meter = sampler, asleep, meter
        self.keep_checkpoints, self.attention, self.vision = keep_checkpoints, attention, vision
        self.model_accepts_loss_kwargs = True  # compute_loss below takes num_items_in_batch for every model
        self._rows: list[int] = []

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.muon:
            args = self.args
            self.optimizer = MuonAdamW(model or self.model, lr=args.learning_rate, weight_decay=args.weight_decay)
        return super().create_optimizer(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> PackSampler:
        return self.sampler

    def num_examples(self, dataloader: Any) -> int:
        return len(self.sampler)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._rows = inputs.pop("rows")
        self.meter.add(inputs.pop("tokens"), len(self._rows))
        # Backward too: it may compute layers again. A batch of single questions needs nothing of it.
        with self.attention.active() if self.attention and "branch" in inputs else nullcontext():
            loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            self._stop("loss", float(loss))
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        for module in self.asleep:
            module.eval()
        labels, branch = inputs.pop("labels"), inputs.pop("branch", None)
        if self.attention and branch is not None:
            inputs |= self.attention.inputs(branch)
        if self.vision and "pixel_values" in inputs:
            inputs[FEATURES] = self.vision.features(inputs.pop("pixel_values"))
        targets = F.pad(labels, (0, 1), value=IGNORE)[:, 1:]  # (B, L): what each position predicts
        learnt = targets != IGNORE
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, args: (args[0][learnt],))
        try:
            outputs = model(**inputs, use_cache=False)
        finally:
            hook.remove()
        count = num_items_in_batch if num_items_in_batch is not None else learnt.sum()
        loss = F.cross_entropy(outputs.logits.float(), targets[learnt], reduction="sum") / count
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over devices, tokens are not
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        if not torch.isfinite(torch.as_tensor(norm)):
            self._stop("gradient", float(norm))
        return norm

    def _stop(self, what: str, value: float) -> None:
        path = Path(self.args.output_dir) / BAD_BATCH
        names = self.train_dataset.question_ids(self._rows)
        step = self.state.global_step + 1
        write_json(path, {"step": step, what: str(value), "questions": names})
        raise VsreError(
            f"{path.parent.name}: the {what} of step {step} is {value}. The {len(names)} questions of the "
            f"batch are in {path}, the first is {names[0]}. Lower lr (now {self._get_learning_rate():.2e}), "
            "or turn bf16 off."
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        try:
            with no_bars():
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(folder)
        except Exception:
            # What is half-written would never be used, and on a full disk it is in the way.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if self.args.should_save:
            keep_last(folder.parent, self.keep_checkpoints)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(model or self.model, Path(resume_from_checkpoint))
