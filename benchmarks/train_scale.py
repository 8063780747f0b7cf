"""Training VSRE at the paper's size with random weights: memory, tokens per second, and the share of a GPU's peak.

    python benchmarks/train_scale.py [--json OUT] [--model 7b 13b-lora ...] [--gpu h100]
    python benchmarks/train_scale.py --tiny              the same code on tiny shapes, for a machine without a GPU

    7b         stage 2 (arXiv 2412.18224): Vicuna-7B's shape, CLIP, SigLIP, DINOv2 and SAM, 1,817 visual tokens an
               image; adapters and language model train in bf16 with checkpointed activations and AdamW
    7b-lora    the same with LoRA of rank 128
    13b-lora   Vicuna-13B's shape with LoRA: does it stay below 80 GB?

Each is trained in two ways on the same questions, 16 per image of 40 tokens each: one question per sequence, and
packed. It uses the stage's own Trainer, attention and optimizer, with random numbers for the features of a cache. The
number of sequences in a pass is doubled while it gains and fits. A figure is the median over the steps after warm-up.

`mfu` counts what the model needs (recipes/hours.py: sequence_flops), `hfu` also what checkpointing computes again, over
PEAKS of recipes/hours.py. `estimated_gb` is what `vsre recipes validate` estimates for that pass (recipes/memory.py).
If all weights of 7b do not fit with AdamW (about 110 GB), fewer layers are measured, and `layers` says how many.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from vsre.model import VsreConfig, VsreForConditionalGeneration
from vsre.recipes.hours import PEAKS, sequence_flops
from vsre.recipes.hub import Checkpoints
from vsre.recipes.memory import OneSequence, stage_memory
from vsre.recipes.schema import EncoderChoice, Start
from vsre.recipes.shape import Shape, encoder, shape_of
from vsre.train import Example, Packer, Stage
from vsre.train.attention import BranchAttention
from vsre.train.data import PackSampler
from vsre.train.freezing import freeze
from vsre.train.logs import Meter
from vsre.train.lora import LoraLayers
from vsre.train.memory import out_of_memory
from vsre.train.prepare import training_arguments
from vsre.train.trainer import VsreTrainer
from vsre.train.vision import FEATURES

WARM, MEASURED = 3, 5
LEARNT = 6
PAPER = ("clip", "siglip", "dinov2", "sam")
ZOO = tuple(f"zoo:{name}" for name in PAPER)


@dataclass(frozen=True)
class Setting:
    """A model and how it trains; `room`, in GB, is what it should fit into."""

    llm: str
    encoders: tuple[str, ...] = PAPER
    lora: bool = False
    questions: int = 16
    tokens: int = 40
    room: float | None = None
    most: int = 64


SETTINGS = {
    "7b": Setting("lmsys/vicuna-7b-v1.5"),
    "7b-lora": Setting("lmsys/vicuna-7b-v1.5", lora=True),
    "13b-lora": Setting("lmsys/vicuna-13b-v1.5", lora=True, room=80),
}
TINY = {
    "tiny": Setting("zoo:base", ZOO, questions=4, tokens=12, most=2),
    "tiny-lora": Setting("zoo:base", ZOO, lora=True, questions=4, tokens=12, most=2),
}


def stage_of(setting: Setting, questions: int) -> Stage:
    return Stage.model_validate(
        {
            "name": "scale", "train": ["adapters", "llm"], "data": [{"triplets": "-", "questions": "-"}], "bf16": True,
            "gradient_checkpointing": True, "lora": {"dropout": 0} if setting.lora else None, "batch_images": 1,
            "questions_per_image": questions, "lr": 1e-6,
        }
    )  # fmt: skip


def build(setting: Setting, layers: int | None, device: torch.device) -> tuple[Any, Shape]:
    """A model of a setting's shape with random weights, and the shape that estimates are made from."""
    known = Checkpoints(online=False)
    choices = [EncoderChoice(id=name) for name in setting.encoders]
    text = known.config(setting.llm).get_text_config(decoder=True)
    shape = shape_of(Start(llm=setting.llm, encoders=choices), known)
    if layers and layers < text.num_hidden_layers:
        gone = (text.num_hidden_layers - layers) * shape.layer
        text.num_hidden_layers = layers
        shape = replace(shape, layers=layers, parameters={**shape.parameters, "llm": shape.parameters["llm"] - gone})
    config = VsreConfig.of(text, [encoder(choice, known) for choice in choices], image_token_id=text.vocab_size - 1)
    with device:
        return VsreForConditionalGeneration(config), shape


class Questions:
    """A setting's questions about each of `images` images: random tokens after the image token, the last learnt."""

    def __init__(self, setting: Setting, images: int, vocabulary: int) -> None:
        random = np.random.default_rng(0)
        self.ids = random.integers(1, vocabulary - 1, (images * setting.questions, setting.tokens)).astype(np.int32)
        self.ids[:, 0] = vocabulary - 1
        self.image_of = np.repeat(np.arange(images), setting.questions)
        self.lengths = np.full(len(self.image_of), setting.tokens)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, pack: np.ndarray) -> tuple[np.ndarray, list[Example]]:
        return pack, [Example(self.ids[row], len(self.ids[row]) - LEARNT, len(self.ids[row])) for row in pack]


