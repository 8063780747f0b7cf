"""run_stages: a run's stages, one after another, each to be killed at any moment and resumed.

OUT/run.json                  what the run is made of; a folder never mixes two configurations
OUT/cache/                    questions as tokens, images as bytes, features of frozen encoders (features.py);
                              may be deleted, is made again
OUT/01-align/log.jsonl        one line a step; loss.png is drawn from it
OUT/01-align/checkpoint-500/  full state: weights, optimizer, schedule, random numbers, place in the data
OUT/01-align/model/           the stage's weights (safetensors) and processor
OUT/01-align/done.json        written last: the stage is finished
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PrinterCallback, TrainingArguments

from vsre.train.attention import BranchAttention
from vsre.train.checkpoints import (
    DONE,
    check_disk,
    checkpoint_bytes,
    complete_checkpoints,
    explain_full_disk,
    load_weights,
    read_json,
    save_model,
    step_of,
    write_json,
)
from vsre.train.collate import Collator
from vsre.train.data import PackedQuestions, PackSampler
from vsre.train.examples import ChatEncoder
from vsre.train.features import use_features
from vsre.train.fingerprint import claim_folder, describe_run, source_fingerprint, text_fingerprint
from vsre.train.freezing import freeze, freezing_table
from vsre.train.logs import LOG, ConsoleProgress, JsonLog, Meter, draw_curve, read_log
from vsre.train.packing import Packer
from vsre.train.processes import processes
from vsre.train.proof import prove_packing
from vsre.train.stages import Stage, parse_stages
from vsre.train.store import open_store
from vsre.train.trainer import VsreTrainer
from vsre.train.vision import frozen_vision
from vsre.triplets import parquet_files

MODEL = "model"


def run_stages(
    model: Any,
    processor: Any,
    stages: Sequence[Stage | dict[str, Any]],
    out_dir: Path | str,
    *,
    seed: int,
    resume: bool = True,
    console: Console | None = None,
    image_cache_bytes: int = 1 << 29,
    feature_cache: Path | bool = True,
) -> dict[str, Any]:
    """Train a model through stages and leave the last one's weights in it; run again to continue after a
    kill.

    `model` and `processor` are a VSRE or LLaVA model and its processor, the same at every call. Finished
    stages are skipped, an unfinished one continues from its last complete checkpoint, and the result is bit
    for bit that of an undisturbed run on the same machine. With `resume=False` a folder that holds a run is
    refused.

    `feature_cache`: the folder where features of frozen encoders are kept, OUT/cache/features where True. It is used
    in stages whose encoders are frozen, while what is missing there fits into half of the free disk.

    Returns {"out_dir", "model": folder of the final weights, "seconds", "stages": [figures of each]}.
    Raises VsreError for stages, data or a folder that cannot be used, for a loss that is not finite, and when
    the disk is full; what is complete on disk stays usable in every case.
    """
    stages = parse_stages(stages)
    out_dir = Path(out_dir)
    console = console or Console(stderr=True)
    began = time.perf_counter()
    with processes().main_process_first(), explain_full_disk(out_dir):
        claim_folder(out_dir, describe_run(model, processor, stages, seed), resume=resume)
    folders = [out_dir / f"{number:02d}-{stage.name}" for number, stage in enumerate(stages, 1)]
    todo = [number for number, folder in enumerate(folders) if not (folder / DONE).is_file()]
    if todo:
        check_disk(out_dir, _disk_needed(model, {folders[n]: stages[n] for n in todo}))
    first = todo[0] if todo else len(stages)
    if first:
        load_weights(model, folders[first - 1] / MODEL)
    encoder = ChatEncoder(processor)
    for number in range(first, len(stages)):
        reserved = _disk_needed(model, {folders[n]: stages[n] for n in range(number, len(stages))})
        with explain_full_disk(folders[number]), _config_kept(model):
            run = _prepare(model, processor, encoder, stages[number], folders[number], seed + number, image_cache_bytes)
            if feature_cache is not False:
                kept = out_dir / "cache" / "features" if feature_cache is True else feature_cache
                run.features = use_features(run.trainer, kept, console, reserved=reserved)
            _train(run, console)
    model.eval()
    return {
        "out_dir": str(out_dir),
        "model": str(folders[-1] / MODEL),
        "seconds": round(time.perf_counter() - began, 3),
        "stages": [read_json(folder / DONE) for folder in folders],
    }


@dataclass
class _Run:
    """A stage made ready: its trainer and what is told about it."""

    stage: Stage
    folder: Path
    trainer: VsreTrainer
    processor: Any
    steps: int
    facts: dict[str, Any]
    features: str = "not kept, as asked"


def _prepare(
    model: Any,
    processor: Any,
    encoder: ChatEncoder,
    stage: Stage,
    folder: Path,
    seed: int,
    image_cache_bytes: int,
) -> _Run:
    asleep = freeze(model, stage.train, keep_llm_in_training=stage.gradient_checkpointing)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    text, cache = text_fingerprint(processor), folder.parent / "cache"
    with processes().main_process_first():
        folder.mkdir(parents=True, exist_ok=True)
        stores = [
            open_store(s, encoder, cache / source_fingerprint(s, text, longest)[:16], longest) for s in stage.data
        ]
    data = PackedQuestions(stores)
    devices = processes().num_processes
    micro, passes = stage.micro_batch(devices)
    sampler = PackSampler(data, stage.questions_per_image, seed, stage.batch_images)
    steps = stage.max_steps or math.ceil(stage.epochs * math.ceil(math.ceil(len(sampler) / (micro * devices)) / passes))
    packer = Packer(
        image_token_id=encoder.image_token_id,
        visual_tokens=encoder.visual_tokens,
        pad_id=encoder.pad_id,
    )
    cuda = torch.cuda.is_available()
    args = TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=passes,
        max_steps=steps,
        learning_rate=stage.lr,
        lr_scheduler_type=stage.schedule,
        warmup_steps=math.ceil(stage.warmup * steps),
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        bf16=stage.bf16,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=stage.save_every,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        report_to=[],
        push_to_hub=False,
    )
    args._n_gpu = min(args.n_gpu, 1)  # several devices are one process each (torchrun), never DataParallel
    meter = Meter()
    vision = None if "encoders" in stage.train else frozen_vision(model, processor, bf16=stage.bf16)
    trainer = VsreTrainer(
        model=model,
        args=args,
        data_collator=Collator(data, packer, processor.image_processor, image_cache_bytes),
        train_dataset=data,
        processing_class=processor,
        sampler=sampler,
        asleep=asleep,
        meter=meter,
        keep_checkpoints=stage.keep_checkpoints,
        attention=BranchAttention(model) if stage.questions_per_image > 1 else None,
        vision=vision,
        muon=stage.optimizer == "muon",
        callbacks=[JsonLog(folder, stage.name, meter)],
    )
    trainer.remove_callback(PrinterCallback)
    facts = {
        "stage": stage.name,
        "steps": steps,
        "images": data.n_images,
        "questions": len(data),
        "sequences": len(sampler),
        "set_aside": sum(s.meta["set_aside"] for s in stores),
        "visual_tokens": encoder.visual_tokens,
        "questions_per_step": round(stage.batch_images * len(data) / len(sampler), 1),
        "longest_question_tokens": int(data.lengths.max()) + encoder.visual_tokens - 1,
    }
    return _Run(stage, folder, trainer, processor, steps, facts)


def _train(run: _Run, console: Console) -> None:
    stage, trainer, model = run.stage, run.trainer, run.trainer.model
    if trainer.is_world_process_zero():
        _announce(run, console)
    with processes().main_process_first():
        checkpoints = complete_checkpoints(run.folder)
    last = checkpoints[-1] if checkpoints else None
    progress = ConsoleProgress(console, stage.name)
    if trainer.is_world_process_zero():
        trainer.add_callback(progress)
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        if last and step_of(last) >= run.steps:
            load_weights(model, last)  # killed between its last checkpoint and its end
        else:
            with trainer.vision.taken() if trainer.vision else nullcontext():
                run.facts["packing_difference"] = prove_packing(trainer)
                trainer.train(resume_from_checkpoint=str(last) if last else None)
    finally:
        progress.close()
        if stage.gradient_checkpointing:
            model.gradient_checkpointing_disable()
    if trainer.is_world_process_zero():
        _finish(run, step_of(last) if last else 0)
    processes().wait_for_everyone()


def _finish(run: _Run, resumed_from: int) -> None:
    log = read_log(run.folder / LOG)
    draw_curve(log, run.folder / "loss.png", run.stage.name)
    save_model(run.trainer.model, run.processor, run.folder / MODEL)
    tail = [line["loss"] for line in log[-max(1, len(log) // 20) :]]
    figures = {
        "resumed_from": resumed_from,
        "first_loss": log[0]["loss"],
        "last_loss": sum(tail) / len(tail),
        "train_seconds": round(sum(line["seconds"] for line in log), 3),
        "tokens_per_s": sum(line["tokens_per_s"] * line["seconds"] for line in log)
        / sum(line["seconds"] for line in log),
        "damaged_features": run.trainer.data_collator.damaged,
        "model": str(run.folder / MODEL),
        "config": run.stage.model_dump(mode="json"),
    }
    write_json(run.folder / DONE, {**run.facts, **figures})


def _announce(run: _Run, console: Console) -> None:
    stage, facts, model = run.stage, run.facts, run.trainer.model
    micro, passes = run.trainer.args.per_device_train_batch_size, run.trainer.args.gradient_accumulation_steps
    memory = checkpoint_bytes(model) + sum(p.nbytes for p in model.parameters() if p.requires_grad)
    console.print(freezing_table(model, f"Stage {stage.name}"))
    console.print(
        f"{facts['questions']:,} questions about {facts['images']:,} images in {facts['sequences']:,} "
        f"sequences, {facts['visual_tokens']:,} visual tokens an image\n"
        f"{run.steps:,} steps of {stage.batch_images} images ({micro} a pass x {passes}), "
        f"{facts['questions_per_step']:,.0f} questions; lr {stage.lr:g}\n"
        f"weights, gradients and optimizer: {memory / 1e9:,.3f} GB; activations come on top\n"
        f"frozen features: {run.features}"
    )
    if facts["set_aside"]:
        console.print(f"{facts['set_aside']:,} questions are longer than the model takes: set aside, see the cache")


def _disk_needed(model: Any, todo: dict[Path, Stage]) -> int:
    """Bytes that the stages still to come will write, less what they have written already."""
    weights = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    needed = there = 0
    for folder, stage in todo.items():
        freeze(model, stage.train)
        needed += stage.keep_checkpoints * checkpoint_bytes(model) + weights
        there += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    needed += checkpoint_bytes(model)  # the one being written while the others are kept
    sources = {path for stage in todo.values() for s in stage.data for path in (s.triplets, s.questions)}
    return max(0, needed - there) + sum(file.stat().st_size for path in sources for file in parquet_files(path))


@contextmanager
def _config_kept(model: Any) -> Iterator[None]:
    """The Trainer turns the cache off in the configuration; the saved model should generate as before."""
    before = model.config.__dict__.get("use_cache")
    try:
        yield
    finally:
        model.config.__dict__.pop("use_cache", None)
        if before is not None:
            model.config.use_cache = before
