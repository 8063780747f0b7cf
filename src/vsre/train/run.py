"""run_stages: a run's stages, one after another; each can be killed at any moment and resumed.

OUT/run.json                  what the run is made of; a folder never mixes two configurations
OUT/cache/                    questions as tokens, images as bytes, features of frozen encoders (features.py);
                              may be deleted and is then made again
OUT/01-align/log.jsonl        one line per step; loss.png is drawn from it
OUT/01-align/checkpoint-500/  what trains, optimizer, schedule, random numbers, place in the data
OUT/01-align/model/           the model with the stage's weights (safetensors), LoRA merged, and its processor
OUT/01-align/done.json        written last: the stage is finished
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from vsre.errors import VsreError
from vsre.train.carry import MODEL, carry_out, finish
from vsre.train.checkpoints import (
    DONE,
    check_disk,
    explain_full_disk,
    load_weights,
    read_json,
)
from vsre.train.examples import ChatEncoder
from vsre.train.features import use_features
from vsre.train.fingerprint import claim_folder, describe_run
from vsre.train.freezing import freeze
from vsre.train.logs import check_trackers, trackers
from vsre.train.lora import LoraLayers, check_lora, lora_layers
from vsre.train.prepare import Run, announce, disk_needed, prepare, store_folders
from vsre.train.processes import processes, sharded
from vsre.train.proof import prove_packing
from vsre.train.stages import Stage, parse_stages


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
    report_to: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a model through stages and leave the last one's weights in it; run again to continue after a
    kill.

    `model` and `processor` are a VSRE or LLaVA model and its processor, the same at every call. Finished
    stages are skipped, an unfinished one continues from its last complete checkpoint, and the result is bit
    for bit that of an uninterrupted run on the same machine. With `resume=False` a folder that holds a run is
    refused.

    `feature_cache`: the folder where features of frozen encoders are kept, OUT/cache/features if True. It is used
    in stages whose encoders are frozen, as long as what is missing there fits into half of the free disk.
    `report_to`: trackers that get the log's lines too, by transformers' names: tensorboard, wandb, trackio, ...

    Processes started by torchrun or `accelerate launch` share the work; a run may continue with a different number of
    them. If FSDP or DeepSpeed spreads the weights, a call trains one stage: `model` is sharded afterwards, and the next
    stage needs a new process.

    Returns {"out_dir", "model": folder of the final weights, "seconds", "stages": [figures of each that is done]}.
    Raises VsreError for stages, data or a folder that cannot be used, for a loss that is not finite, for a pass that
    is too large, and for a full disk; what is complete on disk stays usable in every case.
    """
    stages = parse_stages(stages)
    check_stages(stages, report_to)
    out_dir = Path(out_dir)
    console = console or Console(stderr=True)
    began = time.perf_counter()
    with processes().main_process_first(), explain_full_disk(out_dir):
        # What the other processes find there, the main process has just written.
        resume = resume or not processes().is_main_process
        claim_folder(out_dir, describe_run(model, processor, stages, seed), resume=resume)
    folders = stage_folders(stages, out_dir)
    todo = [number for number, folder in enumerate(folders) if not (folder / DONE).is_file()]
    stores = store_folders(model, processor, stages, out_dir / "cache")
    if todo:
        check_disk(out_dir, disk_needed(model, {folders[n]: stages[n] for n in todo}, stores))
    first = todo[0] if todo else len(stages)
    last = min(first + 1, len(stages)) if sharded() else len(stages)
    if first:
        load_weights(model, folders[first - 1] / MODEL)
    encoder = ChatEncoder(processor)
    for number in range(first, last):
        stage, folder = stages[number], folders[number]
        reserved = disk_needed(model, {folders[n]: stages[n] for n in range(number, len(stages))}, stores)
        asleep = freeze(model, stage)
        with explain_full_disk(folder), as_it_was(model), lora_layers(model, stage, seed + number) as lora:
            run = prepare(
                model,
                processor,
                encoder,
                stage,
                folder,
                seed + number,
                image_cache_bytes,
                kept=stores,
                asleep=asleep,
                report_to=report_to,
            )
            if feature_cache is not False:
                kept = out_dir / "cache" / "features" if feature_cache is True else feature_cache
                run.features = use_features(run.trainer, kept, console, reserved=reserved)
            _train(run, console, lora)
    if not sharded():
        model.eval()
    return {
        "out_dir": str(out_dir),
        "model": str(folders[last - 1] / MODEL),
        "seconds": round(time.perf_counter() - began, 3),
        "stages": [read_json(folder / DONE) for folder in folders[:last]],
    }


def check_stages(stages: Sequence[Stage], report_to: Sequence[str] = ()) -> None:
    """Raise VsreError if stages or trackers need what is not installed or cannot be combined; loads nothing."""
    check_lora(stages)
    check_trackers(report_to)
    for stage in stages:
        if sharded() and (stage.lora or stage.optimizer == "muon"):
            raise VsreError(
                f"stage {stage.name}: {'lora' if stage.lora else 'muon'} needs whole weights on every device, but FSDP "
                "and DeepSpeed shard them. Take ddp-8 or ddp-4x8"
                + (", if LoRA's frozen weights fit on one device." if stage.lora else ", or the optimizer adamw.")
            )


def stage_folders(stages: Sequence[Stage], out_dir: Path) -> list[Path]:
    """The folder of each stage of a run."""
    return [out_dir / f"{number:02d}-{stage.name}" for number, stage in enumerate(stages, 1)]


def _train(run: Run, console: Console, lora: LoraLayers | None) -> None:
    stage, trainer = run.stage, run.trainer
    if trainer.is_world_process_zero():
        announce(run, console)
    with trackers(trainer.args.report_to, run.folder.parent.name):
        notes = carry_out(
            trainer,
            stage,
            console,
            prove=prove_packing,
            proof="packing_difference",
            lora=lora,
            around=trainer.vision.taken() if trainer.vision else None,
        )
    damaged = {"damaged_features": trainer.data_collator.damaged}
    finish(trainer, run.processor, stage, {**run.facts, **notes, **damaged})


@contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """Restore the model afterwards, so that it generates and computes as before.

    The Trainer turns off the cache in its configuration. accelerate wraps its forward pass in the stage's precision
    and marks it as prepared, so that the next stage would compute in that precision too, whatever it asks for.
    """
    marks = {"forward", "_original_forward", "_is_accelerate_prepared"}
    kept = [(owner.__dict__, names) for owner, names in ((model.config, {"use_cache"}), (model, marks))]
    before = [{name: values[name] for name in names & values.keys()} for values, names in kept]
    try:
        yield
    finally:
        for (values, names), old in zip(kept, before, strict=True):
            for name in names:
                values.pop(name, None)
            values.update(old)
