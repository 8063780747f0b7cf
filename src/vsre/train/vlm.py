"""run_vlm_stages: any image-text model of transformers fine-tuned as it is, on the same questions and stages.

What `run_stages` does for VSRE and LLaVA with packed questions, this does for every other model with one question a
sequence: its own processor, chat template and forward pass. The run's folder is the same (run.py), so it is killed and
resumed, read and diagnosed the same way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PrinterCallback

from vsre.errors import VsreError
from vsre.train.checkpoints import (
    DONE,
    check_disk,
    checkpoint_bytes,
    complete_checkpoints,
    explain_full_disk,
    load_trained,
    load_weights,
    read_json,
    save_model,
    step_of,
    trained,
    write_json,
)
from vsre.train.data import PackedQuestions, PackSampler
from vsre.train.fingerprint import claim_folder, describe_run, source_fingerprint
from vsre.train.logs import LOG, ConsoleProgress, JsonLog, Meter, draw_curve, read_log
from vsre.train.memory import check_memory, fixed_bytes, out_of_memory, too_large
from vsre.train.prepare import training_arguments
from vsre.train.processes import processes, sharded
from vsre.train.run import MODEL, as_it_was, check_stages, stage_folders
from vsre.train.stages import Stage, parse_stages
from vsre.train.store import open_store
from vsre.train.vlm_data import TextEncoder, VlmCollator
from vsre.train.vlm_parts import LowRank, freeze_parts, parts_of
from vsre.train.vlm_trainer import VlmTrainer, prove_answers_unseen


def run_vlm_stages(
    model: Any,
    processor: Any,
    stages: Sequence[Stage | dict[str, Any]],
    out_dir: Path | str,
    *,
    seed: int,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a model through stages and leave the last one's weights in it; run again to continue after a kill.

    `model` and `processor` are those of any image-text model, the same at every call. `batch_images` of a stage counts
    sequences, each one question about one image. Returns what `run_stages` returns. Raises VsreError for stages, data
    or a folder that cannot be used, for a model whose parts cannot be told apart or whose masks show it the answer, for
    a loss that is not finite, for a pass that is too large, and when the disk is full.
    """
    stages = parse_stages(stages)
    check_stages(stages)
    for stage in stages:
        if sharded():
            raise VsreError(f"stage {stage.name}: a `vlm` is not spread over devices yet. Take ddp-8, with lora.")
        if "questions_per_image" in stage.model_fields_set and stage.questions_per_image != 1:
            raise VsreError(
                f"stage {stage.name}: a `vlm` is asked one question a sequence. Take questions_per_image out, or "
                "train a VSRE or LLaVA `checkpoint`, which packs them."
            )
    out_dir, console = Path(out_dir), console or Console(stderr=True)
    began = time.perf_counter()
    with processes().main_process_first(), explain_full_disk(out_dir):
        claim_folder(out_dir, describe_run(model, processor, stages, seed) | {"sequences": "vlm"}, resume=True)
    folders = stage_folders(stages, out_dir)
    first = next((n for n, folder in enumerate(folders) if not (folder / DONE).is_file()), len(stages))
    if first:
        load_weights(model, folders[first - 1] / MODEL)
    for number in range(first, len(stages)):
        stage, folder = stages[number], folders[number]
        with explain_full_disk(folder), as_it_was(model):
            _run_stage(model, processor, stage, folder, seed + number, console)
    model.eval()
    return {
        "out_dir": str(out_dir),
        "model": str(folders[-1] / MODEL),
        "seconds": round(time.perf_counter() - began, 3),
        "stages": [read_json(folder / DONE) for folder in folders],
    }