class Batches:
    """Turns packs into a batch, with random features in place of a cache's."""

    def __init__(self, model: Any, packer: Packer, image_size: int) -> None:
        self.packer = packer
        blank = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device=model.device)
        self.shapes = {name: tuple(made.shape[1:]) for name, made in model.encode(blank).items()}

    def __call__(self, items: list[tuple[np.ndarray, list[Example]]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.packer.batch([examples for _, examples in items])
        batch[FEATURES] = {name: torch.randn(len(items), *s).bfloat16() for name, s in self.shapes.items()}
        return batch | {"rows": [int(row) for pack, _ in items for row in pack]}


class Laps(TrainerCallback):
    """The seconds and tokens per second of every step."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.lines.append(dict(logs))


def train(model: Any, stage: Stage, setting: Setting, batches: Batches, micro: int) -> dict[str, Any] | None:
    """Train for some steps of one pass each; None if memory runs out."""
    meter, laps, steps = Meter(), Laps(), WARM + MEASURED
    each = -(-setting.questions // stage.questions_per_image)  # sequences per image
    data = Questions(setting, -(-micro * steps // each), model.config.image_token_id + 1)
    cuda = model.device.type == "cuda"
    full = False
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(stage, Path(folder) / "scale", micro, 1, steps, seed=0)
        args.save_strategy = SaveStrategy.NO
        trainer = VsreTrainer(
            model=model,
            args=args,
            data_collator=batches,
            train_dataset=data,
            sampler=PackSampler(data, stage.questions_per_image, 0, micro),  # type: ignore[arg-type]
            asleep=list(model.encoders.values()),
            meter=meter,
            keep_checkpoints=1,
            attention=BranchAttention(model) if stage.questions_per_image > 1 else None,
            callbacks=[laps],
        )
        trainer.remove_callback(PrinterCallback)
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        meter.start()
        try:
            trainer.train()
        except RuntimeError as error:
            if not (full := out_of_memory(error)):
                raise
    trainer.optimizer = trainer.lr_scheduler = None
    for mark in ("forward", "_original_forward", "_is_accelerate_prepared"):  # the next Trainer prepares it again
        model.__dict__.pop(mark, None)
    model.zero_grad()
    gc.collect()
    if full:
        return None
    seconds = statistics.median(line["seconds"] for line in laps.lines[WARM:])
    return {
        "sequences_a_pass": micro,
        "step_s": round(seconds, 4),
        "tokens_per_s": round(statistics.median(line["tokens_per_s"] for line in laps.lines[WARM:]), 1),
        "questions_per_s": round(statistics.median(line["questions_per_s"] for line in laps.lines[WARM:]), 2),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
        "loss": round(laps.lines[-1]["loss"], 4),
    }


def best(model: Any, shape: Shape, setting: Setting, questions: int, peak: float | None) -> dict[str, Any] | None:
    """The fastest pass of one way, with its share of the peak and the memory estimated for it."""
    stage = stage_of(setting, questions)
    batches = Batches(
        model,
        Packer(image_token_id=model.config.image_token_id, visual_tokens=model.config.image_tokens, pad_id=0),
        model.config.frame_size,
    )
    found: dict[str, Any] | None = None
    micro = 1
    while micro <= setting.most and (made := train(model, stage, setting, batches, micro)):
        if found and made["questions_per_s"] < 1.03 * found["questions_per_s"]:
            break
        found, micro = made, 2 * micro
    if not found:
        return None
    sequence = OneSequence(
        shape.picture_tokens, questions * (setting.tokens - 1), questions * LEARNT, packed=questions > 1
    )
    counted, run = sequence_flops(shape, stage, sequence, questions)
    rate = found["sequences_a_pass"] / found["step_s"]
    reckoned = stage_memory(shape, stage, sequence, found["sequences_a_pass"])
    found |= {
        "estimated_gb": round((reckoned.fixed + reckoned.activations) / 1e9, 2),
        "model_tflops_per_s": round(counted * rate / 1e12, 4),
        "mfu": round(counted * rate / peak, 4) if peak else None,
        "hfu": round(run * rate / peak, 4) if peak else None,
    }
    return found


def measure(name: str, setting: Setting, peak: float | None, device: torch.device) -> dict[str, Any]:
    """Measure both ways of a setting; the layers are halved, and halved again, until the weights fit."""
    layers: int | None = None
    while True:
        torch.manual_seed(0)
        model, shape = build(setting, layers, device)
        stage = stage_of(setting, 1)
        freeze(model, stage)
        if stage.lora:
            LoraLayers(model, stage.lora, seed=0, bf16=stage.bf16)
        model.activation_checkpointing_enable()
        model.train()
        packed = best(model, shape, setting, setting.questions, peak)
        single = best(model, shape, setting, 1, peak) if packed else None
        if packed and single:
            break
        if shape.layers <= 2:
            raise SystemExit(f"{name}: not even two layers fit on this device.")
        layers = shape.layers // 2
        print(f"{name}: {shape.layers} layers do not fit; measured with {layers}", flush=True)
        del model
        gc.collect()
        torch.cuda.empty_cache()
    v, k, t = shape.picture_tokens, setting.questions, setting.tokens - 1
    return {
        "parameters": sum(shape.parameters.values()),
        "layers": shape.layers,
        "visual_tokens": v,
        "questions": k,
        "ratio": round(packed["questions_per_s"] / single["questions_per_s"], 2),
        "bound_by_tokens": round(k * (v + t) / (v + k * t), 2),
        "within_room": None if setting.room is None or packed["peak_gb"] is None else packed["peak_gb"] < setting.room,
        "packed": packed,
        "single": single,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--gpu", choices=PEAKS, help="whose peak to use; default: by the device's name")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.tiny:
        raise SystemExit("no GPU here: run it on one, or with --tiny.")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    plain = name.lower().replace(" ", "")
    gpu = arguments.gpu or next((known for known in PEAKS if known in plain), None)
    settings = TINY if arguments.tiny else {model: SETTINGS[model] for model in arguments.model}
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "peak": PEAKS[gpu] if gpu else None}
    for model, setting in settings.items():
        result[model] = measure(model, setting, result["peak"], device)
        print(model, json.dumps(result[model]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
