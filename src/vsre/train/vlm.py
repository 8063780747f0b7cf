"""run_vlm_stages: fine-tune any image-text model of transformers as it is, on the same questions and stages.

What `run_stages` does for VSRE and LLaVA with packed questions, this does for every other model with one question per
sequence, its own processor, chat template and forward pass. The run's folder has the same layout (run.py), so a run can
be killed, resumed, read and diagnosed in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PrinterCallback

from vsre.errors import VsreError
from vsre.train.carry import MODEL, carry_out, finish
from vsre.train.checkpoints import (
    DONE,
    check_disk,
    explain_full_disk,
    load_weights,
    read_json,
    trained,
)
from vsre.train.data import PackedQuestions
from vsre.train.fingerprint import claim_folder, describe_run, store_folder
from vsre.train.logs import JsonLog, Meter
from vsre.train.lora import lora_layers
from vsre.train.memory import check_memory, fixed_bytes
from vsre.train.parts import freeze_parts
from vsre.train.prepare import disk_needed, schedule
from vsre.train.processes import processes, sharded
from vsre.train.run import as_it_was, check_stages, stage_folders
from vsre.train.stages import DataSource, Stage, parse_stages
from vsre.train.store import open_store
from vsre.train.vlm_data import TextEncoder, VlmCollator
from vsre.train.vlm_trainer import VlmTrainer, prove_answers_unseen


def one_question(stage: Stage) -> None:
    """Raise VsreError for a stage that wants what a `vlm` cannot do: several questions in a sequence."""
    if "questions_per_image" in stage.model_fields_set and stage.questions_per_image != 1:
        raise VsreError(
            f"stage {stage.name}: a `vlm` is asked one question per sequence. Take questions_per_image out, or "
            "train a VSRE or LLaVA `checkpoint`, which packs them."
        )


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

    `model` and `processor` are those of any image-text model, the same at every call. A stage's `batch_images` counts
    sequences, each one question about one image. Returns what `run_stages` returns. Raises VsreError for stages, data
    or a folder that cannot be used, for a model whose parts cannot be told apart or whose masks show it the answer, for
    a loss that is not finite, for a pass that is too large, and for a full disk.
    """
    stages = parse_stages(stages)
    check_stages(stages)
    for stage in stages:
        if sharded():
            raise VsreError(f"stage {stage.name}: a `vlm` cannot be spread over devices yet. Take ddp-8, with lora.")
        one_question(stage)
    out_dir, console = Path(out_dir), console or Console(stderr=True)
    began = time.perf_counter()
    with processes().main_process_first(), explain_full_disk(out_dir):
        claim_folder(out_dir, describe_run(model, processor, stages, seed) | {"sequences": "vlm"}, resume=True)
    folders = stage_folders(stages, out_dir)
    first = next((n for n, folder in enumerate(folders) if not (folder / DONE).is_file()), len(stages))
    if first < len(stages):
        stores = {s: _store(s, out_dir) for stage in stages for s in stage.data}
        todo = dict(zip(folders[first:], stages[first:], strict=True))
        check_disk(out_dir, disk_needed(model, todo, stores, freeze_parts))
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
    stage = stage.model_copy(update={"questions_per_image": 1})  # so that its record and messages say so too
    asleep = freeze_parts(model, stage)
    if stage.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise VsreError(f"stage {stage.name}: {type(model).__name__} cannot use gradient_checkpointing. Take it out.")
    with lora_layers(model, stage, seed) as lora:
        trainer = build_trainer(model, processor, stage, folder, seed, asleep)
        if trainer.is_world_process_zero():
            console.print(_announcement(trainer, stage), highlight=False)
        notes = carry_out(trainer, stage, console, prove=prove_answers_unseen, proof="unseen", lora=lora)
    data = trainer.train_dataset
    counts = {"steps": trainer.args.max_steps, "images": data.n_images, "questions": len(data)}
    finish(trainer, processor, stage, {"stage": stage.name, **counts, **notes})


def build_trainer(model: Any, processor: Any, stage: Stage, folder: Path, seed: int, asleep: list[Any]) -> VlmTrainer:
    """Open the data of a stage and build its Trainer. Raises VsreError as `prepare` does."""
    encoder = TextEncoder()
    with processes().main_process_first():
        folder.mkdir(parents=True, exist_ok=True)
        stores = [open_store(s, encoder, _store(s, folder.parent)) for s in stage.data]
    data = PackedQuestions(stores)
    sampler, args = schedule(data, stage, folder, seed, questions_per_image=1)
    check_memory(model, stage, args.device)  # the Trainer moves the model there
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
        adapters_lr=stage.adapters_lr,
        callbacks=[JsonLog(folder, stage.name, meter)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _store(source: DataSource, out_dir: Path) -> Path:
    return store_folder(out_dir / "cache", source, "text", None)


def _announcement(trainer: VlmTrainer, stage: Stage) -> str:
    model, data, args = trainer.model, trainer.train_dataset, trainer.args
    everything = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    learning = sum(p.numel() for p in trained(model).values())
    return (
        f"Stage {stage.name}: {learning:,} of {everything:,} parameters train ({', '.join(stage.train)}"
        f"{', lora' if stage.lora else ''})\n{len(data):,} questions about {data.n_images:,} images, one per sequence\n"
        f"{args.max_steps:,} steps of {stage.batch_images} ({args.per_device_train_batch_size} per pass); "
        f"lr {stage.lr:g}\n"
        f"weights, gradients and optimizer: {fixed_bytes(model, stage) / 1e9:,.3f} GB; activations come on top"
    )
