"""Running a stage once its Trainer is built: from its last complete checkpoint to its weights and figures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from vsre.train.checkpoints import DONE, complete_checkpoints, load_trained, save_model, step_of, write_json
from vsre.train.freezing import checkpointing
from vsre.train.logs import LOG, ConsoleProgress, draw_curve, read_log
from vsre.train.lora import LoraLayers
from vsre.train.memory import out_of_memory, too_large
from vsre.train.processes import processes, sharded
from vsre.train.stages import Stage

MODEL = "model"
"""The folder of the weights within a stage's folder."""


def carry_out(
    trainer: Any,
    stage: Stage,
    console: Console,
    *,
    prove: Callable[[Any], float | None],
    proof: str,
    lora: LoraLayers | None,
    around: AbstractContextManager[Any] | None = None,
) -> dict[str, Any]:
    """Train a stage to its end, within `around`, and merge LoRA; returns facts to record, for `finish`.

    `prove(trainer)` is called before the first step of this process; its result is noted as `proof`. A stage that was
    killed between its last checkpoint and its end is not trained again. Raises VsreError for a pass that is too large.
    """
    folder, model = Path(trainer.args.output_dir), trainer.model
    with processes().main_process_first():
        checkpoints = complete_checkpoints(folder)
    if sharded():  # only a running engine reads its own checkpoints: the last steps are repeated
        checkpoints = [c for c in checkpoints if step_of(c) < trainer.args.max_steps]
    last = checkpoints[-1] if checkpoints else None
    notes: dict[str, Any] = {"resumed_from": step_of(last) if last else 0}
    progress = ConsoleProgress(console, stage.name)
    if trainer.is_world_process_zero():
        trainer.add_callback(progress)
    again = checkpointing(model, trainer.asleep) if stage.gradient_checkpointing else nullcontext()
    full = False
    try:
        if last and step_of(last) >= trainer.args.max_steps:
            load_trained(model, last)
        else:
            with around or nullcontext(), again:
                try:
                    notes[proof] = prove(trainer)
                    trainer.train(resume_from_checkpoint=str(last) if last else None)
                except RuntimeError as error:
                    if not (full := out_of_memory(error)):
                        raise
                if full:  # outside the handler, once the error has released the memory it held
                    raise too_large(trainer, stage)
    finally:
        progress.close()
    if lora:
        lora.merge()
    return notes


def finish(trainer: Any, processor: Any, stage: Stage, facts: dict[str, Any]) -> None:
    """Write a stage's loss curve, weights and, last, its figures with these facts; every process must call it."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded() else None
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        log = read_log(folder / LOG)
        draw_curve(log, folder / "loss.png", stage.name)
        save_model(trainer.accelerator.unwrap_model(trainer.model), processor, folder / MODEL, state)
        tail = [line["loss"] for line in log[-max(1, len(log) // 20) :]]
        seconds = sum(line["seconds"] for line in log)
        figures = {
            "first_loss": log[0]["loss"],
            "last_loss": sum(tail) / len(tail),
            "train_seconds": round(seconds, 3),
            "tokens_per_s": sum(line["tokens_per_s"] * line["seconds"] for line in log) / seconds,
            "model": str(folder / MODEL),
            "config": stage.model_dump(mode="json"),
        }
        write_json(folder / DONE, {**facts, **figures})
    processes().wait_for_everyone()
