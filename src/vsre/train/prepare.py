"""Preparing a stage: its data opened, its Trainer built, and what a person is told before it begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import PrinterCallback, TrainingArguments

from vsre.train.attention import BranchAttention
from vsre.train.checkpoints import checkpoint_bytes
from vsre.train.collate import Collator
from vsre.train.data import PackedQuestions, PackSampler
from vsre.train.examples import ChatEncoder
from vsre.train.fingerprint import store_folder, text_fingerprint
from vsre.train.freezing import freeze, freezing_table
from vsre.train.logs import JsonLog, Meter
from vsre.train.lora import lora_parameters
from vsre.train.memory import check_memory, fixed_bytes
from vsre.train.packing import Packer
from vsre.train.processes import name_layers, processes, sharded
from vsre.train.stages import DataSource, Stage
from vsre.train.store import META, open_store
from vsre.train.trainer import VsreTrainer
from vsre.train.vision import frozen_vision
from vsre.triplets import parquet_files


@dataclass
class Run:
    """A prepared stage: its trainer and what is reported about it."""

    stage: Stage
    folder: Path
    trainer: VsreTrainer
    processor: Any
    steps: int
    facts: dict[str, Any]
    features: str = "not kept, as asked"


def prepare(
    model: Any,
    processor: Any,
    encoder: ChatEncoder,
    stage: Stage,
    folder: Path,
    seed: int,
    image_cache_bytes: int,
    *,
    kept: Mapping[DataSource, Path],
    asleep: list[nn.Module],
    report_to: Sequence[str] = (),
) -> Run:
    """Open the data of a stage and build its Trainer. `kept`: from `store_folders`; `asleep`: from `freeze`, which has
    already set what trains.

    Raises VsreError for data that cannot be used, for a batch that the processes cannot share, and for a model that
    does not fit on the device.
    """
    with processes().main_process_first():
        folder.mkdir(parents=True, exist_ok=True)
        stores = [open_store(s, encoder, kept[s], _longest(model)) for s in stage.data]
    data = PackedQuestions(stores)
    sampler, args = schedule(
        data, stage, folder, seed, questions_per_image=stage.questions_per_image, report_to=report_to
    )
    check_memory(model, stage, args.device)  # the Trainer moves the model there
    packer = Packer(
        image_token_id=encoder.image_token_id,
        visual_tokens=encoder.visual_tokens,
        pad_id=encoder.pad_id,
    )
    name_layers(model)
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
        adapters_lr=stage.adapters_lr,
        callbacks=[JsonLog(folder, stage.name, meter)],
    )
    trainer.remove_callback(PrinterCallback)
    facts = {
        "stage": stage.name,
        "steps": args.max_steps,
        "images": data.n_images,
        "questions": len(data),
        "sequences": len(sampler.starts),
        "set_aside": sum(s.meta["set_aside"] for s in stores),
        "visual_tokens": encoder.visual_tokens,
        "questions_per_step": round(stage.batch_images * sampler.questions_a_pack, 1),
        "longest_question_tokens": int(data.lengths.max()) + encoder.visual_tokens - 1,
    }
    return Run(stage, folder, trainer, processor, args.max_steps, facts)


def store_folders(model: Any, processor: Any, stages: Sequence[Stage], cache: Path) -> dict[DataSource, Path]:
    """The folder in a run's cache of each data source's store, for packed stages."""
    text = text_fingerprint(processor)
    return {s: store_folder(cache, s, text, _longest(model)) for stage in stages for s in stage.data}


def _longest(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def schedule(
    data: PackedQuestions,
    stage: Stage,
    folder: Path,
    seed: int,
    *,
    questions_per_image: int,
    report_to: Sequence[str] = (),
) -> tuple[PackSampler, TrainingArguments]:
    """The order of a stage's data, the same in all processes, and the Trainer's arguments.

    Raises VsreError for a batch that the processes cannot share.
    """
    devices = processes().num_processes
    micro, passes = stage.micro_batch(devices)
    whole = micro * devices
    filled = whole if devices > 1 else 1
    sampler = PackSampler(data, questions_per_image, seed, stage.batch_images, filled, stage.shares)
    an_epoch = math.ceil(math.ceil(len(sampler) / whole) / passes)
    # Rounded first: 0.07 x 100 is 7.000000000000001.
    steps = stage.max_steps or max(1, math.ceil(round(stage.epochs * an_epoch, 6)))
    return sampler, training_arguments(stage, folder, micro, passes, steps, seed, report_to)


def training_arguments(
    stage: Stage, folder: Path, micro: int, passes: int, steps: int, seed: int, report_to: Sequence[str] = ()
) -> TrainingArguments:
    """The Trainer's arguments for a stage: `passes` passes of `micro` sequences on each device make a step."""
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
        use_cpu=not torch.accelerator.is_available(),  # else bf16 is refused
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=stage.save_every,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to=list(report_to),
        run_name=f"{folder.parent.name}/{stage.name}",
        project=folder.parent.name,
        push_to_hub=False,
    )
    args._n_gpu = min(args.n_gpu, 1)  # several devices have one process each (torchrun), never DataParallel
    return args


def announce(run: Run, console: Console) -> None:
    """Print what trains, on what, in how many steps, and how much memory it takes."""
    stage, facts, model = run.stage, run.facts, run.trainer.model
    micro, passes = run.trainer.args.per_device_train_batch_size, run.trainer.args.gradient_accumulation_steps
    devices = run.trainer.args.world_size
    shared = f" x {devices} processes" if devices > 1 else ""
    console.print(freezing_table(model, f"Stage {stage.name}"))
    console.print(
        f"{facts['questions']:,} questions about {facts['images']:,} images in {facts['sequences']:,} "
        f"sequences, {facts['visual_tokens']:,} visual tokens per image\n"
        f"{run.steps:,} steps of {stage.batch_images} images ({micro} per pass x {passes}{shared}), "
        f"{facts['questions_per_step']:,.0f} questions; lr {stage.lr:g}\n"
        f"weights, gradients and optimizer: {fixed_bytes(model, stage) / 1e9:,.3f} GB; activations come on top\n"
        f"frozen features: {run.features}"
    )
    if facts["set_aside"]:
        console.print(f"{facts['set_aside']:,} questions are longer than the model takes: set aside, see the cache")


def disk_needed(
    model: Any,
    todo: Mapping[Path, Stage],
    kept: Mapping[DataSource, Path],
    freeze: Callable[[Any, Stage], Any] = freeze,
) -> int:
    """Bytes that the stages still to come will write, less what they have written already.

    `kept` has the folder of each source's store; `freeze` unfreezes what a stage trains and freezes the rest.
    """
    weights = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    needed = there = largest = 0
    for folder, stage in todo.items():
        freeze(model, stage)
        muon = stage.optimizer == "muon"
        checkpoint = checkpoint_bytes(model, muon=muon)
        if stage.lora:  # low-rank matrices in float32, and one or two moments of them
            checkpoint += (8 if muon else 12) * lora_parameters(model, stage.lora)
        checkpoint += weights if sharded() else 0  # FSDP's and DeepSpeed's hold frozen weights too
        largest = max(largest, checkpoint)
        needed += stage.keep_checkpoints * checkpoint + weights
        there += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    needed += largest  # the one being written while the others are kept
    missing = {s for stage in todo.values() for s in stage.data if not (kept[s] / META).is_file()}
    sources = {path for s in missing for path in (s.triplets, s.questions)}
    return max(0, needed - there) + sum(file.stat().st_size for path in sources for file in parquet_files(path))