def _run_stage(model: Any, processor: Any, stage: Stage, folder: Path, seed: int, console: Console) -> None:
    asleep = freeze_parts(model, stage)
    lora = LowRank(model, stage.lora, seed=seed, bf16=stage.bf16) if stage.lora else None
    trainer = build_trainer(model, processor, stage, folder, seed, asleep)
    check_memory(trainer, stage.name)
    weights = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    check_disk(folder, (stage.keep_checkpoints + 1) * checkpoint_bytes(model) + weights)
    main = trainer.is_world_process_zero()
    if main:
        console.print(_announcement(trainer, stage), highlight=False)
    with processes().main_process_first():
        checkpoints = complete_checkpoints(folder)
    last = checkpoints[-1] if checkpoints else None
    progress = ConsoleProgress(console, stage.name)
    if main:
        trainer.add_callback(progress)
    if stage.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise VsreError(f"stage {stage.name}: {type(model).__name__} knows no gradient_checkpointing. Take it out.")
        model.activation_checkpointing_enable()
    unseen, full = None, False
    try:
        if last and step_of(last) >= trainer.args.max_steps:
            load_trained(model, last)  # killed between its last checkpoint and its end
        else:
            try:
                unseen = prove_answers_unseen(trainer)
                trainer.train(resume_from_checkpoint=str(last) if last else None)
            except RuntimeError as error:
                if not (full := out_of_memory(error)):
                    raise
            if full:  # asked once the error has let go of what it held
                raise too_large(trainer, stage)
    finally:
        progress.close()
        if stage.gradient_checkpointing:
            model.activation_checkpointing_disable()
    if lora:
        lora.merge()
    if main:
        _finish(trainer, processor, stage, folder, {"resumed_from": step_of(last) if last else 0, "unseen": unseen})
    processes().wait_for_everyone()


def build_trainer(model: Any, processor: Any, stage: Stage, folder: Path, seed: int, asleep: list[Any]) -> VlmTrainer:
    """Open the data of a stage and build its Trainer."""
    encoder, cache = TextEncoder(), folder.parent / "cache"
    with processes().main_process_first():
        folder.mkdir(parents=True, exist_ok=True)
        names = [cache / source_fingerprint(s, "text", None)[:16] for s in stage.data]
        stores = [open_store(s, encoder, at) for s, at in zip(stage.data, names, strict=True)]
    data = PackedQuestions(stores)
    devices = processes().num_processes
    micro, passes = stage.micro_batch(devices)
    sampler = PackSampler(data, 1, seed, stage.batch_images, micro * devices if devices > 1 else 1)
    steps = stage.max_steps or math.ceil(stage.epochs * math.ceil(math.ceil(len(sampler) / (micro * devices)) / passes))
    args = training_arguments(stage, folder, micro, passes, steps, seed)
    meter = Meter()
    trainer = VlmTrainer(
        model=model,
        args=args,
        data_collator=VlmCollator(data, processor, model),
        train_dataset=data,
        processing_class=processor,
        sampler=sampler,
        asleep=asleep,
        meter=meter,
        keep_checkpoints=stage.keep_checkpoints,
        muon=stage.optimizer == "muon",
        adapters=parts_of(model).groups["adapters"],
        adapters_lr=stage.adapters_lr,
        callbacks=[JsonLog(folder, stage.name, meter)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _announcement(trainer: VlmTrainer, stage: Stage) -> str:
    model, data, args = trainer.model, trainer.train_dataset, trainer.args
    everything = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    learning = sum(p.numel() for p in trained(model).values())
    return (
        f"Stage {stage.name}: {learning:,} of {everything:,} parameters train ({', '.join(stage.train)}"
        f"{', lora' if stage.lora else ''})\n{len(data):,} questions about {data.n_images:,} images, one a sequence\n"
        f"{args.max_steps:,} steps of {stage.batch_images} ({args.per_device_train_batch_size} a pass); "
        f"lr {stage.lr:g}\n"
        f"weights, gradients and optimizer: {fixed_bytes(model) / 1e9:,.3f} GB; activations come on top"
    )


def _finish(trainer: VlmTrainer, processor: Any, stage: Stage, folder: Path, more: dict[str, Any]) -> None:
    log = read_log(folder / LOG)
    draw_curve(log, folder / "loss.png", stage.name)
    save_model(trainer.accelerator.unwrap_model(trainer.model), processor, folder / MODEL)
    tail = [line["loss"] for line in log[-max(1, len(log) // 20) :]]
    seconds = sum(line["seconds"] for line in log)
    figures = {
        "stage": stage.name,
        "steps": trainer.args.max_steps,
        "images": trainer.train_dataset.n_images,
        "questions": len(trainer.train_dataset),
        "first_loss": log[0]["loss"],
        "last_loss": sum(tail) / len(tail),
        "train_seconds": round(seconds, 3),
        "tokens_per_s": sum(line["tokens_per_s"] * line["seconds"] for line in log) / seconds,
        "model": str(folder / MODEL),
        "config": stage.model_dump(mode="json"),
    }
    write_json(folder / DONE, figures | more)
