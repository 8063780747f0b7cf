"""The Hugging Face Trainer, changed in a few points: data order, attention, loss, logs, safety, checkpoints."""

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
from vsre.train.bad_batch import save_bad_batch
from vsre.train.checkpoints import keep_last, load_trained, mark_complete, no_bars, save_trained
from vsre.train.data import PackedQuestions, PackSampler
from vsre.train.logs import Meter
from vsre.train.optimizer import MuonAdamW, parameter_groups
from vsre.train.packing import IGNORE
from vsre.train.processes import sharded
from vsre.train.vision import FEATURES, FrozenVision

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Generation settings that only sampling uses."""


class VsreTrainer(Trainer):
    """Trainer for packed questions.

    - packs come in PackSampler's order, a function of seed and epoch
    - the language model's attention keeps a sequence's branches apart; the model's configuration stays as it was
    - modules in `asleep` stay in evaluation mode, whatever `model.train()` says
    - the loss is the sum over learnt tokens divided by their number in the whole step, however the step is
      cut into micro-batches; logits are computed at learnt tokens only
    - a log line has tokens and questions per second over all processes
    - a loss or gradient that is not finite stops the run before it reaches the weights (under DeepSpeed, whose step is
      part of the backward pass, before it reaches a checkpoint), and saves the batch
    - a checkpoint counts once its marker is written, and holds what trains; if FSDP or DeepSpeed shards the weights
      over processes, it is in their format
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
        adapters_lr: float | None = None,
        **kwargs: Any,
    ) -> None:
        settings = getattr(kwargs["model"], "generation_config", None)
        if settings is not None and settings.do_sample is not True:
            # Published models have them all the same. The Trainer changes token ids in the same configuration, and
            # transformers refuses to save a changed one with unused settings: it would fail at the end of the stage.
            settings.update(**dict.fromkeys(SAMPLING))
        super().__init__(**kwargs)
        self.muon, self.adapters_lr = muon, adapters_lr
        self.sampler, self.asleep, self.meter = sampler, asleep, meter
        self.keep_checkpoints, self.attention, self.vision = keep_checkpoints, attention, vision
        self.model_accepts_loss_kwargs = True  # compute_loss below takes num_items_in_batch for every model
        # transformers does not count each row's first label unless the top-level configuration is an
        # encoder-decoder's, but one may be nested (InstructBLIP). Packed rows never learn their first token anyway.
        self._loss_shifts_labels = False
        self._passes: list[dict[str, Any]] = []  # those of the current step

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        args, model = self.args, model or self.model
        if self.muon:
            self.optimizer = MuonAdamW(model, lr=args.learning_rate, weight_decay=args.weight_decay)
        elif self.adapters_lr is not None:
            decayed = self.get_decay_parameter_names(model)
            groups = parameter_groups(model, decayed, args.weight_decay, args.learning_rate, self.adapters_lr)
            made, options = self.get_optimizer_cls_and_kwargs(args, model)
            self.optimizer = made(groups, **options)
        return super().create_optimizer(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> PackSampler:
        return self.sampler

    def num_examples(self, dataloader: Any) -> int:
        return len(self.sampler)

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        # accelerate's loader tells its sampler, but not if processes share it and a resumed run skips its beginning.
        self.sampler.set_epoch(epoch)
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._passes.append(dict(inputs))
        self.meter.add(inputs.pop("tokens"), len(inputs.pop("rows")))
        # Around the backward pass too, which may compute layers again. A batch of single questions does not need it.
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
        # No part of a model that FSDP has sharded may run before the whole: it encodes in its own forward pass.
        if self.vision and "pixel_values" in inputs and not self.is_fsdp_enabled:
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
        self._passes = []
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self.meter.lap()
        super().log(logs, start_time)

    def _stop(self, what: str, value: float) -> None:
        # A loss belongs to the last pass, a gradient to all of them.
        passes = self._passes[-1:] if what == "loss" else self._passes
        folder, step = Path(self.args.output_dir), self.state.global_step + 1
        names = self.train_dataset.question_ids([row for each in passes for row in each["rows"]])
        path = save_bad_batch(folder, passes, names, {"step": step, what: str(value)})
        raise VsreError(
            f"{folder.name}: the {what} of step {step} is {value}. The {len(names)} questions of the "
            f"batch are in {path}, the first is {names[0]}; its tensors are in the .safetensors beside it. "
            f"Lower lr (now {self._get_learning_rate():.2e}), or turn bf16 off."
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.args.should_save and not sharded():  # FSDP and DeepSpeed save weights with the optimizer's state
            save_trained(self.model, Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        try:
            with no_bars():
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(folder)
        except Exception:
            # A half-written checkpoint would never be used, and would fill up a full disk.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if self.args.should_save:
            keep_last(folder.parent, self.keep_checkpoints)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if sharded():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.model, Path(resume_from_checkpoint))
