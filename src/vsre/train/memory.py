"""How much of a device's memory a stage takes, and what to do if it is too much."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size

from vsre.errors import VsreError
from vsre.train.checkpoints import trained
from vsre.train.optimizer import moment_bytes
from vsre.train.processes import processes, sharded
from vsre.train.stages import Stage


def fixed_bytes(model: Any, stage: Stage) -> int:
    """Bytes of a stage's weights, gradients and optimizer state on one device; activations come on top."""
    weights = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    gradients = sum(p.nbytes for p in trained(model).values())
    return weights + gradients + moment_bytes(model, muon=stage.optimizer == "muon")


def check_memory(model: Any, stage: Stage, device: torch.device) -> None:
    """Raise VsreError if weights, gradients and optimizer alone take more memory than the device has."""
    if device.type != "cuda" or sharded():
        return
    needed, there = fixed_bytes(model, stage), torch.cuda.mem_get_info(device)[1]
    if needed > there:
        raise VsreError(
            f"{stage.name}: weights, gradients and optimizer take {needed / 1e9:,.1f} GB, the device has "
            f"{there / 1e9:,.1f} GB. Train with lora, or spread the model over devices: vsre train --accelerate "
            "fsdp2-8 (or zero3-8)."
        )


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a device or on the machine."""
    return should_reduce_batch_size(error)


def too_large(trainer: Any, stage: Stage) -> VsreError:
    """The error for a stage that ran out of memory: it says which smaller pass fits, as tried with the longest texts.

    Processes that share a step cannot try a pass alone; there it is at most half of what was too much.
    """
    micro, passes = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    smaller = [n for n in range(micro - 1, 0, -1) if micro * passes % n == 0]
    if alone := processes().num_processes == 1:
        fits = next((n for n in smaller if _fits(trainer, n)), None)
    else:
        fits = next((n for n in smaller if n <= micro // 2), None)
    said = (
        f"{stage.name}: out of memory in a pass of {micro} images with up to {stage.questions_per_image} questions "
        f"each (weights, gradients and optimizer take {fixed_bytes(trainer.model, stage) / 1e9:,.3f} GB). "
    )
    if fits:
        tried = "fits, as tried with the longest texts" if alone else "may fit"
        return VsreError(
            f"{said}A pass of {fits} {tried}: set micro_batch_images: {fits} and run the same command again. The "
            "result stays the same, since a step is only cut into more passes."
        )
    ways = [] if stage.gradient_checkpointing else ["gradient_checkpointing: true"]
    ways += [] if stage.lora or "llm" not in stage.train else ["lora"]
    ways += ["fewer questions_per_image"] if stage.questions_per_image > 1 else []
    ways += ["a model spread over devices (vsre train --accelerate fsdp2-8)"]
    return VsreError(f"{said}Not even one image fits. Try {', or '.join(ways)}.")


def _fits(trainer: Any, images: int) -> bool:
    """Whether a pass of the `images` longest packs and its gradients fit in memory beside the optimizer's state."""
    model = trainer.model
    model.zero_grad()
    if trainer.args.device.type == "cuda":
        torch.cuda.empty_cache()
    packs = [pack for pack, _ in zip(_longest(trainer), range(images), strict=False)]
    try:
        kept = trainer.optimizer.state if trainer.optimizer else {}
        moments = moment_bytes(model, muon=trainer.muon, made={p for p, state in kept.items() if state})
        reserve = torch.empty(moments, dtype=torch.uint8, device=trainer.args.device)
        batch = trainer.data_collator([trainer.train_dataset[pack] for pack in packs])
        trainer.training_step(model, batch, torch.tensor(1, device=trainer.args.device))
        del reserve
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        model.zero_grad()
    return True


def _longest(trainer: Any) -> Any:
    trainer.sampler.set_epoch(0)  # the epoch that begins with the longest packs
    return iter(trainer.sampler)
